"""The second stage of a run: the list, trained end to end from the best model of the first stage.

The first stage trains the goals' predictions on single rows. Their expected gain is a list score
already (`preference/expected_gain.py`), so that the second stage begins at that formula, and since
the best epoch is chosen by the same measure in both stages, it never ends below it on the
validation lists. A run that is killed in it goes on in it: its first state is saved before its
first step, at a step number of its own.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.split import Split
from hyperrec_jax.evaluation.grid import place_of_centre
from hyperrec_jax.evaluation.list_value import list_value
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.selection import SCALARISED_NDCG
from hyperrec_jax.evaluation.varied import varied_rows
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.state import TrainState


def begin(run: Run, state: TrainState, progress: Progress, checkpoints: Checkpoints) -> TrainState:
    """The first state of the second stage: the selected parameters, a fresh optimizer.

    Args:
      run: A run with `lists`.
      state: The last state of the first stage.
      progress: Up to it; updated in place.
      checkpoints: Checkpoints of the run; the new state is saved in them.
    """
    lists = run.lists
    assert lists is not None
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        state.variables,
    )
    selected = checkpoints.restore_best(template)
    assert selected is not None  # what opened the folder has checked it
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    optimizer = lists.optimizer

    def make(state: TrainState, variables: dict[str, Any]) -> TrainState:
        params = variables["params"]
        return state.replace(
            # One more than the last of the first stage, so that both have a checkpoint.
            step=state.step + 1,
            params=params,
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(params),
            average=params if lists.average else {},
        )

    state = jax.jit(make, out_shardings=shardings)(state, selected[0])
    progress.list_step = int(state.step)
    progress.list_epoch = progress.epoch
    progress.stale, progress.finished = 0, False
    checkpoints.save_latest(state, progress)
    return state


def stage_run(run: Run, progress: Progress) -> Run:
    """The run as the loop sees it in the second stage.

    Args:
      run: A run with `lists`.
      progress: Progress of a run whose second stage has begun.
    """
    lists = run.lists
    assert lists is not None
    assert progress.list_step is not None
    # Few epochs, with a schedule to their end: none is left out, and the best one is kept.
    settings = {**run.config["train"], "epochs": lists.epochs, "patience": 0}
    return dataclasses.replace(
        run,
        config={**run.config, "train": settings},
        optimizer=lists.optimizer,
        batch_size=lists.reader.batch_size,
        total_steps=lists.total_steps,
        first_step=progress.list_step,
        first_epoch=progress.list_epoch,
        average=lists.average,
    )


def list_record(run: Run, scores: Scores, rows: Split) -> dict[str, float]:
    """The lists of the validation rows as scalars, by the names that `train.select` knows.

    Args:
      run: A run with `list_scales`.
      scores: Scores of the rows under the validation grid.
      rows: The validation rows.
    """
    cutoff = run.config["list"]["cutoff"]
    assert run.list_scales is not None
    grid = evaluation_grid(len(run.goals), run.config["train"]["grid"])
    groups = rows.groups(0, len(rows))
    varied = varied_rows(run.schema, rows)
    greedy = bool(varied) and (run.lists is None or not run.lists.variety_weight)
    logits, centre = scores.logits, place_of_centre(grid)
    if greedy and centre is not None and len(logits) > 1:
        logits = logits[centre : centre + 1]
    found = list_value(
        logits,
        scores.labels,
        groups,
        grid,
        run.list_scales,
        cutoff,
        varied,
        greedy,
        run.config["list"]["score"],
    )
    best = np.asarray(found.ndcg).max(axis=0)
    named = {
        f"{goal.list_measure}/{goal.name}": float(value)
        for goal, value in zip(run.goals, best, strict=True)
    }
    return {SCALARISED_NDCG: found.value, **named}
