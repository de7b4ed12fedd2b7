"""How good the lists of a grid of preferences are, in one number: what selects a model by lists."""

from typing import NamedTuple

import numpy as np

from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists
from hyperrec_jax.preference.expected_gain import structured_score


class ListValue(NamedTuple):
    """NDCG of the lists that the score makes.

    Attributes:
      ndcg: Mean over lists with a positive of the goal, `[preference, goal]`; NaN without one.
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
) -> ListValue:
    """Ranks each list by the structured score under each preference.

    Args:
      logits: Log-odds, `[preference, goal, row]`; or `[1, goal, row]` of a model that takes no
        preference, whose score still does.
      gains: `[goal, row]`, at least 0.
      groups: List of each row, `[row]`.
      preferences: `[preference, goal]`.
      scales: Above 0, `[goal]`.
      cutoff: Number of ranks that count.
    """
    under = np.broadcast_to(logits, (len(preferences), *logits.shape[1:]))
    scores = np.stack(
        [
            structured_score(values.T, weights, scales)
            for values, weights in zip(under, preferences.astype(np.float32), strict=True)
        ]
    )
    ndcg = mean_over_lists(list_metrics(scores, gains, groups, cutoff, ("ndcg",)).values["ndcg"])
    return ListValue(ndcg, float((preferences * ndcg).sum(axis=1).mean()))
