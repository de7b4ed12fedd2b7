"""Preferences on a grid, from a command line and from a file.

The one convention of the project: component `r_i` of a preference is the weight of goal `i`.
Weights are not negative and sum to one. A high `r_i` asks for a low loss of goal `i`.
"""

import math
import os
from itertools import combinations
from pathlib import Path

import numpy as np

from hyperrec_jax.errors import UserError


def evaluation_grid(num_tasks: int, num_preferences: int) -> np.ndarray:
    """A grid of preferences `[preference, goal]`, the first of which favours the first goal.

    Two goals: `num_preferences` angles evenly from 0.1 to pi/2 - 0.1 on the quarter circle, each
    scaled to sum to one (the original PO-MoE's grid, and that of Pareto hypernetworks, Navon et al.
    2021, arXiv 2010.04104). More goals: the smallest Das-Dennis grid of at least
    `num_preferences`. A single preference is the centre; with one goal there is only (1).

    Args:
      num_tasks: Number of goals, at least 1.
      num_preferences: Number of preferences, at least 1; with more than two goals the grid may
        have more.

    Raises:
      UserError: `num_preferences` is below 1.
    """
    if num_preferences < 1:
        raise UserError(f"a grid needs at least 1 preference, not {num_preferences}")
    if num_tasks == 1 or num_preferences == 1:
        return np.full((1, num_tasks), 1 / num_tasks)
    if num_tasks == 2:
        angles = np.linspace(0.1, np.pi / 2 - 0.1, num_preferences)
        preferences = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return preferences / preferences.sum(axis=1, keepdims=True)
    partitions = 1
    while math.comb(partitions + num_tasks - 1, num_tasks - 1) < num_preferences:
        partitions += 1
    return das_dennis(num_tasks, partitions)


def das_dennis(num_tasks: int, partitions: int) -> np.ndarray:
    """All preferences whose weights are multiples of `1 / partitions`, `[preference, goal]`.

    There are `C(partitions + tasks - 1, tasks - 1)`, corners included, in descending order (Das and
    Dennis 1998, SIAM Journal on Optimization 8).
    """
    bars = combinations(range(partitions + num_tasks - 1), num_tasks - 1)
    edges = np.array([(-1, *bar, partitions + num_tasks - 1) for bar in bars])
    return (np.diff(edges, axis=1) - 1)[::-1] / partitions


def parse_preferences(text: str, num_tasks: int) -> np.ndarray:
    """Reads preferences from a command line or a file.

    Args:
      text: Preferences as in '0.3,0.7;0.5,0.5', or the path of a CSV file with one preference per
        line (no header; empty lines and lines that start with '#' are skipped).
      num_tasks: Number of goals.

    Returns:
      `[preference, goal]`, each scaled to sum to one.

    Raises:
      UserError: a preference that is negative, all zero, not finite, of the wrong length or not of
        numbers; a file that cannot be read; no preference at all.
    """
    is_file = os.path.isfile(text)  # Path.is_file raises on a text longer than a file name
    if is_file:
        try:
            entries = Path(text).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the preferences in {text}: {error}") from None
    else:
        entries = text.split(";")
    preferences = []
    for number, entry in enumerate(entries, 1):
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        where = f"{text}, line {number}" if is_file else f"preference '{entry.strip()}'"
        try:
            weights = [float(cell) for cell in entry.split(",")]
        except ValueError:
            hint = "" if is_file else " (nor is there such a file)"
            raise UserError(
                f"{where}: expected {num_tasks} numbers separated by commas, "
                f"got '{entry.strip()}'{hint}"
            ) from None
        preferences.append(normalise(np.array(weights), num_tasks, where))
    if not preferences:
        raise UserError(f"no preference in '{text}'; write one as 0.3,0.7")
    return np.stack(preferences)


def normalise(preferences: np.ndarray, num_tasks: int, where: str) -> np.ndarray:
    """Preferences `[..., goal]` scaled to sum to one.

    Args:
      preferences: Weights, not negative, `[..., goal]`.
      num_tasks: Number of goals.
      where: Where the preferences come from, for the message.

    Raises:
      UserError: wrong length, a negative or non-finite weight, or all weights zero.
    """
    if preferences.shape[-1] != num_tasks:
        raise UserError(
            f"{where}: {preferences.shape[-1]} weights for {num_tasks} goals; give one for each"
        )
    if not np.isfinite(preferences).all():
        raise UserError(f"{where}: a weight is not a finite number")
    if (preferences < 0).any():
        raise UserError(f"{where}: a weight is negative; weights are 0 or more")
    # By the largest first, so that the sum of huge weights cannot overflow.
    peak = preferences.max(axis=-1, keepdims=True)
    if (peak == 0).any():
        raise UserError(f"{where}: all weights are zero; at least one must be positive")
    scaled = preferences / peak
    return scaled / scaled.sum(axis=-1, keepdims=True)
