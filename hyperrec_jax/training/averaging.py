"""A running mean of the parameters, which is what the second stage of lists selects and keeps.

The last parameters of a stage with a large rate are some point around a minimum; their mean over
the last steps lies nearer to it (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).
"""

import jax

from hyperrec_jax.config.run import Run
from hyperrec_jax.training.state import Batch, TrainState
from hyperrec_jax.training.step import RunStep, StepMetrics


def with_average(step: RunStep, run: Run) -> RunStep:
    """A step that keeps the mean, too, where the run has one.

    Args:
      step: The step.
      run: With `average`, the weight of the old mean; 0 for no mean.
    """
    if not run.average:
        return step

    def averaging_step(run: Run, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        new, metrics = step(run, state, batch)
        average = jax.tree.map(
            lambda mean, last: run.average * mean + (1 - run.average) * last,
            state.average,
            new.params,
        )
        return new.replace(average=average), metrics

    return averaging_step


def served(run: Run, state: TrainState) -> TrainState:
    """The state whose parameters are measured and kept: the mean's where the run has one."""
    return state.replace(params=state.average) if run.average else state
