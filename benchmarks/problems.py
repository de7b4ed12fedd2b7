"""Analytic problems whose Pareto front is known: the losses of a point, and points of the front.

They tell what an objective can reach when the model is no limit. On a concave front every linear
scalarisation ends in a corner.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation import pareto
from hyperrec_jax.preference.grid import das_dennis

Floats = NDArray[np.float64]
CURVE = 20_001
"""Points of a two-goal front from which its hypervolume is taken."""


class Problem(NamedTuple):
    """A problem of a few losses over a box.

    Attributes:
      losses: `losses(x [variable]) -> [goal]`, differentiable inside the box.
      lower: Lower end of the box, the same for all variables.
      upper: Upper end of the box.
      num_variables: Number of variables.
      front: Points of the true front, `[point, goal]`.
      shape: 'convex', 'concave' or 'disconnected'.
      volume: `volume(reference) -> ` the hypervolume of the whole true front from the reference
        point `(reference, ..., reference)`, 1 or more.
    """

    losses: Callable[[jax.Array], jax.Array]
    lower: float
    upper: float
    num_variables: int
    front: Floats
    shape: str
    volume: Callable[[float], float]

    @property
    def num_tasks(self) -> int:
        """Number of losses."""
        return self.front.shape[1]


def parabolas() -> Problem:
    """`x^2` and `(1 - x)^2` on [0, 1]: the simplest convex front."""
    t = np.linspace(0, 1, CURVE)

    def losses(x: jax.Array) -> jax.Array:
        return jnp.stack([x[0] ** 2, (1 - x[0]) ** 2])

    return _on_curve(losses, 0, 1, 1, np.stack([t**2, (1 - t) ** 2], axis=1), "convex")


def fonseca_fleming(num_variables: int = 2, limit: float = 4.0) -> Problem:
    """`1 - exp(-|x -+ 1 / sqrt(n)|^2)` (Fonseca and Fleming 1995; with two variables VLMOP2).

    Far from the centre both gradients vanish. The concave front is the same for any number of
    variables.

    Args:
      num_variables: Number of variables n.
      limit: Half the width of the box.
    """
    t = np.linspace(-1, 1, CURVE)
    centre = num_variables**-0.5

    def losses(x: jax.Array) -> jax.Array:
        return 1 - jnp.exp(-jnp.stack([((x - centre) ** 2).sum(), ((x + centre) ** 2).sum()]))

    front = 1 - np.exp(-np.stack([(t - 1) ** 2, (t + 1) ** 2], axis=1))
    return _on_curve(losses, -limit, limit, num_variables, front, "concave")


def concave_toy() -> Problem:
    """The toy of Pareto hypernetworks: Fonseca-Fleming in 20 dimensions, within [-1, 1].

    From Lin et al. 2019 (arXiv 1912.12854), taken over by Navon et al. 2021 (arXiv 2010.04104).
    """
    return fonseca_fleming(20, 1.0)


def zdt1() -> Problem:
    """Convex (Zitzler, Deb and Thiele 2000, Evolutionary Computation 8)."""
    return _zdt(lambda part, first: 1 - _sqrt(part), "convex")


def zdt2() -> Problem:
    """Concave (Zitzler, Deb and Thiele 2000)."""
    return _zdt(lambda part, first: 1 - part**2, "concave")


def zdt3() -> Problem:
    """Five separate parts (Zitzler, Deb and Thiele 2000)."""
    return _zdt(
        lambda part, first: 1 - _sqrt(part) - part * jnp.sin(10 * jnp.pi * first), "disconnected"
    )


def dtlz2() -> Problem:
    """Three losses, whose front is an eighth of the unit sphere (Deb et al. 2002)."""

    def losses(x: jax.Array) -> jax.Array:
        radius = 1 + ((x[2:] - 0.5) ** 2).sum()
        first, second = jnp.pi / 2 * x[:2]
        return radius * jnp.stack(
            [
                jnp.cos(first) * jnp.cos(second),
                jnp.cos(first) * jnp.sin(second),
                jnp.sin(first),
            ]
        )

    directions = das_dennis(3, 44)
    front = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    # All of the box from the origin, but for an eighth of the unit ball.
    return Problem(losses, 0, 1, 12, front, "concave", lambda corner: corner**3 - np.pi / 6)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "parabolas": parabolas,
    "zdt1": zdt1,
    "zdt2": zdt2,
    "zdt3": zdt3,
    "fonseca_fleming": fonseca_fleming,
    "concave_toy": concave_toy,
    "dtlz2": dtlz2,
}


def _zdt(shape: Callable[[jax.Array, jax.Array], jax.Array], kind: str) -> Problem:
    """`f_1 = x_1`, `f_2 = g h(f_1 / g, f_1)` with `g = 1 + 9 mean(x_2, ..., x_30)`, at best 1."""

    def losses(x: jax.Array) -> jax.Array:
        distance = 1 + 9 * x[1:].mean()
        return jnp.stack([x[0], distance * shape(x[0] / distance, x[0])])

    first = np.linspace(0, 1, CURVE) ** 2  # evenly along the square root
    curve = np.stack([first, np.asarray(shape(jnp.asarray(first), jnp.asarray(first)))], axis=1)
    return _on_curve(losses, 0, 1, 30, curve[pareto.non_dominated(curve)], kind)


def _on_curve(
    losses: Callable[[jax.Array], jax.Array],
    lower: float,
    upper: float,
    num_variables: int,
    curve: Floats,
    shape: str,
) -> Problem:
    """A problem of two losses: its hypervolume from a fine curve, its front even along that."""
    volume = functools.partial(pareto.hypervolume, curve)
    lengths = np.cumsum(np.linalg.norm(np.diff(curve, axis=0, prepend=curve[:1]), axis=1))
    kept = np.unique(np.searchsorted(lengths, np.linspace(0, lengths[-1], 1001)))
    return Problem(losses, lower, upper, num_variables, curve[kept], shape, volume)


def _sqrt(x: jax.Array) -> jax.Array:
    """Square root with a finite slope at zero."""
    return jnp.sqrt(jnp.maximum(x, 1e-12))
