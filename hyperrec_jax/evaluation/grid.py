"""The grid of preferences that a model is scored under."""

import numpy as np

from hyperrec_jax.preference.grid import evaluation_grid


def grid_for(conditioned: bool, num_goals: int, count: int) -> np.ndarray:
    """The grid for a conditioned model; one preference, which it ignores, for any other."""
    return evaluation_grid(num_goals, count if conditioned else 1)


def place_of_centre(grid: np.ndarray) -> int | None:
    """Where a grid of preferences `[preference, goal]` has equal weights; None if nowhere."""
    near = np.flatnonzero(np.abs(grid - 1 / grid.shape[1]).max(axis=1) < 1e-6)
    return int(near[0]) if len(near) else None
