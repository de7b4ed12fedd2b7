"""Losses of a list: how well the scores of its items order them by their gains.

A list is padded to a fixed number of items: scores `[..., list, item]`, gains `[list, item]` (0 or
1, graded, or real such as `log(1 + revenue)`; at least 0) and a mask `[list, item]` of the items
that exist. The leading axes of the scores are preferences. Rows that a reader packed into a flat
batch come into this form by `to_lists`, so that a model never needs to know about lists.

Each loss takes the gains of one goal, or of all goals, `[list, item, goal]`, with preferences. In
the second form the gains of each goal are first divided by what the goal could reach in this list,
and then mixed by the preference: a goal that pays in thousands does not drown one that pays in
ones, and a list that has nothing of a goal loses that goal's weight instead of giving it to others.

A list without a positive gain has loss 0 and gradient 0. `has_positive` tells such lists apart, and
`mean_over_lists` leaves them out.

The softmax loss is optax's. The package `rax` has the other two, but its last release (0.4.0,
January 2025) fails with the versions of JAX that this project needs, and it has no gains that are
normalised for each goal.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

_FAR_BELOW = -1e30

ListLoss = Callable[[jax.Array, jax.Array, ArrayLike, jax.Array], jax.Array]
"""`loss(scores [..., list, item], gains [list, item, goal], mask, preferences) -> [..., list]`."""


def to_lists(
    values: jax.Array,
    list_index: jax.Array,
    position: jax.Array,
    num_lists: int,
    max_items: int,
    fill: float = 0,
) -> jax.Array:
    """Values of the rows of a flat batch, placed at their list and their position in it.

    Args:
      values: One for each row, `[..., row]`.
      list_index: Number of each row's list in the batch, int `[row]`; rows of `num_lists` and
        beyond are padding and are dropped.
      position: Place of each row in its list, int `[row]`, in `[0, max_items)`.
      num_lists: Number of lists of the result.
      max_items: Number of items of each list of the result.
      fill: Value where no row is.

    Returns:
      `[..., list, item]`.
    """
    grid = jnp.full((*values.shape[:-1], num_lists, max_items), fill, values.dtype)
    return grid.at[..., list_index, position].set(values, mode="drop")


def has_positive(gains: jax.Array, mask: ArrayLike) -> jax.Array:
    """Whether a list has an item of positive gain, and so a loss.

    Args:
      gains: `[list, item]`, or `[list, item, goal]`.
      mask: Which items exist, `[list, item]`.

    Returns:
      Bool `[list]`, or `[list, goal]`.
    """
    exists = jnp.asarray(mask) > 0
    if gains.ndim > exists.ndim:
        return jnp.any((gains > 0) & exists[..., None], axis=-2)
    return jnp.any((gains > 0) & exists, axis=-1)


def mean_over_lists(losses: jax.Array, counted: ArrayLike) -> jax.Array:
    """Mean of the losses over the lists that count; 0 where none does.

    Args:
      losses: `[..., list]`.
      counted: Weight of each list, at least 0, or whether it counts: `[list]` or `[..., list]`.

    Returns:
      `[...]`.
    """
    weights = jnp.broadcast_to(jnp.asarray(counted, losses.dtype), losses.shape)
    total = weights.sum(-1)
    mean = (losses * weights).sum(-1) / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, mean, 0)


def list_softmax(
    scores: jax.Array,
    gains: jax.Array,
    mask: ArrayLike,
    preferences: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of the softmax of a list's scores against its gains, which sum to 1.

    Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach" (ListNet), with
    the normalised gains as target. With preferences the target is the mean of the goals' targets
    with the preference as weights, and so is the loss.

    Args:
      scores: `[..., list, item]`.
      gains: Gains of one goal, `[list, item]`; where preferences are given, those of each goal,
        `[list, item, goal]`.
      mask: Which items exist, `[list, item]`.
      preferences: Weights of the goals, `[..., goal]` with the leading axes of the scores; or one
        for each list, `[..., list, goal]`.

    Returns:
      Nats, at least 0: `[..., list]`; 0 for lists without a positive gain.
    """
    exists = jnp.asarray(mask) > 0
    targets = _relative_gains(scores, gains, exists, preferences, lambda values: values.sum(-1))
    # A number in the place of minus infinity: that times a target of 0 would be NaN on the way.
    finite = jnp.where(exists, _existing_scores(scores, exists), _FAR_BELOW)
    return optax.losses.ranking_softmax_loss(finite, targets, reduce_fn=None)


