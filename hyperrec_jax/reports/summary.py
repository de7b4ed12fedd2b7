"""What an evaluation comes to, for a terminal of 100 columns; its files have the rest."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.reports.lists import lists_summary
from hyperrec_jax.reports.tables import MOST_COLUMNS, MOST_ROWS, label_counts, table, undefined_note


class _Column(NamedTuple):
    """A metric of a goal over the preferences.

    Attributes:
      name: Its heading.
      values: `[preference]`.
      better: Whether 'higher', 'lower' or nearer to 'one' is better.
    """

    name: str
    values: np.ndarray
    better: str


def front_summary(front: Front) -> str:
    """The front as a table of a few preferences, with the verdicts; each line fits 100 columns."""
    lines = [f"{front.split}: {front.rows:,} rows; {label_counts(front)}"]
    columns, lists = _metrics(front), _lists(front)
    if lists and front.preferences is None and front.lists:
        # Lists of a model that takes no preference have some all the same.
        lines += _tables(front.lists.first.preferences, lists)
        lists = []
    lines += _tables(front.preferences, lists + columns)
    lines += lists_summary(front.lists) if front.lists else []
    lines += loss_verdict(front)
    share = ""
    if front.non_dominated_beyond_noise is not None:
        share = f", {front.non_dominated_beyond_noise:.0%} beyond noise"
    lines.append(
        f"hypervolume {front.hypervolume:.4f} of {front.objective}; not dominated: "
        f"{int(front.non_dominated.sum())} of {len(front.non_dominated)} preferences{share}"
    )
    if front.undefined_tasks:
        undefined = ", ".join(front.undefined_tasks)
        lines.append(f"{undefined_note(front, undefined)}; it stays out of the hypervolume")
    return "\n".join(wrapped(line) for line in lines)


def wrapped(line: str) -> str:
    """A sentence on lines of 100 columns at most, the later ones indented; tables as they are."""
    if len(line) <= MOST_COLUMNS or line.startswith("|"):
        return line
    return textwrap.fill(
        line, MOST_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def loss_verdict(front: Front) -> list[str]:
    """Whether the losses trade off, and what each gains from the least to the greatest weight.

    None without resamples or preferences.
    """
    if not front.trade_off:
        return []
    gains = ", ".join(
        f"{task} {gain:+.5f} ± {deviation:.5f}"
        for task, gain, deviation in zip(front.tasks, *front.trade_off[:2], strict=True)
    )
    return [f"losses: {front.trade_off.verdict(front.tasks)}: gained {gains}"]


def shown_rows(preferences: np.ndarray) -> list[int]:
    """Positions of at most nine preferences: the ends of each goal, and others evenly.

    Args:
      preferences: `[preference, goal]`.
    """
    total = len(preferences)
    if total <= MOST_ROWS:
        return list(range(total))
    ends = list(dict.fromkeys(preferences.argmax(axis=0).tolist()))[:MOST_ROWS]
    rest = [place for place in range(total) if place not in ends]
    # The middles of as many equal parts, so that none is next to an end.
    parts = MOST_ROWS - len(ends)
    evenly = [rest[int((part + 0.5) * len(rest) / parts)] for part in range(parts)]
    return sorted({*ends, *evenly})


def _tables(preferences: np.ndarray | None, columns: Sequence[_Column]) -> list[str]:
    """One table where all columns fit, else several, and what its marks mean."""
    if preferences is None:
        shown, head = [0], []
    else:
        shown = shown_rows(preferences)
        names = [",".join(f"{weight:.2f}" for weight in preferences[place]) for place in shown]
        head = [["preference", *names]]
    tables: list[list[str]] = []
    pending = list(head)
    for column in columns:
        cells = [column.name, *_cells(column, shown)]
        if len(pending) > len(head) and _width([*pending, cells]) > MOST_COLUMNS:
            tables.append(_table(pending))
            pending = list(head)
        pending.append(cells)
    tables.append(_table(pending))
    lines = [line for lines in tables for line in lines]
    if len(shown) > 1:
        total = 0 if preferences is None else len(preferences)
        more = f"; the files have all {total} preferences" if total > len(shown) else ""
        lines.append(f"* best of those shown{more}")
    return lines


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 3 for column in columns) + 1


def _table(columns: Sequence[Sequence[str]]) -> list[str]:
    header, *rows = zip(*columns, strict=True)
    return table(header, rows).splitlines()


def _lists(front: Front) -> list[_Column]:
    """NDCG of the lists, goals side by side; nothing without lists."""
    if not front.lists:
        return []
    first = front.lists.first
    return [
        _Column(first.label(place).replace(f"@{first.k}", ""), first.ndcg[:, place], "higher")
        for place, goal in enumerate(first.goals)
    ]


def _metrics(front: Front) -> list[_Column]:
    """Main metrics of the predictions, goals side by side, then losses."""
    return [
        _Column(front.label(place), front.value[:, place], front.direction(f"{metric}/{task}"))
        for place, (metric, task) in enumerate(zip(front.primary, front.tasks, strict=True))
    ] + [
        _Column(f"loss {task}", front.loss[:, place], "lower")
        for place, task in enumerate(front.tasks)
    ]


def _cells(column: _Column, shown: Sequence[int]) -> list[str]:
    values = column.values[list(shown)]
    merit = {"higher": values, "lower": -values}.get(column.better, -np.abs(values - 1))
    best = int(np.nanargmax(merit)) if len(shown) > 1 and np.isfinite(merit).any() else None
    return [("*" if place == best else "") + f"{value:.4f}" for place, value in enumerate(values)]
