"""Every picture of a front, drawn once: for a file, for a notebook and for the page."""

import contextlib
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.metrics import CalibrationCurve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Distinct to colour-blind eyes (Okabe and Ito 2008)."""
MARKERS = "os^DvPX*"
PANEL_WIDTH = 4.2
MAX_PAIRS = 6


def plot(front: Front, path: str | Path) -> None:
    """Draws the front: AUC against AUC, and the log loss of each goal against its weight.

    Where the front has lists, their NDCG against NDCG and against the weight come first.

    Args:
      front: The front of a model.
      path: Where the picture goes; the ending names the format, such as `.png`.
    """
    from hyperrec_jax.reports.lists import draw_list_pair, draw_ndcg_by_weight

    with style():
        figure, axes = new_figure(2 if front.lists is None else 4, 4.2, columns=2)
        *above, left, right = axes
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


def to_svg(draw: Callable[[], Any]) -> str:
    """A figure as an HTML element with inline SVG, whose ids no other figure of a page has."""
    with style():
        figure = draw()
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    prefix = f"f{zlib.crc32(svg.encode()):x}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    panels = round(figure.get_figwidth() / PANEL_WIDTH)
    return f'<figure class="wide" style="--panels: {panels}">{svg}</figure>'


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look that all pictures share."""
    import matplotlib as mpl  # slow to import
    from cycler import cycler

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
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


def draw_front(front: Front) -> Any:
    """The main metrics (AUC) of each pair of goals, once more with intervals if there are any."""
    tasks = range(len(front.tasks))
    pairs = [(a, b) for a in tasks for b in tasks if a < b][:MAX_PAIRS] or [(0, 0)]
    # The intervals may be far wider than the front: it is drawn without them first.
    interval = _interval(front)
    intervals = [None] if interval is None else [None, interval]
    views = [(pair, interval) for interval in intervals for pair in pairs]
    figure, axes = new_figure(len(views), 4.2, columns=2 if len(pairs) == 1 else 3)
    for panel, (pair, interval) in zip(axes, views, strict=False):
        points = _draw_pair(panel, front, pair, interval)
    if front.preferences is not None:
        figure.colorbar(points, ax=list(axes), label=f"weight of {front.tasks[0]}")
    return figure


def draw_weights(front: Front) -> Any:
    """Loss and main metric of each goal against its weight."""
    figure, (losses, areas) = new_figure(2)
    _draw_losses_by_weight(losses, front)
    _draw_by_weight(areas, front, front.value, _interval(front))
    areas.set(ylabel="AUC" if set(front.primary) == {"auc"} else "main metric of the goal")
    return figure


def _interval(front: Front) -> np.ndarray | None:
    """Interval of the main metrics, `[2, preference, goal]`: there is one of the AUC alone."""
    return front.auc_interval if set(front.primary) == {"auc"} else None


def _draw_pair(
    panel: Any, front: Front, pair: tuple[int, int], interval: np.ndarray | None = None
) -> Any:
    """Main metric of one goal against another's; rings mark what no other preference dominates."""
    one, other = pair
    x, y = front.value[:, one], front.value[:, other]
    if interval is not None:
        errors = np.abs(interval - front.value)
        panel.errorbar(
            x,
            y,
            yerr=errors[..., other],
            xerr=errors[..., one],
            fmt="none",
            ecolor="#999999",
            elinewidth=0.7,
            zorder=1,
        )
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


