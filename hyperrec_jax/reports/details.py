"""What a report shows beside the front: calibration, use of the experts, history, config."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.scoring import Scores
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.log import read_metrics

EXPERT_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Details:
    """What the report shows beside the front.

    Attributes:
      source: Where the rows come from.
      config: The config of the run, flat.
      versions: Packages and devices of the run.
      history: Records of `metrics.jsonl`.
      curves: Calibration curves under some preferences, by their index: one for each goal.
      expert_use: Share of each expert in the gates' weights, `[preference, gate, expert]`; one
        row where the preference does not change them, None for models without gates.
      comparison: A comparison with other models on the same rows, or None.
    """

    source: str
    config: dict[str, Any]
    versions: dict[str, Any]
    history: list[dict[str, Any]]
    curves: dict[int, list[metrics.CalibrationCurve]]
    expert_use: np.ndarray | None
    comparison: Comparison | None = None


def details(
    workdir: Path,
    trained: Any,
    split: Any,
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
    last = len(front.auc) - 1
    curves = {
        place: [
            metrics.calibration_curve(labels, logits)
            for labels, logits in zip(scores.labels, scores.logits[place], strict=True)
        ]
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

    features, weights = encode({name: batch[name] for name in ("categorical", "numerical")})
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
