"""The order of a list whose variety counts: what a row adds to the rows that come before it.

A formula of single rows can't see that two rows are of one category. The greedy order can: it takes
the row that adds most to those taken so far (maximal marginal relevance, Carbonell and Goldstein
1998; for gains that saturate, as coverage does, no order of polynomial time is guaranteed more,
Nemhauser et al. 1978). What a row adds is its expected gain for the other goals, and what it adds
to the variety, which here depends on one thing alone: how many rows of its category come before it.
In the greedy order those are the rows of its category with a larger expected gain. So the order
needs no loop: it is that by descending

    coverage         gain + bonus, where the row is the best one of its category in the list
    distinct_pairs   gain - bonus * 2 / (k - 1) * (better rows of its category in the list)

with the bonus `w / scale` of the goal, `scale` being what a row of average worth adds
(`varied.category_rate`). With several goals of variety each has a bonus of its own; the order is
then greedy only where they agree on which rows of a category are the better ones.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.data.schema import Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import FUSIONS, NDCG_RANKS, PLACES, At, ListScorer
from hyperrec_jax.evaluation.varied import Varied, variety_goals

MARGINAL_GAIN = "marginal_gain"
"""Name of this way to order lists, beside those of `list_scorer.FUSIONS`."""
_TIE = 1e-6
"""Weight of the variety's own column, which orders rows that add the same."""


def list_fusion(schema: Schema, scorer: ListScorer | None, asked: str | None = None) -> str:
    """How lists are ordered: as asked for, else by the marginal gain where variety is a goal, and
    elsewhere by what the model's lists were trained by.

    Args:
      schema: The model's.
      scorer: The model's, if it has one.
      asked: A name, or None.

    Raises:
      UserError: there is no such way, or no goal of variety for it.
    """
    varied = bool(variety_goals(schema))
    if asked is None:
        return MARGINAL_GAIN if varied else (scorer.fusion if scorer else FUSIONS[0])
    if asked not in (*FUSIONS, MARGINAL_GAIN):
        raise UserError(f"fusion {asked!r}: there are {', '.join((*FUSIONS, MARGINAL_GAIN))}")
    if asked == MARGINAL_GAIN and not varied:
        raise UserError(
            f"fusion {MARGINAL_GAIN}: orders lists by their variety, and no goal is of kind "
            f"variety; take {FUSIONS[0]}"
        )
    return asked


def of_rows(fusion: str) -> str:
    """The one of `FUSIONS` that scores single rows for a way to order lists."""
    return FUSIONS[0] if fusion == MARGINAL_GAIN else fusion


def wanted_fusions(
    fusions: Sequence[str], scorer: ListScorer, conditioned: bool, own: str
) -> list[tuple[str, At]]:
    """Ways to order lists, each with the preference that the model is asked under, in order.

    Args:
      fusions: Names, `learned`, or `all`: each of `FUSIONS` in both ways of asking the model.
      scorer: The model's.
      conditioned: Whether the model takes a preference.
      own: That of the data, from `list_fusion`.
    """
    wanted: list[tuple[str, At]] = []
    for name in fusions:
        if name == "all":
            for each in dict.fromkeys((own, *FUSIONS)):
                chosen = scorer.place(of_rows(each))
                others = [at for at in PLACES if at != chosen] if conditioned else []
                wanted += [(each, at) for at in (chosen, *others)]
            wanted.append(("learned", "preference"))
        elif name == "learned":
            wanted.append((name, "preference"))
        else:
            wanted.append((name, scorer.place(of_rows(name))))
    return list(dict.fromkeys(wanted))


def marginal_gain(
    scorer: ListScorer,
    logits: ArrayLike,
    preference: ArrayLike,
    varied: Sequence[Varied],
    groups: ArrayLike | None = None,
    at: At | None = None,
) -> NDArray[np.float32]:
    """What each row adds to its list in the greedy order, which is that by descending score.

    Args:
      scorer: What scores lists by the model's expected gains.
      logits: The model's log-odds under the preference of `scorer.asked`, `[row, goal]`.
      preference: Weights of the goals that sum to one, `[goal]`.
      varied: The goals of whole lists, with the categories of the rows.
      groups: List of each row, `[row]`; None where all rows are one list.
      at: Under which preference the model was asked, where that is not the fitted choice.

    Returns:
      `[row]`, in units of what a row of average gain is worth.
    """
    places = [of.goal.place for of in varied]
    gain = gain_of_rows(scorer, logits, preference, places, at)
    return add_variety(gain, preference, scorer.scales, varied, groups)


def gain_of_rows(
    scorer: ListScorer,
    logits: ArrayLike,
    preferences: ArrayLike,
    places: Sequence[int],
    at: At | None = None,
) -> NDArray[np.float32]:
    """What single rows are worth to the goals that are not of whole lists, `[..., row]`.

    Args:
      scorer: What scores lists by the model's expected gains.
      logits: `[..., row, goal]`.
      preferences: In a form that broadcasts to `logits`.
      places: Places of the goals of whole lists.
      at: As for `ListScorer.score`.
    """
    gain = scorer.score(logits, preferences, at=at, left_out=places)
    return gain + np.float32(_TIE) * scorer.score(logits, preferences, at=at)


def add_variety(
    gain: ArrayLike,
    preference: ArrayLike,
    scales: ArrayLike,
    varied: Sequence[Varied],
    groups: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Adds to the gain of each row what it adds to the variety of its list in the greedy order.

    Args:
      gain: From `gain_of_rows`, `[row]`.
      preference: Weights of the goals, `[goal]`.
      scales: `[goal]`.
      varied: The goals of whole lists, with the categories of the rows.
      groups: List of each row, `[row]`; None where all rows are one list.

    Returns:
      `[row]`.
    """
    own, weights = np.asarray(gain, np.float64), np.asarray(preference, np.float64)
    lists = np.zeros(len(own), np.int64) if groups is None else np.asarray(groups)
    added = np.zeros(len(own))
    for goal, categories in varied:
        bonus = weights[goal.place] / np.asarray(scales)[goal.place]
        before = better_rows(own, lists, categories)
        if goal.measure == "coverage":
            added += bonus * (before == 0)
        else:
            added -= bonus * 2 / (NDCG_RANKS - 1) * before
    return (own + added).astype(np.float32)


def better_rows(
    gain: NDArray[np.float64], lists: NDArray[np.int64], categories: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number of rows of the same list and category that come before each row: those of a larger
    gain, and of the same gain those before it, `[row]`."""
    order = np.lexsort((-gain, categories, lists))
    rows = np.arange(len(gain))
    new = np.ones(len(gain), bool)
    new[1:] = (np.diff(lists[order]) != 0) | (np.diff(categories[order]) != 0)
    before = np.empty(len(gain), np.int64)
    before[order] = rows - np.maximum.accumulate(np.where(new, rows, 0))
    return before
