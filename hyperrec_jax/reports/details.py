"""What the page shows beside the front, from calibration and segments to history and config."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.config import defaults
from hyperrec_jax.config.catalogue import REGISTRIES
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
from hyperrec_jax.goals.losses import output_slices, predict_all
from hyperrec_jax.reports.example_lists import example_lists
from hyperrec_jax.reports.raw_values import RawValues
from hyperrec_jax.reports.segments import segments
from hyperrec_jax.reports.summary import shown_rows
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.log import read_metrics
from hyperrec_jax.training.trained import Trained

EXPERT_ROWS = 4096
SEGMENT_ROWS, SEGMENT_ROWS_IN_LISTS = 20_000, 60_000


@dataclasses.dataclass(frozen=True)
class Details:
    """What the page shows beside the front.

    Attributes:
      source: Where the rows come from.
      workdir: The run's folder, as commands take it.
      changed: What the run's config sets otherwise than the defaults, flat.
      versions: Packages and devices of the run.
      history: Records of `metrics.jsonl`.
      curves: Calibration curves under some preferences, by their index: one for each binary goal,
        by its index.
      expert_use: Share of each expert in the gates' weights, `[preference, gate, expert]`; one
        row where the preference does not change them, None for models without gates.
      grouped: Whether the data says which rows are ranked together.
      expected_gain: Whether the examples are ordered by the expected gain.
      examples: From `example_lists`; None without lists.
      segments: From `segments`.
      comparison: A comparison with other models on the same rows, or None.
      importance: What each goal loses when a field is shuffled, or None.
    """

    source: str
    workdir: str
    changed: dict[str, Any]
    versions: dict[str, Any]
    history: list[dict[str, Any]]
    curves: dict[int, dict[int, metrics.CalibrationCurve]]
    expert_use: np.ndarray | None
    grouped: bool = False
    expected_gain: bool = True
    examples: dict[str, Any] | None = None
    segments: Sequence[dict[str, Any]] = ()
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
    """Collects what the page shows beside the front.

    Args:
      workdir: The run's folder.
      trained: From `training.trained.load_trained`.
      split: The rows that were scored.
      scores: From `Trained.score`.
      front: The front of those scores.
      comparison: A comparison of that front with others.
    """
    groups = None if front.lists is None else split.groups(0, len(split))
    return details_of_rows(workdir, trained, split.gather, scores, front, groups, comparison)


def details_of_rows(
    workdir: Path,
    trained: Trained,
    gather: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    scores: Scores,
    front: Front,
    groups: np.ndarray | None,
    comparison: Comparison | None = None,
) -> Details:
    """As `details`, of rows that are not those of a whole split.

    Args:
      workdir: The run's folder.
      trained: The model.
      gather: From positions `[row]` to a batch of these rows.
      scores: Outputs of all of them.
      front: The front of those scores.
      groups: The list of each row, `[row]`; None without lists.
      comparison: A comparison of that front with others.
    """
    goals = create_goals(trained.schema)
    preferences = front.preferences
    places = [0] if preferences is None else shown_rows(preferences)
    raw = raw_values_of(trained)
    list_scores = None if front.lists is None else front.lists.first.scores
    sample = _whole_lists(scores.labels.shape[1], groups)
    examples = None
    if groups is not None and list_scores is not None:

        def predictions(rows: np.ndarray) -> Any:
            return predict_all(goals, scores.outputs[..., rows].swapaxes(-1, -2))

        examples = example_lists(raw, gather, groups, scores.labels.T, list_scores, predictions)
    part = scores.of_rows(sample)
    return Details(
        source=trained.schema.source,
        workdir=str(workdir),
        changed=changed_options(workdirs.flatten(trained.config)),
        versions=workdirs.load_versions(workdir),
        history=read_metrics(workdir),
        curves={place: _calibration_curves(goals, scores, place) for place in places},
        expert_use=expert_use_of(
            trained, gather(_evenly(scores.labels.shape[1], EXPERT_ROWS)), preferences
        ),
        grouped=groups is not None,
        examples=examples,
        segments=segments(
            raw,
            gather(sample),
            goals,
            part,
            None if groups is None else groups[sample],
            None if list_scores is None else list_scores[:, sample],
        ),
        comparison=comparison,
    )


def raw_values_of(trained: Trained) -> RawValues:
    """The text of the fields that a model reads.

    Raises:
      UserError: its vocabulary is missing or damaged.
    """
    return RawValues.open(trained.schema, workdirs.check_kept_vocabulary(trained.folder))


def _evenly(rows: int, most: int) -> np.ndarray:
    """Positions of at most so many rows from all parts, `[row]`."""
    return np.linspace(0, rows - 1, min(most, rows)).astype(int)


def _whole_lists(rows: int, groups: np.ndarray | None) -> np.ndarray:
    """Positions of the rows that segments are measured on, `[row]`: whole lists where there are."""
    if groups is None or rows <= SEGMENT_ROWS_IN_LISTS:
        return _evenly(rows, SEGMENT_ROWS if groups is None else SEGMENT_ROWS_IN_LISTS)
    _, list_of_row, counts = np.unique(groups, return_inverse=True, return_counts=True)
    lists = max(1, int(np.searchsorted(np.cumsum(counts), SEGMENT_ROWS_IN_LISTS)))
    return np.flatnonzero(list_of_row < lists)


def changed_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config sets otherwise than the defaults of its preset and of its components.

    Args:
      config: With dotted keys.
    """
    usual = workdirs.flatten(defaults.get_config(config.get("preset", "default")).to_dict())
    for section, registry in REGISTRIES.items():
        name = config.get(f"{section}.name")
        if isinstance(name, str) and name in registry:
            options = registry.options(name)
            usual = {f"{section}.{key}": one.default for key, one in options.items()} | usual
    kept = {"preset", "data.store", *(f"{section}.name" for section in REGISTRIES)}

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {
        key: value
        for key, value in config.items()
        if key in kept or key not in usual or plain(value) != plain(usual[key])
    }


def _calibration_curves(
    goals: Sequence[RowGoal], scores: Scores, preference: int
) -> dict[int, metrics.CalibrationCurve]:
    """The curve of each binary goal that has labels; rows count alike, whatever their weight."""
    curves = {}
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        rows = labelled(scores, index)
        if isinstance(goal, Binary) and len(rows.labels):
            logits = rows.of(scores.outputs[preference, place])[:, 0]
            curves[index] = metrics.calibration_curve(rows.labels, logits)
    return curves


def expert_use_of(
    trained: Any, batch: Mapping[str, np.ndarray], preferences: np.ndarray | None
) -> np.ndarray | None:
    """Shares of the experts over some rows, `[preference, gate, expert]`.

    Models note what they weigh experts by under the name `gate_weights`: in `encode` where the
    preference does not change it, else in `decode`.
    """
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
