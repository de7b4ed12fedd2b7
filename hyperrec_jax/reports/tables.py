"""Tables for a terminal: what training, the front, a comparison and lists come to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.training.checkpoint import Progress
from hyperrec_jax.training.log import read_metrics

SUMMARY_ROWS = 25


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
    rows = [
        [
            int(record["epoch"]),
            *(record[name] for name in names),
            record["hypervolume"],
            "selected" if record["step"] == progress.best_step else "",
        ]
        for record in records
    ]
    title = f"validation (best of the grid for each goal); run in {workdir}"
    return f"{title}\n{table(['epoch', *names, 'hypervolume', ''], rows)}"


def front_summary(front: Front) -> str:
    """The front as a table, with what it says and what it can't."""
    records = front.records()
    if len(records) > SUMMARY_ROWS:  # a terminal shows a few dozen rows; the CSV has all
        step = -(-len(records) // SUMMARY_ROWS)
        records = records[::step]
    names = [name for name in records[0] if name != "non_dominated"]
    rows = [
        [*(record[name] for name in names), "*" if record["non_dominated"] else ""]
        for record in records
    ]
    beyond_noise = ""
    if front.non_dominated_beyond_noise is not None:
        share = f"{front.non_dominated_beyond_noise:.0%}"
        beyond_noise = f"; by {_loss(front)}, beyond the noise of the rows: {share}"
    lines = [
        f"{front.split}: {front.rows:,} rows; {_label_counts(front)}",
        table([*(name.replace("preference/", "r ") for name in names), "*"], rows),
        f"hypervolume {front.hypervolume:.4f} of {front.objective} from the reference point "
        f"({', '.join('1' for _ in front.tasks)}); * not dominated: "
        f"{int(front.non_dominated.sum())} of {len(front.non_dominated)} preferences"
        + beyond_noise,
    ]
    if front.has_grid:
        lines.append(
            f"of {_RELATIVE[set(front.kinds) == {'binary'}]}: hypervolume "
            f"{front.loss_hypervolume:.4f} from ({', '.join('1' for _ in front.tasks)}), span "
            f"{front.span:.4f}, spacing {front.spacing:.4f}, mean angle to the preference "
            f"{front.angle:.2f}"
        )
        lines.append(
            "correlation of a goal's loss with its weight (-1 obeys the preference): "
            + ", ".join(
                f"{task} {value:+.2f}"
                for task, value in zip(front.tasks, front.obedience, strict=True)
            )
        )
    if front.trade_off:
        gains = ", ".join(
            f"{task} {gain:+.5f} ± {deviation:.5f}"
            for task, gain, deviation in zip(front.tasks, *front.trade_off[:2], strict=True)
        )
        lines.append(
            "losses: "
            + (
                "the preference trades off"
                if front.trade_off.found
                else "no trade-off beyond noise"
            )
            + f": {_loss(front)} gained from the least to the greatest weight: {gains} (bootstrap)"
        )
    if front.undefined_tasks:
        undefined = ", ".join(front.undefined_tasks)
        lines.append(f"{undefined_note(front, undefined)}; it stays out of the hypervolume")
    return "\n".join(lines)


_RELATIVE = {
    True: "log losses over the entropy of the base rate",
    False: "losses over those of the best constants",
}


def _loss(front: Front) -> str:
    return "log loss" if set(front.kinds) == {"binary"} else "loss"


def _label_counts(front: Front) -> str:
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
