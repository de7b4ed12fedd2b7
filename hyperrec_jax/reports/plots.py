"""The picture of a front, for a file and for a notebook."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.front import Front

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Distinct to colour-blind eyes (Okabe and Ito 2008)."""
MARKERS = "os^DvPX*"
PANEL_SIZE = 4.2
"""Width and height of a panel, in inches."""


def plot(front: Front, path: str | Path) -> None:
    """Draws the front: AUC against AUC, and the log loss of each goal against its weight.

    Where the front has lists, their NDCG against NDCG and against the weight come first.

    Args:
      front: The front of a model.
      path: Where the picture goes; the ending names the format, such as `.png`.
    """
    from matplotlib.figure import Figure  # slow to import

    from hyperrec_jax.reports.lists import draw_list_pair, draw_ndcg_by_weight

    rows = 1 if front.lists is None else 2
    with style():
        figure = Figure(figsize=(2 * PANEL_SIZE, rows * PANEL_SIZE), layout="constrained")
        *above, left, right = figure.subplots(rows, 2, squeeze=False).ravel()
        if front.lists is not None:
            draw_list_pair(above[0], front.lists, (0, min(1, len(front.tasks) - 1)))
            draw_ndcg_by_weight(above[1], front.lists.first)
        points = _draw_pair(left, front, (0, min(1, len(front.tasks) - 1)))
        if front.preferences is not None:
            figure.colorbar(points, ax=left, label=f"weight of {front.tasks[0]}")
        _draw_losses_by_weight(right, front)
        figure.suptitle(
            f"{front.split}: hypervolume {front.hypervolume:.4f}, "
            f"{int(front.non_dominated.sum())} of {len(front.non_dominated)} not dominated"
        )
        figure.savefig(path, dpi=120)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look that all pictures share."""
    import matplotlib as mpl  # slow to import
    from cycler import cycler

    settings: Any = {
        "text.parse_math": False,  # a goal may be called $x
        "axes.formatter.useoffset": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": "sans-serif",
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=COLOURS),
    }
    with mpl.rc_context(settings):
        yield


def _draw_pair(panel: Any, front: Front, pair: tuple[int, int]) -> Any:
    """Main metric of one goal against another's; rings mark what no other preference dominates."""
    one, other = pair
    x, y = front.value[:, one], front.value[:, other]
    weights = None if front.preferences is None else front.preferences[:, 0]
    colours = None if weights is None else "cividis"
    points = panel.scatter(x, y, c=weights, cmap=colours, s=34, zorder=2)
    ring = front.non_dominated
    panel.scatter(
        x[ring],
        y[ring],
        facecolors="none",
        edgecolors="black",
        s=90,
        zorder=3,
        label="not dominated",
    )
    panel.set(xlabel=front.label(one), ylabel=front.label(other))
    panel.locator_params(axis="x", nbins=3)  # AUCs may need six digits
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1))  # above: points may be anywhere
    return points


def _draw_losses_by_weight(panel: Any, front: Front) -> None:
    best = front.loss.min(axis=0)
    interval = front.loss_interval
    _draw_by_weight(
        panel,
        front,
        100 * (front.loss / best - 1),
        None if interval is None else 100 * (interval / best - 1),
    )
    kind = "log loss" if set(front.kinds) == {"binary"} else "loss"
    panel.set(ylabel=f"{kind} over its best, %")
    panel.legend()


def _draw_by_weight(
    panel: Any, front: Front, values: np.ndarray, interval: np.ndarray | None
) -> None:
    """Values `[preference, goal]` of each goal against its weight, with their interval.

    A model that takes no preference has one point for each goal, at the weight 1.
    """
    for index, task in enumerate(front.tasks):
        weight = np.ones(1) if front.preferences is None else front.preferences[:, index]
        order = np.argsort(weight, kind="stable")
        colour = COLOURS[index % len(COLOURS)]
        panel.plot(
            weight[order],
            values[order, index],
            marker=MARKERS[index % len(MARKERS)],
            color=colour,
            linestyle="-" if len(front.tasks) == 2 else "none",
            markersize=4,
            label=task,
        )
        if interval is not None and len(front.tasks) == 2:
            low, high = interval[:, order, index]
            panel.fill_between(weight[order], low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="weight of the goal")
