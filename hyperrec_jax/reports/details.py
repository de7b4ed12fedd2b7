"""What a report shows beside the front: calibration, use of the experts, history, config."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.split import Split
from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.importance import Importance
from hyperrec_jax.evaluation.measures import labelled
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.losses import output_slices
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.log import read_metrics
from hyperrec_jax.training.trained import Trained

EXPERT_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Details:
    """What the report shows beside the front.

    Attributes:
      source: Where the rows come from.
      config: The config of the run, flat.
      versions: Packages and devices of the run.
      history: Records of `metrics.jsonl`.
      curves: Calibration curves under some preferences, by their index: one for each binary goal,
        by its index.
      expert_use: Share of each expert in the gates' weights, `[preference, gate, expert]`; one
        row where the preference does not change them, None for models without gates.
      comparison: A comparison with other models on the same rows, or None.
      importance: What each goal loses when a field is shuffled, or None.
    """

    source: str
    config: dict[str, Any]
    versions: dict[str, Any]
    history: list[dict[str, Any]]
    curves: dict[int, dict[int, metrics.CalibrationCurve]]
    expert_use: np.ndarray | None
    comparison: Comparison | None = None
    importance: Importance | None = None


def details(
    workdir: Path,
    trained: Trained,
    split: Split,
    scores: Scores,
    front: Front,
    comparison: Comparison | None = None,
) -> Details:
    """Collects what the report shows beside the front.

    Args:
      workdir: The run's folder.
      trained: From `training.trained.load_trained`.
      split: The rows that were scored.
      scores: From `Trained.score`.
      front: The front of those scores.
      comparison: A comparison of that front with others.
    """
    last = len(front.loss) - 1
    curves = {
        place: _calibration_curves(create_goals(trained.schema), scores, place)
        for place in sorted({0, last // 2, last})
    }
    return Details(
        source=trained.schema.source,
        config=workdirs.flatten(trained.config),
        versions=workdirs.load_versions(workdir),
        history=read_metrics(workdir),
        curves=curves,
        expert_use=expert_use_of(trained, split, front.preferences),
        comparison=comparison,
    )


def _calibration_curves(
    goals: Sequence[RowGoal], scores: Scores, preference: int
) -> dict[int, metrics.CalibrationCurve]:
    """The curve of each binary goal that has labels; rows count alike, whatever their weight."""
    curves = {}
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        rows = labelled(scores, index)
        if isinstance(goal, Binary) and len(rows.labels):
            logits = rows.of(scores.logits[preference, place])[:, 0]
            curves[index] = metrics.calibration_curve(rows.labels, logits)
    return curves


def expert_use_of(trained: Any, split: Any, preferences: np.ndarray | None) -> np.ndarray | None:
    """Shares of the experts over rows from all parts of the split, `[preference, gate, expert]`.

    Models note what they weigh experts by under the name `gate_weights`: in `encode` where the
    preference does not change it, else in `decode`.
    """
    rows = np.linspace(0, len(split) - 1, min(EXPERT_ROWS, len(split))).astype(int)
    batch = split.gather(rows)
    apply = functools.partial(trained.network.apply, trained.variables, mutable=["intermediates"])

    @jax.jit
    def encode(batch: Any) -> Any:
        features, noted = apply(batch, False, method="encode")
        return features, _mean_weights(noted)

    @jax.jit
    def decode(features: Any, preference: Any) -> Any:
        return _mean_weights(apply(features, preference, False, method="decode")[1])

    features, weights = encode({c.name: batch[c.name] for c in input_columns(trained.schema)})
    if preferences is None:
        preferences = np.full((1, trained.schema.num_tasks), 1 / trained.schema.num_tasks)
    noted = [weights] if weights else [decode(features, np.float32(one)) for one in preferences]
    if not noted[0]:
        return None
    means = np.asarray(noted, np.float64)
    return means / np.maximum(means.sum(axis=-1, keepdims=True), 1e-12)


def _mean_weights(noted: Any) -> list[jax.Array]:
    """Mean weights `[expert]` of each gate; an empty list without gates."""
    (gates,) = noted.get("intermediates", {}).get("gate_weights", ([],))
    return [gate.reshape(-1, gate.shape[-1]).astype(jnp.float32).mean(axis=0) for gate in gates]
