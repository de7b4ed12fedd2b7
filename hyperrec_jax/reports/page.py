"""The front as one HTML page that needs no network: pictures as inline SVG, a table that sorts.

All that comes from data (names of goals, fields, config values) is escaped.
"""

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.reports import lists
from hyperrec_jax.reports.details import Details
from hyperrec_jax.reports.plots import (
    draw_calibration,
    draw_experts,
    draw_front,
    draw_training,
    draw_weights,
    to_svg,
)
from hyperrec_jax.reports.tables import undefined_note
from hyperrec_jax.reports.template import PAGE, SCRIPT, STYLE


def render(front: Front, extra: Details) -> str:
    """The page."""
    sections = []
    if front.lists is not None:
        of_lists = front.lists
        picture = to_svg(lambda: lists.draw_lists(of_lists))
        sections.append(("Lists", picture + lists.section(of_lists), lists.NOTE))
    sections += [
        ("Front", to_svg(lambda: draw_front(front)), _FRONT_NOTE),
        ("Preferences", _table(front), _TABLE_NOTE),
    ]
    if front.has_grid:
        sections.append(("Against the weight", to_svg(lambda: draw_weights(front)), _WEIGHT_NOTE))
    if extra.comparison is not None:
        sections.append(("Against other models", _comparison(extra.comparison), _COMPARISON_NOTE))
    if any(extra.curves.values()):
        picture = to_svg(lambda: draw_calibration(front, extra.curves))
        sections.append(("Calibration", picture, _CALIBRATION_NOTE))
    if extra.expert_use is not None:
        use = extra.expert_use
        sections.append(("Expert use", to_svg(lambda: draw_experts(front, use)), _EXPERT_NOTE))
    if extra.importance is not None:
        content = _rows(extra.importance.records())
        sections.append(("What the model reads", content, _IMPORTANCE_NOTE))
    if len(extra.history) > 1:
        sections.append(("Training", to_svg(lambda: draw_training(extra.history)), ""))
    sections.append(("Config and versions", _settings(extra), ""))
    body = "".join(
        f"<section><h2>{title}</h2>{f'<p>{note}</p>' if note else ''}{content}</section>"
        for title, content, note in sections
    )
    facts = {"rows": f"{front.rows:,}"}
    if front.lists is not None and front.lists.first.trade_off is not None:
        facts["trade-off of lists"] = "yes" if front.lists.first.trade_off.found else "none here"
    if front.preferences is not None:
        facts["preferences"] = f"{len(front.loss)}"
        facts["not dominated"] = f"{int(front.non_dominated.sum())}"
    facts["hypervolume"] = _number(front.hypervolume)
    if front.trade_off is not None:
        facts["trade-off of losses"] = "yes" if front.trade_off.found else "none here"
    for task, kind, positives, count in zip(
        front.tasks, front.kinds, front.positives, front.labelled, strict=True
    ):
        if kind == "binary":
            facts[f"positives of {task}"] = f"{positives:,}"
        if kind != "binary" or count < front.rows:
            facts[f"labels of {task}"] = f"{count:,}"
    cards = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts.items()
    )
    title = f"{extra.source}, {front.split}: one model"
    if front.preferences is not None:
        title += f", {len(front.loss)} preference{'s' if len(front.loss) > 1 else ''}"
    title = html.escape(title)
    undefined = html.escape(", ".join(front.undefined_tasks))
    warning = f'<p class="warning">{undefined_note(front, undefined)}.</p>' if undefined else ""
    return PAGE.format(
        title=title, style=STYLE, cards=cards, warning=warning, body=body, script=SCRIPT
    )


_FRONT_NOTE = (
    "Each point is a preference of the one model; rings mark those that no other dominates. "
    "Below, or beside, the same with 95 % bootstrap intervals, if they were asked for: all points "
    "share their rows and move together, so that bars may overlap where points truly differ."
)
_TABLE_NOTE = "Click a heading to sort. Log loss in nats; calibration is predicted over observed."
_WEIGHT_NOTE = (
    "A model that obeys: the more weight a goal has, the lower its loss, the higher its AUC."
)
_COMPARISON_NOTE = (
    "The best of each model over its preferences. Regret: log loss where this model weighs the "
    "goal most, minus that of the other model that is best in it; with its deviation over "
    "resamples of the rows."
)
_CALIBRATION_NOTE = (
    "Predicted against observed rate in bins of equally many rows; the diagonal is calibrated."
)
_IMPORTANCE_NOTE = (
    "What the main metric of each goal loses when a field is shuffled between rows, with its "
    "deviation over the shuffles. Fields that tell the same share their importance."
)
_EXPERT_NOTE = (
    "Share of each expert in the gate's weights, by preference where the model takes one."
)


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.4f}"


def _table(front: Front) -> str:
    records = front.records()
    names = list(records[0])
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(_heading(name))}</button></th>'
        for name in names
    )
    rows = []
    for place, record in enumerate(records):
        cells = []
        for name, value in record.items():
            if isinstance(value, bool):
                cells.append(f'<td data-value="{int(value)}">{"yes" if value else "no"}</td>')
                continue
            kind, _, task = name.partition("/")
            samples = {
                "auc": front.auc_interval,
                "log_loss": front.loss_interval,
                "loss": front.loss_interval,
            }.get(kind)
            shown = _number(value)
            interval = None if samples is None else samples[:, place, front.tasks.index(task)]
            if interval is not None and not np.isnan([value, *interval]).any():
                low, high = interval
                shown += f" <small>[{low:.4f}, {high:.4f}]</small>"
            cells.append(f'<td data-value="{value}">{shown}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    csv = base64.b64encode(front.to_csv().encode()).decode()
    return (
        f'<p><a download="front.csv" href="data:text/csv;charset=utf-8;base64,{csv}">'
        "Download as CSV</a></p>"
        f'<div class="wide"><table id="front"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _rows(records: Sequence[dict[str, Any]]) -> str:
    """A table of records with the same keys."""

    def row(cells: Sequence[Any], tag: str) -> str:
        shown = (_number(cell) if isinstance(cell, float) else html.escape(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    rows = [row([_heading(name) for name in records[0]], "th")]
    rows += [row(list(record.values()), "td") for record in records]
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _comparison(comparison: Comparison) -> str:
    facts = []
    for (task, regret), covered in zip(
        comparison.regrets().items(), comparison.covered, strict=True
    ):
        fact = f"{html.escape(task)}: regret {regret}"
        if not np.isnan(covered):
            fact += f", covered {covered:.0%} of the way between the others' ends"
        facts.append(f"<li>{fact}</li>")
    return f"{_rows(comparison.records())}<ul>{''.join(facts)}</ul>"


def _heading(name: str) -> str:
    kind, _, task = name.partition("/")
    shown = {"preference": "weight", "auc": "AUC", "log_loss": "log loss"}.get(kind, kind)
    return f"{shown} {task}".replace("_", " ") if not task else f"{shown} {task}"


def _settings(extra: Details) -> str:
    def listing(values: dict[str, Any]) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(json.dumps(value))}</td></tr>"
            for key, value in values.items()
            if value is not None
        )
        return f'<div class="wide"><table class="settings"><tbody>{rows}</tbody></table></div>'

    return (
        f"<details open><summary>Config</summary>{listing(extra.config)}</details>"
        f"<details open><summary>Versions</summary>{listing(extra.versions)}</details>"
    )
