"""Tables for a terminal: what training, the front, a comparison and lists come to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.training.checkpoint import Progress
from hyperrec_jax.training.log import read_metrics

MOST_COLUMNS = 100
"""Characters of a line on a terminal."""
MOST_ROWS = 9
"""Rows that a terminal shows of a table; the files have all."""


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, columns aligned for the terminal."""
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| "
        + " | ".join(value.rjust(width) for value, width in zip(row, widths, strict=True))
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def training_summary(workdir: Path, progress: Progress) -> str:
    """The validation record of each epoch, and which one was selected."""
    records = [record for record in read_metrics(workdir) if record["kind"] == "validation"]
    names = [name for name in (records[0] if records else {}) if "/" in name]
    shown = records
    if len(records) > MOST_ROWS:  # metrics.jsonl has all
        places = set(np.linspace(0, len(records) - 1, MOST_ROWS - 1).astype(int).tolist())
        shown = [
            record
            for place, record in enumerate(records)
            if place in places or record["step"] == progress.best_step
        ]
    # Of several metrics the main ones come first, goal by goal: others go where there is no room.
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in names))
    text = _epochs(shown, names, progress)
    while len(kinds) > 1 and max(map(len, text.splitlines())) > MOST_COLUMNS:
        last = kinds.pop()
        names = [name for name in names if name.partition("/")[0] != last]
        text = _epochs(shown, names, progress)
    return f"validation (best of the grid for each goal); run in {workdir}\n{text}"


def _epochs(records: Sequence[dict[str, Any]], names: Sequence[str], progress: Progress) -> str:
    rows = [
        [
            int(record["epoch"]),
            *(record[name] for name in names),
            record["hypervolume"],
            "selected" if record["step"] == progress.best_step else "",
        ]
        for record in records
    ]
    return table(["epoch", *names, "hypervolume", ""], rows)


def label_counts(front: Front) -> str:
    """The labels of each goal in a split."""
    if front.plain:
        pairs = zip(front.tasks, front.positives, strict=True)
        return "positives " + ", ".join(f"{task} {count:,}" for task, count in pairs)
    counted = zip(front.tasks, front.kinds, front.labelled, front.positives, strict=True)
    return "labels " + ", ".join(
        f"{task} {count:,}" + (f" ({positives:,} positive)" if kind == "binary" else "")
        for task, kind, count, positives in counted
    )


def undefined_note(front: Front, names: str) -> str:
    """Why the main metric of the goals of some names is undefined."""
    if front.plain:
        return f"AUC of {names} is undefined: the split holds one class only"
    return f"the main metric of {names} is undefined: the split has no label, or one value only"


def comparison_summary(comparison: Comparison) -> str:
    """The front beside other models on the same rows."""
    records = comparison.records()
    tasks = comparison.front.tasks
    lines = [table(list(records[0]), [list(record.values()) for record in records])]
    regrets = ", ".join(f"{task} {regret}" for task, regret in comparison.regrets().items())
    lines.append(
        f"log loss where a goal weighs most, minus that of the best other model: {regrets}"
    )
    if not np.isnan(comparison.covered).all():
        covered = ", ".join(
            f"{task} {part:.2f}" for task, part in zip(tasks, comparison.covered, strict=True)
        )
        lines.append(f"part of the way between the other models' ends: {covered}")
    return "\n".join(lines)
