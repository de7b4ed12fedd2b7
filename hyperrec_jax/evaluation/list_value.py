"""How good the lists of a grid of preferences are, in one number: what selects a model by lists."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists
from hyperrec_jax.evaluation.list_scorer import unfitted_scorer
from hyperrec_jax.evaluation.marginal_gain import marginal_gain
from hyperrec_jax.evaluation.varied import Varied, with_variety
from hyperrec_jax.preference.expected_gain import ListFusion, list_score


class ListValue(NamedTuple):
    """NDCG of the lists that the score makes.

    Attributes:
      ndcg: Mean over lists with a positive of the goal, `[preference, goal]`; NaN without one. For
        a goal of whole lists, the mean of its own measure.
      value: Mean over the preferences of `sum_i r_i NDCG_i`; NaN where a goal has no such list.
    """

    ndcg: np.ndarray
    value: float


def list_value(
    logits: np.ndarray,
    gains: np.ndarray,
    groups: np.ndarray,
    preferences: np.ndarray,
    scales: np.ndarray,
    cutoff: int,
    varied: Sequence[Varied] = (),
    greedy: bool = False,
    fusion: ListFusion = "expected_gain",
) -> ListValue:
    """Ranks each list by its score under each preference.

    Args:
      logits: Log-odds, `[preference, goal, row]`; or `[1, goal, row]` of a model that takes no
        preference, whose score still does.
      gains: `[goal, row]`, at least 0.
      groups: List of each row, `[row]`.
      preferences: `[preference, goal]`.
      scales: Above 0, `[goal]`.
      cutoff: Number of ranks that count.
      varied: The goals of whole lists, with the categories of the rows.
      fusion: What makes the score of the log-odds.
      greedy: Whether the lists are ordered by what a row adds to them (`marginal_gain`).
    """
    under = np.broadcast_to(logits, (len(preferences), *logits.shape[1:]))
    scorer = unfitted_scorer(("",) * len(scales), scales)

    def score(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if greedy:
            return marginal_gain(scorer, values.T, weights, varied, groups)
        return list_score(values.T, weights, scales, fusion)

    several = zip(under, preferences.astype(np.float32), strict=True)
    scores = np.stack([score(values, weights) for values, weights in several])
    per_list = list_metrics(scores, gains, groups, cutoff, ("ndcg",))
    per_list = with_variety(per_list, scores, groups, cutoff, varied)
    ndcg = mean_over_lists(per_list.values["ndcg"])
    return ListValue(ndcg, float((preferences * ndcg).sum(axis=1).mean()))
