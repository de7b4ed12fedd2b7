"""Lists whose goals want different orders."""

import numpy as np


def conflicting_lists(lists: int = 300, size: int = 20) -> tuple[np.ndarray, ...]:
    """Labels `[goal, row]`, true log-odds `[goal, row]` that disagree, groups `[row]`."""
    generator = np.random.default_rng(0)
    rows = lists * size
    base = generator.standard_normal((2, rows))
    log_odds = np.stack([base[0], -0.6 * base[0] + 0.8 * base[1]]) * 1.5 - np.array([[1.0], [3]])
    labels = (generator.random((2, rows)) < 1 / (1 + np.exp(-log_odds))).astype(np.uint8)
    return labels, log_odds.astype(np.float32), generator.permutation(rows) % lists


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))