def draw_calibration(front: Front, curves: Mapping[int, Mapping[int, CalibrationCurve]]) -> Any:
    """Predicted against observed rates of each binary goal under some preferences.

    Args:
      front: The front.
      curves: For some preferences, by their index, one curve for each goal, by its index.
    """
    shown = sorted({index for by_goal in curves.values() for index in by_goal})
    figure, axes = new_figure(len(shown))
    for panel, index in zip(axes, shown, strict=False):
        task = front.tasks[index]
        for number, (place, by_task) in enumerate(curves.items()):
            label = (
                "all"
                if front.preferences is None
                else "r = " + ", ".join(f"{weight:.2f}" for weight in front.preferences[place])
            )
            curve = by_task[index]
            panel.plot(
                curve.predicted,
                curve.observed,
                marker=MARKERS[number],
                markersize=4,
                linewidth=1,
                label=label,
            )
        top = max(float(panel.get_xlim()[1]), float(panel.get_ylim()[1]))
        panel.plot([0, top], [0, top], color="#888888", linestyle="--", linewidth=1, zorder=0)
        panel.set(xlabel="predicted", ylabel="observed", title=task)
        panel.legend()
    return figure


def draw_experts(front: Front, use: np.ndarray) -> Any:
    """Shares of the experts, `[preference, gate, expert]`: a map, or bars for one preference."""
    gates, experts = use.shape[1:]
    figure, axes = new_figure(gates)
    for gate, panel in zip(range(gates), axes, strict=False):
        if len(use) > 1:
            picture = _draw_shares(panel, front, use[:, gate], use.max())
        else:
            panel.barh(range(experts), use[0, gate])
            panel.set(xlabel="share", xlim=(0, 1.05 * use.max()), ylim=(experts - 0.5, -0.5))
        panel.set_yticks(range(experts), [str(expert + 1) for expert in range(experts)])
        panel.set_ylabel("expert")
        panel.grid(visible=False)
        if gates > 1:
            panel.set_title(f"gate of {front.tasks[gate]}")
    if len(use) > 1:
        figure.colorbar(picture, ax=list(axes), label="share")
    return figure


def _draw_shares(panel: Any, front: Front, shares: np.ndarray, top: float) -> Any:
    """A gate's shares `[preference, expert]` by the weight of the first goal."""
    assert front.preferences is not None
    order = np.argsort(front.preferences[:, 0], kind="stable")
    ticks = np.unique(np.linspace(0, len(order) - 1, min(5, len(order))).astype(int))
    panel.set_xticks(ticks, [f"{front.preferences[order[i], 0]:.2f}" for i in ticks])
    panel.set_xlabel(f"weight of {front.tasks[0]}")
    return panel.imshow(shares[order].T, aspect="auto", cmap="cividis", vmin=0, vmax=top)


def draw_training(history: Sequence[dict[str, Any]]) -> Any:
    """Losses and AUC against the step, from the records of `metrics.jsonl`."""
    figure, (losses, areas) = new_figure(2)
    train = [record for record in history if record["kind"] == "train"]
    validation = [record for record in history if record["kind"] == "validation"]

    def lines(panel: Any, records: list[dict[str, Any]], prefix: str, what: str) -> None:
        names = [name for name in (records[0] if records else {}) if name.startswith(prefix)]
        for index, name in enumerate(names):
            panel.plot(
                [record["step"] for record in records],
                [np.nan if record.get(name) is None else record[name] for record in records],
                color=COLOURS[index % len(COLOURS)],
                linestyle="-" if what == "train" else "--",
                marker="" if what == "train" else MARKERS[index % len(MARKERS)],
                label=f"{what} {name.removeprefix(prefix)}",
            )

    lines(losses, train, "loss/", "train")
    lines(losses, validation, "log_loss/", "validation")
    lines(losses, validation, "loss/", "validation")
    lines(areas, validation, "auc/", "validation")
    losses.set(xlabel="step", ylabel="log loss")
    areas.set(xlabel="step", ylabel="best AUC of the grid")
    for panel in (losses, areas):
        if panel.lines:
            panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small")
    return figure


def new_figure(panels: int, height: float = 3.6, columns: int = 3) -> tuple[Any, Any]:
    """A figure with so many panels, and their axes in reading order."""
    from matplotlib.figure import Figure

    columns = min(panels, columns)
    rows = -(-panels // columns)
    width = 5.8 if panels == 1 else PANEL_WIDTH * columns
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes
