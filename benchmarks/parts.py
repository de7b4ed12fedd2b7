"""The parts of a run outside its loop, for what times or inspects them."""

from typing import Any, NamedTuple

from jax.sharding import Mesh

from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.config.run import Run
from hyperrec_jax.data.readers.rows import Reader
from hyperrec_jax.data.store import Store
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.training.dispatch import Step, make_step
from hyperrec_jax.training.state import TrainState, first_state, state_template
from hyperrec_jax.training.train import open_reader


class Parts(NamedTuple):
    """A run, its batches and its step.

    Attributes:
      run: The run.
      reader: Its batches by step.
      step: The pure step.
      template: Shapes and shardings of the state.
    """

    run: Run
    reader: Reader
    step: Step
    template: TrainState

    @property
    def model(self) -> MultiTaskModel:
        return self.run.model

    @property
    def mesh(self) -> Mesh:
        return self.run.mesh

    def init(self) -> TrainState:
        """The first state."""
        return first_state(self.run)


def make_parts(config: dict[str, Any], store: Store) -> Parts:
    """The parts of a config for a store.

    Raises:
      UserError: as `resolve` and `open_reader`.
    """
    run = resolve(config, store.schema, store.split("train"))
    return Parts(run, open_reader(run, store.split("train")), make_step(run), state_template(run))