def lambda_ndcg(
    scores: jax.Array,
    gains: jax.Array,
    mask: ArrayLike,
    preferences: jax.Array | None = None,
    *,
    k: int = 10,
    steepness: float = 1.0,
) -> jax.Array:
    """Logistic loss of pairs, each weighted by the change of NDCG@k if the two changed places.

    Burges 2010, "From RankNet to LambdaRank to LambdaMART"; Wang et al. 2018, "The LambdaLoss
    framework for ranking metric optimization", show that it bounds the metric. With preferences the
    metric is `sum_i r_i NDCG_i@k`. Only the best `k` items have a discount, so that every pair that
    counts has one of them: the work is `k` times the items, not their square.

    Items of equal score are ranked as if the lesser gain came first: an order that a list's rows
    happen to have is never taken for a merit, and equal scores still have a gradient.

    Args:
      scores: `[..., list, item]`.
      gains: Gains of one goal, `[list, item]`; where preferences are given, those of each goal,
        `[list, item, goal]`.
      mask: Which items exist, `[list, item]`.
      preferences: Weights of the goals, `[..., goal]` with the leading axes of the scores; or one
        for each list, `[..., list, goal]`.
      k: Number of ranks that count, at least 1.
      steepness: Factor of the score differences, above 0 (sigma in the papers).

    Returns:
      At least 0: `[..., list]`; 0 for lists without a positive gain. The weights are constants for
      the gradient.
    """
    exists = jnp.asarray(mask) > 0
    relative = _relative_gains(
        scores, gains, exists, preferences, lambda values: _best_dcg(values, k)
    )
    columns = jnp.broadcast_arrays(_existing_scores(scores, exists), relative, exists)
    values, value_gains, _ = map(jax.lax.stop_gradient, columns)
    order = jnp.lexsort((value_gains, -values, ~columns[2]), axis=-1)
    ranked, ranked_gains, ranked_exists = (
        jnp.take_along_axis(column, order, axis=-1) for column in columns
    )
    items = ranked.shape[-1]
    top = min(k, items)
    discounts = _discounts(items, k)
    pairs = (jnp.arange(items) > jnp.arange(top)[:, None]) & ranked_exists[..., None, :]
    better = ranked_gains[..., :top, None] - ranked_gains[..., None, :]
    change = jnp.abs(better) * (discounts[:top, None] - discounts)
    margin = jnp.sign(better) * (ranked[..., :top, None] - ranked[..., None, :])
    losses = jax.lax.stop_gradient(change) * jax.nn.softplus(-steepness * margin)
    return jnp.where(pairs, losses, 0).sum((-2, -1))


def approx_ndcg(
    scores: jax.Array,
    gains: jax.Array,
    mask: ArrayLike,
    preferences: jax.Array | None = None,
    *,
    temperature: float = 0.1,
    k: int | None = None,
) -> jax.Array:
    """What a smooth NDCG falls short of the best one.

    Qin, Liu and Li 2010, "A general approximation framework for direct optimization of information
    retrieval measures": the rank of an item is one plus the sum of the sigmoids of what the others
    score above it. With preferences the metric is `sum_i r_i NDCG_i`, over the goals that the list
    has a positive gain of. Works on all pairs of items.

    Args:
      scores: `[..., list, item]`.
      gains: Gains of one goal, `[list, item]`; where preferences are given, those of each goal,
        `[list, item, goal]`.
      mask: Which items exist, `[list, item]`.
      preferences: Weights of the goals, `[..., goal]` with the leading axes of the scores; or one
        for each list, `[..., list, goal]`.
      temperature: Temperature of the sigmoids, above 0; towards 0 the loss becomes that of the
        metric itself.
      k: Number of ranks that count, at least 1, the limit as smooth as the ranks; all if None.

    Returns:
      `[..., list]`, nearly in [0, 1]; 0 for lists without a positive gain.
    """
    exists = jnp.asarray(mask) > 0
    cutoff = exists.shape[-1] if k is None else k
    relative = _relative_gains(
        scores, gains, exists, preferences, lambda values: _best_dcg(values, cutoff)
    )
    ranks = soft_ranks(scores, exists, temperature)
    discounts = jnp.log(2.0) / jnp.log1p(ranks)
    if k is not None:
        discounts = discounts * jax.nn.sigmoid((k + 0.5 - ranks) / temperature)
    reachable = has_positive(gains, exists).astype(relative.dtype)
    if preferences is not None:
        reachable = (_for_each_list(preferences, scores) * reachable).sum(-1)
    return reachable - (relative * discounts).sum(-1)


def create_list_loss(name: str, cutoff: int) -> ListLoss:
    """A loss of this module by its name.

    Args:
      name: Name of a loss: `lambda_ndcg`, `list_softmax` or `approx_ndcg`.
      cutoff: Number of ranks that count, at least 1; `list_softmax` looks at whole lists.
    """
    losses: dict[str, ListLoss] = {
        "lambda_ndcg": functools.partial(lambda_ndcg, k=cutoff),
        "list_softmax": list_softmax,
        "approx_ndcg": functools.partial(approx_ndcg, k=cutoff),
    }
    return losses[name]


def soft_ranks(scores: jax.Array, mask: ArrayLike, temperature: float) -> jax.Array:
    """Smooth ranks of the items of a list, 1 the best (Qin, Liu and Li 2010).

    Args:
      scores: `[..., list, item]`.
      mask: Which items exist, `[list, item]`.
      temperature: Difference of scores at which a pair is decided, above 0.

    Returns:
      From 1 to the number of items, `[..., list, item]`; 1 for items that do not exist.
    """
    exists = jnp.asarray(mask) > 0
    values = _existing_scores(scores, exists)
    above = jax.nn.sigmoid((values[..., None, :] - values[..., :, None]) / temperature)
    others = exists[..., None, :] & exists[..., :, None] & ~jnp.eye(values.shape[-1], dtype=bool)
    return 1 + jnp.where(others, above, 0).sum(-1)


def _existing_scores(scores: jax.Array, exists: jax.Array) -> jax.Array:
    """Scores in at least float32, 0 where there is no item, whatever its score."""
    precise = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    return jnp.where(exists, precise, 0)


def _relative_gains(
    scores: jax.Array,
    gains: jax.Array,
    exists: jax.Array,
    preferences: jax.Array | None,
    best: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Gains over what is the best for the list (and goal), mixed by preference if there is one.

    Args:
      scores: `[..., list, item]`; only their axes matter.
      gains: `[..., list, item]`; with preferences `[list, item, goal]`.
      exists: `[list, item]`.
      preferences: `[..., goal]`, `[..., list, goal]` or None.
      best: From `[..., item]` to `[...]`, 0 only where all gains are 0.

    Returns:
      `[..., list, item]`.
    """
    gains = gains.astype(jnp.promote_types(gains.dtype, jnp.float32))
    if preferences is None:
        present = jnp.where(exists, gains, 0)
    else:
        present = jnp.where(exists, jnp.moveaxis(gains, -1, 0), 0)
    scale = best(present)[..., None]
    relative = present / jnp.where(scale > 0, scale, 1)
    if preferences is None:
        return relative
    weights = _for_each_list(preferences, scores)
    return jnp.einsum("...lg,gli->...li", weights, relative, precision="highest")


def _for_each_list(preferences: jax.Array, scores: jax.Array) -> jax.Array:
    """Preferences `[..., list, goal]`, from those or from `[..., goal]` (a list axis of 1 then)."""
    if preferences.ndim == scores.ndim:
        return preferences
    if preferences.ndim == scores.ndim - 1:
        return preferences[..., None, :]
    raise ValueError(
        f"preferences {preferences.shape} fit scores {scores.shape} as [..., goal] or as "
        "[..., list, goal] only"
    )


def _discounts(items: int, k: int) -> jax.Array:
    """Discount of each rank, 0 beyond the first `k`: f32 [item]."""
    if k < 1:
        raise ValueError(f"NDCG counts at least one rank, not {k}")
    ranks = jnp.arange(items)
    return jnp.where(ranks < k, jnp.log(2.0) / jnp.log(ranks + 2.0), 0)


def _best_dcg(gains: jax.Array, k: int) -> jax.Array:
    """DCG@k of the best order of `[..., item]`."""
    items = gains.shape[-1]
    top = jax.lax.top_k(gains, min(k, items))[0]
    return (top * _discounts(items, k)[: top.shape[-1]]).sum(-1)
