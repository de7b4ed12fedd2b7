"""A run: all that a config makes of a data set, checked, each part built once."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from hyperrec_jax.config.lists import ListTraining
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.evaluation.selection import Selection
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.preference.normalisation import Normaliser
from hyperrec_jax.preference.objectives import Objective
from hyperrec_jax.preference.sampling import Sampler

Config = dict[str, Any]
"""A nested dictionary with the sections of `config/defaults.py`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The parts of a run; `config.resolve` makes it, everything else reads it.

    A variation is `dataclasses.replace(run, sampler=...)`. A run equals itself alone.

    Attributes:
      config: The config with all defaults written out, so that no later default changes the run.
      schema: What the model reads and what it is for.
      model: A Flax module of `hyperrec_jax.models`.
      objective: Losses of the goals and a preference into one number.
      normaliser: The losses of all goals onto one scale.
      sampler: Draws the preferences of a batch.
      selection: What picks the epoch.
      num_preferences: Number of preferences per batch; every row is trained under each of them.
      preference_per_row: Whether every row has a preference of its own instead.
      optimizer: Gradients into updates, with its schedule over `total_steps`.
      mesh: Devices.
      batch_size: Rows of a global batch.
      total_steps: Batches from the start to the end of the run.
      goals: What is to be improved, in the order of a preference's weights.
      constants: Outputs of the best constant prediction of each goal on the training rows,
        `[goal][output]`, at which the first predictions begin; None where they begin at the model's
        own initial values.
      init_key: Random key of the first parameters.
      lists: The second stage, on whole lists; None without one.
      list_scales: Scale of each goal in the score of the lists that validation measures, f32
        `[goal]`; None where it measures none.
      first_step: Number of the run's first step; a second stage goes on where the first ended.
      first_epoch: Number of epochs before that step.
      average: Weight of the old mean in the running mean of the parameters; 0 keeps none.
      step_key: Random key of the steps; step `s` draws from `fold_in(step_key, s)`.
    """

    config: Config
    schema: Schema
    model: MultiTaskModel
    objective: Objective
    normaliser: Normaliser
    sampler: Sampler
    selection: Selection
    num_preferences: int
    preference_per_row: bool
    optimizer: optax.GradientTransformation
    mesh: Mesh
    batch_size: int
    total_steps: int
    goals: tuple[RowGoal, ...]
    constants: tuple[np.ndarray, ...] | None
    init_key: jax.Array
    step_key: jax.Array
    lists: ListTraining | None = None
    list_scales: np.ndarray | None = None
    first_step: int = 0
    first_epoch: int = 0
    average: float = 0.0
