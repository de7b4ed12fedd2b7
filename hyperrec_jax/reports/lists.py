"""The front of lists in words, tables and pictures: what an evaluation shows first."""

import html
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.list_front import ListFront, Lists
from hyperrec_jax.reports.plots import COLOURS, MARKERS
from hyperrec_jax.reports.tables import table

NOTE = (
    "One list for each group of rows and each preference, for all goals. NDCG counts the first "
    "ranks of the lists that have a positive of the goal; hypervolume is that above the worst NDCG "
    "of each goal over all fusions shown. The verdict on lists is apart from that on losses: a "
    "list's first places are few, so that lists conflict where losses do not."
)


def lists_summary(lists: Lists) -> list[str]:
    """Lines for a terminal: the fusions beside each other where there are several, the verdict."""
    first = lists.first
    counts = ", ".join(
        f"{goal} {count:,}" for goal, count in zip(first.goals, first.lists.tolist(), strict=True)
    )
    lines = [f"lists by {first.fusion} at {first.at}, NDCG@{first.k}; lists that count: {counts}"]
    if len(lists.fronts) > 1:
        header, rows = fusion_rows(lists)
        lines.append(table(header[:5], [row[:5] for row in rows]))
    return lines + verdict(first, short=True)


def verdict(front: ListFront, short: bool = False) -> list[str]:
    """Whether the lists trade off, in a line; none without resamples or preferences.

    Args:
      front: The front of one fusion.
      short: Whether to leave out what the numbers are.
    """
    trade_off = front.trade_off
    if trade_off is None:
        return []
    gains = ", ".join(
        f"{goal} {gain:+.4f} ± {deviation:.4f}"
        for goal, gain, deviation in zip(front.goals, *trade_off[:2], strict=True)
    )
    line = f"lists: {trade_off.verdict(front.goals)}: NDCG@{front.k} gained"
    if short:
        return [f"{line} {gains}"]
    return [f"{line} from the least to the greatest weight: {gains} (bootstrap over lists)"]


def fusion_rows(lists: Lists) -> tuple[list[str], list[list[Any]]]:
    """A table with one row for each fusion: header and rows."""
    goals = lists.first.goals
    header = ["fusion", "at", "hypervolume", "95 % interval", "scalarised"]
    header += [f"order {goal}" for goal in goals]
    header += ["not dominated", "largest jump", "of range"]
    rows = []
    for front in lists.fronts:
        samples = front.hypervolume_samples(lists.worst)
        bounds = None if samples is None else "[{:.4f}, {:.4f}]".format(*interval(samples))
        jump, share = front.largest_jump
        rows.append(
            [
                front.fusion,
                front.at,
                front.hypervolume(lists.worst),
                bounds,
                front.scalarised,
                *front.order.tolist(),
                f"{int(front.not_dominated.sum())}/{len(front.not_dominated)}",
                jump,
                share,
            ]
        )
    return header, rows


def section(lists: Lists) -> str:
    """The tables of the lists as HTML; names are escaped."""

    def cells(values: list[Any], tag: str) -> str:
        shown = (
            ("undefined" if np.isnan(value) else f"{value:.4f}")
            if isinstance(value, float)
            else html.escape("-" if value is None else str(value))
            for value in values
        )
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    def whole(header: list[str], rows: list[list[Any]]) -> str:
        body = "".join(cells(row, "td") for row in rows)
        return f'<div class="wide"><table>{cells(header, "th")}{body}</table></div>'

    first = lists.first
    records = [
        {name: value for name, value in record.items() if name not in ("fusion", "at")}
        for record in first.records()
    ]
    header = [name.replace("preference/", "weight ").replace("/", " ") for name in records[0]]
    said = "".join(f"<p>{html.escape(line)}</p>" for line in verdict(first))
    return (
        said
        + whole(*fusion_rows(lists))
        + f"<p>{html.escape(first.fusion)} at {html.escape(first.at)}:</p>"
        + whole(
            [name.replace("non_dominated", "not dominated") for name in header],
            [
                ["yes" if value is True else "no" if value is False else value for value in row]
                for row in (list(record.values()) for record in records)
            ],
        )
    )


def draw_list_pair(panel: Any, lists: Lists, pair: tuple[int, int]) -> None:
    """NDCG of one goal against that of another, a line for each fusion."""
    one, other = pair
    several = len(lists.fronts) > 1
    for number, front in enumerate(lists.fronts):
        order = np.argsort(front.preferences[:, one], kind="stable")
        panel.plot(
            front.ndcg[order, one],
            front.ndcg[order, other],
            marker=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            linestyle="-" if len(front.goals) == 2 else "none",
            linewidth=1,
            markersize=5 if number == 0 else 3,
            label=f"{front.fusion} at {front.at}" if several else None,
        )
    panel.set(xlabel=lists.first.label(one), ylabel=lists.first.label(other))
    if several:
        panel.legend(fontsize="small", loc="lower left")


def draw_ndcg_by_weight(panel: Any, front: ListFront) -> None:
    """NDCG of each goal against its weight, with its interval where there are resamples."""
    bounds = None if front.samples is None else interval(front.samples)
    for goal, name in enumerate(front.goals):
        weight = front.preferences[:, goal]
        order = np.argsort(weight, kind="stable")
        colour = COLOURS[goal % len(COLOURS)]
        line = "-" if len(front.goals) == 2 else "none"
        panel.plot(
            weight[order],
            front.ndcg[order, goal],
            marker=MARKERS[goal % len(MARKERS)],
            color=colour,
            linestyle=line,
            markersize=4,
            label=name,
        )
        if bounds is not None and len(front.goals) == 2:
            low, high = bounds[:, order, goal]
            panel.fill_between(weight[order], low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="weight of the goal", ylabel=f"NDCG@{front.k}")
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
