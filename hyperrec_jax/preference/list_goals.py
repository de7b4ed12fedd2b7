"""Goals of a whole list that gradients can reach: variety, exposure of groups of items, novelty.

Smooth forms of `evaluation.list_goals`, from the scores of padded lists (`list_losses.to_lists`).
They rest on how far each item is among the first `k`, `soft_top_k`, from the smooth ranks of Qin,
Liu and Li 2010. Towards temperature 0 they become the hard metrics of the same names. All are to be
raised, but for `exposure_gap`; a loss is one minus the value, or minus `novelty`.

All pairs of a list's items are compared, so that memory grows with the square of its items.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hyperrec_jax.preference.list_losses import mean_over_lists, soft_ranks


def soft_top_k(
    scores: jax.Array, mask: ArrayLike, k: int = 10, temperature: float = 0.1
) -> jax.Array:
    """How far each item is among the first `k`.

    Args:
      scores: `[..., list, item]`.
      mask: Which items exist, `[list, item]`.
      k: Number of ranks that count, at least 1.
      temperature: Difference of scores at which a pair is decided, and of ranks at which the limit
        is; above 0.

    Returns:
      In [0, 1], 0 for items that do not exist: `[..., list, item]`.
    """
    return _inside(soft_ranks(scores, mask, temperature), mask, k, temperature)


def coverage(
    scores: jax.Array,
    categories: jax.Array,
    mask: ArrayLike,
    *,
    k: int = 10,
    temperature: float = 0.1,
) -> jax.Array:
    """Number of categories among the first `k` items, over the largest that there could be.

    A category counts by the chance that one of its items is shown, `1 - prod(1 - inside)`, as the
    probabilistic coverage of Agrawal et al. 2009, "Diversifying search results".

    Args:
      scores: `[..., list, item]`.
      categories: Category of each item, int `[list, item]`.
      mask: Which items exist, `[list, item]`.
      k: Number of ranks that count, at least 1.
      temperature: Softness of the ranks, above 0.

    Returns:
      `[..., list]`, nearly in [0, 1]; 0 for lists without items.
    """
    inside = soft_top_k(scores, mask, k, temperature)
    same = _same(categories, mask)
    # At most one less a trifle, since the logarithm's gradient has no bound at 1.
    unseen = jnp.einsum("...li,lij->...lj", jnp.log1p(-jnp.minimum(inside, 1 - 1e-6)), same)
    members = same.sum(-1)
    # Each item stands for its part of its category.
    part = jnp.where(members > 0, 1 / jnp.maximum(members, 1), 0)
    most = jnp.minimum(part.sum(-1), k)
    return (part * -jnp.expm1(unseen)).sum(-1) / jnp.maximum(most, 1)


def distinct_pairs(
    scores: jax.Array,
    categories: jax.Array,
    mask: ArrayLike,
    *,
    k: int = 10,
    temperature: float = 0.1,
) -> jax.Array:
    """Share of the pairs among the first `k` items that are of two categories.

    Args:
      scores: `[..., list, item]`.
      categories: Category of each item, int `[list, item]`.
      mask: Which items exist, `[list, item]`.
      k: Number of ranks that count, at least 2.
      temperature: Softness of the ranks, above 0.

    Returns:
      `[..., list]`, in [0, 1]; 0 for lists of less than two items.
    """
    if k < 2:
        raise ValueError(f"pairs need at least two ranks, not {k}")
    inside = soft_top_k(scores, mask, k, temperature)
    own = jnp.square(inside).sum(-1)
    pairs = jnp.square(inside.sum(-1)) - own
    same = _same(categories, mask)
    alike = jnp.einsum("...li,lij,...lj->...l", inside, same, inside) - own
    several = (jnp.asarray(mask) > 0).sum(-1) > 1
    return jnp.where(several, (pairs - alike) / jnp.where(several, pairs, 1), 0)


def exposure_share(
    scores: jax.Array,
    members: jax.Array,
    mask: ArrayLike,
    *,
    k: int = 10,
    temperature: float = 0.1,
) -> jax.Array:
    """Share of the exposure that a group of items gets, with the exposure `1 / log2(1 + rank)`.

    Singh and Joachims 2018, "Fairness of exposure in rankings".

    Args:
      scores: `[..., list, item]`.
      members: Whether an item is of the group, or how far, in [0, 1], `[list, item]`.
      mask: Which items exist, `[list, item]`.
      k: Number of ranks that count, at least 1.
      temperature: Softness of the ranks, above 0.

    Returns:
      `[..., list]`, in [0, 1]; 0 for lists without items.
    """
    ranks = soft_ranks(scores, mask, temperature)
    exposure = _inside(ranks, mask, k, temperature) * jnp.log(2.0) / jnp.log1p(ranks)
    return _weighted_mean(members, exposure)


def exposure_gap(share: jax.Array, target: ArrayLike, counted: ArrayLike) -> jax.Array:
    """How far a group's mean share of the exposure in a batch is from its target.

    Args:
      share: From `exposure_share`, `[..., list]`.
      target: The share that it should have, in [0, 1]: one, or one for each list, such as the
        group's part of the list's items or of its gain.
      counted: Weight of each list, or whether it counts, `[list]`.

    Returns:
      At least 0, `[...]`.
    """
    return jnp.abs(mean_over_lists(share - jnp.asarray(target, share.dtype), counted))


def novelty(
    scores: jax.Array,
    popularity: jax.Array,
    mask: ArrayLike,
    *,
    k: int = 10,
    temperature: float = 0.1,
) -> jax.Array:
    """Mean self-information of the first `k` items: how rarely they are seen.

    Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems".

    Args:
      scores: `[..., list, item]`.
      popularity: Share of users (or of requests) that see an item, in (0, 1], `[list, item]`.
      mask: Which items exist, `[list, item]`.
      k: Number of ranks that count, at least 1.
      temperature: Softness of the ranks, above 0.

    Returns:
      Bits, at least 0: `[..., list]`; 0 for lists without items.
    """
    bits = -jnp.log2(jnp.where(jnp.asarray(mask) > 0, popularity, 1))
    return _weighted_mean(bits, soft_top_k(scores, mask, k, temperature))


def _inside(ranks: jax.Array, mask: ArrayLike, k: int, temperature: float) -> jax.Array:
    if k < 1:
        raise ValueError(f"a list has at least one rank that counts, not {k}")
    inside = jax.nn.sigmoid((k + 0.5 - ranks) / temperature)
    return jnp.where(jnp.asarray(mask) > 0, inside, 0)


def _same(categories: jax.Array, mask: ArrayLike) -> jax.Array:
    """1 for pairs of existing items of one category, f32 [list, item, item]."""
    exists = jnp.asarray(mask) > 0
    same = categories[..., None, :] == categories[..., :, None]
    return (same & exists[..., None, :] & exists[..., :, None]).astype(jnp.float32)


def _weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean over the items by weights that are 0 where there is none; 0 without weight."""
    total = weights.sum(-1)
    summed = (jnp.where(weights > 0, values, 0) * weights).sum(-1)
    return jnp.where(total > 0, summed / jnp.where(total > 0, total, 1), 0)


MEASURES = {"coverage": coverage, "distinct_pairs": distinct_pairs}
"""The measures of goals of kind `variety`, which are to be raised."""
