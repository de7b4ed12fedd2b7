"""The front of lists: what each preference's lists are worth to each goal.

A user sees one list, whatever the number of goals. Its first ten rows have ten places, so that
lists conflict where losses do not: the verdict on lists is apart from that on losses.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.data.records import to_csv
from hyperrec_jax.evaluation import list_metrics, pareto
from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.list_scorer import scalarised
from hyperrec_jax.evaluation.varied import Varied, with_variety

Floats = NDArray[np.float64]

METRICS = ("ndcg", "map", "mrr", "recall", "auc")


@dataclasses.dataclass(frozen=True)
class ListFront:
    """The lists of one fusion; tables have one row for each preference.

    Attributes:
      fusion: How the score is made, such as `expected_gain`.
      at: Under which preference the model was asked, `centre` or `preference`.
      goals: Their names.
      preferences: `[preference, goal]`.
      k: Number of ranks that count for NDCG and recall.
      values: For each of `METRICS` the mean over the lists that have a positive of the goal,
        `[preference, goal]`; AUC is weighted by rows. NaN for a goal without such a list.
      lists: Number of lists with a positive of each goal, `[goal]`.
      skipped: The other lists, `[goal]`.
      samples: NDCG on resamples of the lists, `[resample, preference, goal]`; None without.
      scores: What orders the rows, `[preference, row]`; None where it was not to be kept.
      measures: Name of what stands in the place of NDCG for each goal: `ndcg`, or the measure of a
        goal of whole lists, which has no other metric (NaN); `ndcg` for all by default.
    """

    fusion: str
    at: str
    goals: tuple[str, ...]
    preferences: Floats
    k: int
    values: Mapping[str, Floats]
    lists: NDArray[np.int64]
    skipped: NDArray[np.int64]
    samples: Floats | None = None
    scores: NDArray[np.floating[Any]] | None = None
    measures: tuple[str, ...] = ()

    def measure(self, goal: int) -> str:
        """Name of what stands in the place of NDCG for a goal, such as `ndcg@10`."""
        return f"{self.measures[goal] if self.measures else 'ndcg'}@{self.k}"

    def label(self, goal: int) -> str:
        """The measure and the goal for a reader, such as `NDCG@10 purchase`."""
        return f"{self.measure(goal).replace('ndcg', 'NDCG').replace('_', ' ')} {self.goals[goal]}"

    @property
    def ndcg(self) -> Floats:
        """`[preference, goal]`."""
        return self.values["ndcg"]

    @property
    def defined(self) -> NDArray[np.bool_]:
        """Goals that have a list that counts, `[goal]`."""
        return self.lists > 0

    @property
    def scalarised(self) -> float:
        """Mean over preferences of `sum_i r_i NDCG_i`: what the preferences get of what they
        ask for."""
        return scalarised(self.ndcg, self.preferences)

    @property
    def order(self) -> Floats:
        """Spearman correlation of each goal's NDCG with its weight, `[goal]`: 1 obeys the
        preference; NaN where either is constant."""
        result = np.full(len(self.goals), math.nan)
        for goal in np.flatnonzero(self.defined):
            result[goal] = pareto.spearman(self.preferences[:, goal], self.ndcg[:, goal])
        return result

    @property
    def not_dominated(self) -> NDArray[np.bool_]:
        """Whether no other preference is better in one goal's NDCG and as good in the others,
        `[preference]`."""
        if not self.defined.any():
            return np.ones(len(self.ndcg), bool)
        return pareto.non_dominated(-self.ndcg[:, self.defined])

    @property
    def not_dominated_beyond_noise(self) -> float | None:
        """Part of the preferences that none dominates in 95 % of the resamples; None without."""
        if self.samples is None or not self.defined.any():
            return None
        costs = -self.samples[..., self.defined]
        return pareto.non_dominated_fraction(-self.ndcg[:, self.defined], costs)

    @property
    def largest_jump(self) -> tuple[float, float]:
        """The largest change of a goal's NDCG between neighbouring preferences: as it is, and as
        part of the goal's range over all preferences. An even front of `n` preferences has about
        `1 / (n - 1)`. Both are NaN for fewer than two preferences."""
        ndcg = self.ndcg[:, self.defined]
        if len(ndcg) < 2 or not ndcg.size:
            return math.nan, math.nan
        distance = np.abs(self.preferences[:, None] - self.preferences).sum(axis=-1)
        if ndcg.shape[1] <= 2 and self.preferences.shape[1] == 2:
            order = np.argsort(self.preferences[:, 0], kind="stable")
            pairs = np.stack([order[:-1], order[1:]], axis=1)
        else:  # a grid of more goals: each with those nearest to it
            np.fill_diagonal(distance, np.inf)
            pairs = np.argwhere(distance <= 1.001 * distance.min(axis=1, keepdims=True))
        jumps = np.abs(ndcg[pairs[:, 0]] - ndcg[pairs[:, 1]]).max(axis=0)
        spread = np.ptp(ndcg, axis=0)
        shares = np.divide(jumps, spread, out=np.zeros_like(jumps), where=spread > 0)
        return float(jumps.max()), float(shares.max())

    @property
    def trade_off(self) -> pareto.TradeOff | None:
        """Whether the lists trade off beyond the noise of the lists: what each goal's NDCG gains
        from its least to its greatest weight. None without resamples or preferences to compare.
        """
        if self.samples is None or len(self.preferences) < 2 or not self.defined.all():
            return None
        return pareto.trade_off(self.preferences, -self.samples)

    def worst(self) -> Floats:
        """The lowest NDCG of each goal over the preferences, `[goal]`."""
        return self.ndcg.min(axis=0)

    def hypervolume(self, worst: ArrayLike) -> float:
        """Volume between the NDCGs and a point of low ones, over the goals that are defined.

        Args:
          worst: `[goal]`.
        """
        kept = self.defined
        if not kept.any():
            return math.nan
        return pareto.hypervolume(-self.ndcg[:, kept], -np.asarray(worst)[kept])

    def hypervolume_samples(self, worst: ArrayLike) -> Floats | None:
        """The hypervolume on each resample, `[resample]`; None without resamples."""
        kept = self.defined
        if self.samples is None or not kept.any():
            return None
        corner = -np.asarray(worst)[kept]
        return np.array([pareto.hypervolume(-one[:, kept], corner) for one in self.samples])

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary for each preference, for tables."""
        names = {"recall": f"recall@{self.k}", "auc": "grouped_auc"}
        of_rows = [self.measure(goal).startswith("ndcg@") for goal in range(len(self.goals))]
        records = []
        for place, weights in enumerate(self.preferences):
            record: dict[str, Any] = {"fusion": self.fusion, "at": self.at}
            for goal, weight in zip(self.goals, weights, strict=True):
                record[f"preference/{goal}"] = float(weight)
            for metric, values in self.values.items():
                for at, (goal, value) in enumerate(zip(self.goals, values[place], strict=True)):
                    if metric == "ndcg":
                        record[f"{self.measure(at)}/{goal}"] = float(value)
                    elif of_rows[at]:
                        record[f"{names.get(metric, metric)}/{goal}"] = float(value)
            record["non_dominated"] = bool(self.not_dominated[place])
            records.append(record)
        return records

    def to_dict(self, worst: ArrayLike) -> dict[str, Any]:
        """All of it, for JSON; the hypervolume is above `worst`."""
        samples = self.hypervolume_samples(worst)
        jump, share = self.largest_jump
        trade_off = self.trade_off
        return {
            "fusion": self.fusion,
            "at": self.at,
            "hypervolume": self.hypervolume(worst),
            "hypervolume_interval": None if samples is None else interval(samples),
            "scalarised": self.scalarised,
            "order": dict(zip(self.goals, self.order.tolist(), strict=True)),
            "non_dominated_fraction": float(self.not_dominated.mean()),
            "non_dominated_fraction_beyond_noise": self.not_dominated_beyond_noise,
            "largest_jump": jump,
            "largest_jump_of_range": share,
            "trade_off": trade_off
            and {
                "found": trade_off.found,
                "gain": dict(zip(self.goals, trade_off.gain.tolist(), strict=True)),
                "deviation": dict(zip(self.goals, trade_off.deviation.tolist(), strict=True)),
            },
            "ndcg_interval": None if self.samples is None else interval(self.samples),
            "preferences": self.records(),
        }


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of one model by several fusions, on the same rows and preferences.

    Attributes:
      fronts: The first is the one that is meant where one is asked for.
    """

    fronts: tuple[ListFront, ...]

    @property
    def first(self) -> ListFront:
        """The front of the fusion that was asked for first."""
        return self.fronts[0]

    @property
    def worst(self) -> Floats:
        """The lowest NDCG of each goal over all fronts, `[goal]`: where hypervolumes begin, so that
        those of several fusions can be compared."""
        return np.min([front.worst() for front in self.fronts], axis=0)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        first = self.first
        return {
            "k": first.k,
            "lists": dict(zip(first.goals, first.lists.tolist(), strict=True)),
            "lists_without_a_positive": dict(zip(first.goals, first.skipped.tolist(), strict=True)),
            "hypervolume_reference": self.worst.tolist(),
            "fusions": [front.to_dict(self.worst) for front in self.fronts],
        }

    def to_csv(self) -> str:
        """The records of all fronts as CSV."""
        return to_csv([record for front in self.fronts for record in front.records()])


def list_front(
    fusion: str,
    at: str,
    goals: Sequence[str],
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    preferences: ArrayLike,
    *,
    k: int = 10,
    resamples: int = 0,
    keep_scores: bool = False,
    varied: Sequence[Varied] = (),
) -> ListFront:
    """Orders every list under every preference, and measures it by every goal's labels.

    Args:
      fusion: How the scores were made.
      at: Under which preference the model was asked.
      goals: Their names.
      labels: 0 or 1, `[goal, row]`.
      scores: `[preference, row]`.
      groups: Ids of the lists, `[row]`.
      preferences: `[preference, goal]`.
      k: Number of ranks that count for NDCG and recall.
      resamples: Number of bootstrap resamples of whole lists; 0 for none.
      keep_scores: Whether the front keeps the scores.
      varied: The goals of whole lists, with the categories of the rows.
    """
    per_list = list_metrics.list_metrics(scores, labels, groups, k, METRICS)
    per_list = with_variety(per_list, np.asarray(scores), np.asarray(groups), k, varied)
    measures = dict.fromkeys(goals, "ndcg") | {of.goal.name: of.goal.measure for of in varied}
    ndcg = per_list.values["ndcg"]
    counted = ~np.isnan(ndcg[0])
    samples = None
    if resamples and counted.any():
        samples = list_metrics.bootstrap(ndcg, resamples=resamples)
        # In few lists a resample may miss all that count: it says nothing of that goal.
        samples = np.where(np.isnan(samples), list_metrics.mean_over_lists(ndcg), samples)
    return ListFront(
        fusion=fusion,
        at=at,
        goals=tuple(goals),
        preferences=np.asarray(preferences, np.float64),
        k=k,
        values={
            name: list_metrics.mean_over_lists(of, per_list.rows if name == "auc" else None)
            for name, of in per_list.values.items()
        },
        lists=counted.sum(axis=1),
        skipped=(~counted).sum(axis=1),
        samples=samples,
        scores=np.asarray(scores) if keep_scores else None,
        measures=tuple(measures.values()),
    )
