"""Weights of the goal losses, computed from losses and gradients and then held constant.

Most methods of multi-task optimisation end in one weighted sum of the goals' gradients. What they
need of the gradients `G [goal, parameter]` is their Gram matrix `C = G G^T [goal, goal]` alone, so
each is a small function of that. Nothing here is to be differentiated.
"""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax

TINY = 1e-12
TOLERANCE = 2e-5
"""By which a constraint of unit size may be missed, in float32."""
MAX_ENUMERATED_TASKS = 5
"""Linear programs of more goals go to HiGHS on the host; vertices grow too many."""


def min_norm(gram: jax.Array, iterations: int = 500) -> jax.Array:
    """Weights on the simplex of the smallest combined gradient: `min_w w^T C w`.

    The common descent direction of MGDA (Desideri 2012; Sener and Koltun 2018, arXiv 1810.04650).
    Two goals in closed form, more by accelerated projected gradient (Beck and Teboulle 2009).

    Args:
      gram: `[goal, goal]`.
      iterations: Number of steps of the projected gradient.

    Returns:
      `[goal]`, on the simplex.
    """
    num_tasks = len(gram)
    if num_tasks == 1:
        return jnp.ones(1)
    if num_tasks == 2:
        (a, b), (_, c) = gram
        curvature = a + c - 2 * b
        flat = curvature <= TINY * (a + c) + jnp.finfo(gram.dtype).tiny
        first = jnp.where(flat, 0.5, jnp.clip((c - b) / jnp.where(flat, 1.0, curvature), 0, 1))
        return jnp.stack([first, 1 - first])
    scaled = gram / jnp.maximum(jnp.trace(gram), jnp.finfo(gram.dtype).tiny)

    def step(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        weights, ahead, momentum = carry
        moved = optax.projections.projection_simplex(ahead - scaled @ ahead)
        faster = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return moved, moved + (momentum - 1) / faster * (moved - weights), faster

    start = jnp.full(num_tasks, 1 / num_tasks)
    return jax.lax.fori_loop(0, iterations, step, (start, start, jnp.ones(())))[0]


def simplex_program(objective: jax.Array, rows: jax.Array, bounds: jax.Array) -> jax.Array:
    """Linear program on the simplex: `max_w objective . w` with `rows @ w >= bounds`.

    Two goals are an interval; up to five enumerate the vertices; more are solved by HiGHS on the
    host (SciPy).

    Args:
      objective: `[goal]`.
      rows: `[constraint, goal]`, of about unit size: `TOLERANCE` is relative to that.
      bounds: `[constraint]`; a constraint of minus infinity is none.

    Returns:
      `[goal]`; NaN where no weights meet the constraints.
    """
    absent = bounds == -jnp.inf  # becomes 0 >= -1
    rows = jnp.where(absent[:, None], 0.0, rows)
    bounds = jnp.where(absent, -1.0, bounds)
    num_tasks = len(objective)
    if num_tasks == 1:
        return jnp.ones(1)
    if num_tasks == 2:
        return _interval(objective, rows, bounds)
    if num_tasks <= MAX_ENUMERATED_TASKS:
        return _best_vertex(objective, rows, bounds)
    shape = jax.ShapeDtypeStruct((num_tasks,), objective.dtype)
    return jax.pure_callback(_highs, shape, objective, rows, bounds, vmap_method="sequential")


def _interval(objective: jax.Array, rows: jax.Array, bounds: jax.Array) -> jax.Array:
    slope, bound = rows[:, 0] - rows[:, 1], bounds - rows[:, 1]  # slope * w_0 >= bound
    slope = jnp.where(jnp.abs(slope) > TOLERANCE, slope, 0.0)  # does not tell weights apart
    edge = bound / jnp.where(slope == 0, 1.0, slope)
    lower = jnp.max(jnp.where(slope > 0, edge, 0.0), initial=0.0)
    upper = jnp.min(jnp.where(slope < 0, edge, 1.0), initial=1.0)
    first = jnp.where(objective[0] > objective[1], upper, lower)
    weights = jnp.stack([first, 1 - first])
    feasible = jnp.all(rows @ weights >= bounds - TOLERANCE) & (lower <= upper + TOLERANCE)
    return jnp.where(feasible, jnp.clip(weights, 0, 1), jnp.nan)


def _best_vertex(objective: jax.Array, rows: jax.Array, bounds: jax.Array) -> jax.Array:
    num_tasks = len(objective)
    rows = jnp.concatenate([jnp.eye(num_tasks), rows])
    bounds = jnp.concatenate([jnp.zeros(num_tasks), bounds])
    active = np.array(list(combinations(range(len(bounds)), num_tasks - 1)))  # [vertex, goal - 1]
    ones = jnp.ones((len(active), 1))
    systems = jnp.concatenate([jnp.ones((len(active), 1, num_tasks)), rows[active]], axis=1)
    values = jnp.concatenate([ones, bounds[active]], axis=1)
    vertices = jnp.linalg.solve(systems, values[..., None])[..., 0]
    vertices = jnp.where(jnp.isfinite(vertices), vertices, -1.0)  # parallel constraints
    feasible = (vertices @ rows.T >= bounds - TOLERANCE).all(axis=1)
    feasible &= jnp.abs(vertices.sum(axis=1) - 1) < TOLERANCE * num_tasks
    best = vertices[jnp.argmax(jnp.where(feasible, vertices @ objective, -jnp.inf))]
    best = jnp.clip(best, 0, 1)
    return jnp.where(feasible.any(), best / best.sum(), jnp.nan)


def _highs(objective: np.ndarray, rows: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    from scipy.optimize import linprog  # here: a tenth of the seconds in which training starts

    objective, rows, bounds = (np.asarray(x, np.float64) for x in (objective, rows, bounds))
    result = linprog(
        -objective, -rows, -bounds, np.ones((1, len(objective))), [1.0], (0, 1), method="highs"
    )
    weights = result.x if result.success else np.full(len(objective), np.nan)
    return weights.astype(np.float32)


def epo(
    losses: jax.Array, preference: jax.Array, gram: jax.Array, *, tolerance: float = 1e-4
) -> jax.Array:
    """Exact Pareto optimal search: towards equal `r_i l_i`, without giving up descent.

    With shares `s = r * l / sum(r * l)`, non-uniformity `mu = sum_i s_i log(m s_i)` and the balance
    direction `a_i = r_i (log(m s_i) - mu)`, weights on the simplex solve
    - away from balance (`mu > tolerance`): `max w . C a`, where `(C w)_j >= (C a)_j` if
      `(C a)_j <= 0` and `(C w)_j >= 0` for the largest `r_j l_j`; all `>= 0` if no `(C a)_j` is
      positive;
    - in balance: `max sum_j (C w)_j`, where `C w >= 0` and `w . C a >= min(0, max_j (C a)_j)`.
    Mahapatra and Rajan 2020 (ICML, PMLR 119). Where rounding leaves no solution, `min_norm`.

    Args:
      losses: Not negative, `[goal]`.
      preference: `[goal]`.
      gram: `[goal, goal]`.
      tolerance: Non-uniformity that still counts as balance.

    Returns:
      `[goal]`, on the simplex.
    """
    num_tasks = len(losses)
    weighted = preference * jnp.maximum(losses, TINY)
    shares = weighted / jnp.maximum(weighted.sum(), TINY)
    logs = jnp.log(jnp.maximum(num_tasks * shares, TINY))
    non_uniformity = shares @ logs
    balance = preference * (logs - non_uniformity)
    gram = gram / jnp.maximum(jnp.trace(gram), jnp.finfo(gram.dtype).tiny)
    pull = gram @ balance

    largest = weighted == weighted.max()
    off_bounds = jnp.where(largest, 0.0, jnp.where(pull > 0, -jnp.inf, pull))
    off_bounds = jnp.where((pull > 0).any(), off_bounds, 0.0)
    unbalanced = non_uniformity > tolerance
    # Each goal's row at unit size, however small its gradient; the pull at the size of the Gram
    # matrix, so that what is left of it in balance, mere rounding, constrains nothing.
    scale = jnp.append(jnp.abs(gram).max(axis=1), jnp.abs(gram).max())
    scale = jnp.maximum(scale, jnp.finfo(gram.dtype).tiny)
    bounds = jnp.append(
        jnp.where(unbalanced, off_bounds, 0.0),
        jnp.where(unbalanced, -jnp.inf, jnp.minimum(0.0, pull.max())),
    )
    weights = simplex_program(
        jnp.where(unbalanced, pull, gram.sum(axis=0)),
        jnp.concatenate([gram, pull[None]]) / scale[:, None],
        bounds / scale,
    )
    return jnp.where(jnp.isnan(weights).any(), min_norm(gram), weights)


def pareto_mtl(
    losses: jax.Array, preference: jax.Array, gram: jax.Array, vectors: jax.Array
) -> jax.Array:
    """Into the preference's part of the front; there, descent of all losses.

    With unit directions `u_k` of the reference vectors and `u` of the preference, its part is
    where `(u_k - u) . l <= 0` for all k. While some of these are violated, the weights are those of
    the shortest combination of their gradients, afterwards of the goals' (`min_norm`): the two
    phases of Lin et al. 2019 (arXiv 1912.12854). Their vectors point along the losses, so the
    direction of a preference is `1 / r` here.

    Args:
      losses: `[goal]`.
      preference: `[goal]`.
      gram: `[goal, goal]`.
      vectors: Preferences that share out the front, `[vector, goal]`.

    Returns:
      `[goal]`; may be negative.
    """
    constraints = opposite(vectors) - opposite(preference)
    length = jnp.linalg.norm(constraints, axis=1, keepdims=True)
    # The preference's own vector may be among them: rounding makes no constraint of it.
    constraints = jnp.where(length > 1e-4, constraints / jnp.maximum(length, 1e-4), 0.0)
    excess = constraints @ losses
    # Rows that do not count repeat one that does, which leaves the convex hull as it is.
    worst = constraints[jnp.argmax(excess)]
    inside = excess.max() <= TINY
    basis = jnp.concatenate(
        [
            jnp.where(inside, jnp.eye(len(losses)), worst),
            jnp.where(
                inside, jnp.eye(len(losses))[0], jnp.where(excess[:, None] > 0, constraints, worst)
            ),
        ]
    )
    return min_norm(basis @ gram @ basis.T, iterations=100) @ basis


def opposite(preferences: jax.Array) -> jax.Array:
    """Unit vectors along `1 / r`: where losses lie whose weighted values `r_i l_i` are equal.

    Args:
      preferences: `[..., goal]`.
    """
    inverse = 1 / jnp.maximum(preferences, 1e-6)
    return inverse / jnp.linalg.norm(inverse, axis=-1, keepdims=True)


def pcgrad(gram: jax.Array, key: jax.Array) -> jax.Array:
    """Each goal's gradient, projected off the gradients that it conflicts with; their mean.

    Others are visited in random order. Yu et al. 2020 (arXiv 2001.06782).

    Args:
      gram: `[goal, goal]`.
      key: Random key of the order.

    Returns:
      `[goal]`.
    """
    num_tasks = len(gram)
    lengths = jnp.maximum(jnp.diagonal(gram), jnp.finfo(gram.dtype).tiny)

    def project(task: jax.Array, key: jax.Array) -> jax.Array:
        def off(weights: jax.Array, other: jax.Array) -> tuple[jax.Array, None]:
            overlap = jnp.where(other == task, 0.0, jnp.minimum(weights @ gram[:, other], 0.0))
            return weights.at[other].add(-overlap / lengths[other]), None

        order = jax.random.permutation(key, num_tasks)
        return jax.lax.scan(off, jax.nn.one_hot(task, num_tasks), order)[0]

    keys = jax.random.split(key, num_tasks)
    return jax.vmap(project)(jnp.arange(num_tasks), keys).mean(axis=0)


def nash(gram: jax.Array, iterations: int = 40) -> jax.Array:
    """Nash bargaining solution: positive weights with `C w = 1 / w`, then scaled to sum to one.

    Navon et al. 2022 (arXiv 2202.01017). The weights are the minimum of the convex
    `w^T C w / 2 - sum_i log w_i`, found by damped Newton steps, which converge from any start since
    the function is self-concordant. The scale is dropped so that steps compare with other methods.

    Args:
      gram: `[goal, goal]`.
      iterations: Newton steps.

    Returns:
      `[goal]`, on the simplex.
    """
    num_tasks = len(gram)
    size = jnp.maximum(jnp.trace(gram) / num_tasks, jnp.finfo(gram.dtype).tiny)
    scaled = gram / size + 1e-6 * jnp.eye(num_tasks)

    def step(_: int, weights: jax.Array) -> jax.Array:
        slope = scaled @ weights - 1 / weights
        newton = jnp.linalg.solve(scaled + jnp.diag(weights**-2), slope)
        decrement = jnp.sqrt(jnp.maximum(slope @ newton, 0))
        return weights - newton / (1 + decrement)

    start = 1 / jnp.sqrt(jnp.diagonal(scaled))
    weights = jax.lax.fori_loop(0, iterations, step, start)
    return weights / weights.sum()


def hypervolume(losses: jax.Array, reference: jax.Array, samples: int = 512) -> jax.Array:
    """Growth of the hypervolume with a lower loss, scaled to length one for each preference.

    Dominated preferences would have no gradient, so each non-dominated layer counts on its own
    (Deist et al. 2021, arXiv 2102.04523; Hoang et al. 2023, arXiv 2212.01130). The derivative by
    `l_i` is the area of a facet: what lies beyond the preference's other losses, below the
    reference, and is taken by no preference of the layer with a lower `l_i`. Exact for two goals;
    for more, by `samples` quasi-random points for each facet.

    Args:
      losses: `[preference, goal]`.
      reference: Above all losses, `[goal]`.
      samples: Number of points for each facet.

    Returns:
      `[preference, goal]`, not negative.
    """
    num_preferences, num_tasks = losses.shape
    no_worse = (losses[:, None] <= losses).all(axis=-1)  # [by, preference]
    # Equal points count as one: corners drawn twice in a batch would else pull to the centre.
    equal = no_worse & no_worse.T
    dominates = no_worse & ~equal
    layer = jax.lax.fori_loop(
        0,
        num_preferences - 1,
        lambda _, layer: jnp.max(jnp.where(dominates, layer[:, None] + 1, 0), axis=0),
        jnp.zeros(num_preferences, jnp.int32),
    )
    peers = (layer[:, None] == layer) & ~equal

    def facet(task: int) -> jax.Array:
        others = np.delete(np.arange(num_tasks), task)
        values, room = losses[:, others], (reference - losses)[:, others]
        rivals = peers & (losses[:, None, task] <= losses[:, task])  # [by, preference]
        if num_tasks == 2:
            nearest = jnp.min(jnp.where(rivals, values, reference[others]), axis=0)
            return nearest - values[:, 0]
        points = values[:, None] + room[:, None] * _low_discrepancy(samples, num_tasks - 1)
        taken = (values[:, None, None] <= points).all(axis=-1) & rivals[..., None]
        return room.prod(axis=1) * (1 - taken.any(axis=0).mean(axis=-1))

    areas = jnp.stack([facet(task) for task in range(num_tasks)], axis=1)
    length = jnp.linalg.norm(areas, axis=1, keepdims=True)
    # An area of zero can only be rounding or too few points: all goals alike then.
    even = jnp.full_like(areas, num_tasks**-0.5)
    return jnp.where(length > TINY, areas / jnp.maximum(length, TINY), even)


def _low_discrepancy(count: int, dimensions: int) -> jax.Array:
    """Additive recurrence by powers of the generalised golden ratio (Roberts 2018), in (0, 1)."""
    ratio = 2.0
    for _ in range(50):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return jnp.asarray((0.5 + np.outer(np.arange(1, count + 1), steps)) % 1, jnp.float32)
