"""The page of a front, one file that needs no network: `report.html`, and what the explorer shows.

Sentences and tables are written here, charts and controls by the scripts in `assets`, which read
the numbers that the page carries. All that comes from data (names of goals, fields, config values)
is escaped.
"""

import base64
import functools
import html
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.reports import lists
from hyperrec_jax.reports.details import Details
from hyperrec_jax.reports.facts import as_script, page_facts
from hyperrec_jax.reports.verdict import verdict
from hyperrec_jax.reports.views import views


def render(front: Front, details: Details, live: bool = False) -> str:
    """The page.

    Args:
      front: Metrics under each preference.
      details: What there is beside the front.
      live: Whether a running explorer answers the page.
    """
    script, style = assets()
    title = f"{details.source}, {front.split}: one model"
    if front.preferences is not None:
        title += f", {len(front.loss)} preference{'s' if len(front.loss) > 1 else ''}"
    return _skeleton().format(
        title=html.escape(title),
        connect="'self'" if live else "'none'",
        style=style,
        verdict=_verdict(front),
        cards=_cards(front),
        sections="".join(_section(*each) for each in _sections(front, details) if each[1]),
        footer=f"hyperrec_jax, {front.rows:,} rows of the {html.escape(front.split)} split.",
        facts=as_script(page_facts(front, details, live)),
        script=script,
    )


@functools.cache
def assets() -> tuple[str, str]:
    """The scripts and the styles of the page, each as one text; the charts' library first."""
    folder = resources.files(__package__) / "assets"
    texts = {one.name: one.read_text("utf-8") for one in folder.iterdir() if one.is_file()}
    notice = "".join(f" * {line}\n" for line in texts["uPlot.LICENSE"].splitlines())
    scripts = [f"/*\n{notice} */", texts["uPlot.iife.min.js"]]
    scripts += [texts[name] for name in sorted(texts) if name[0].isdigit()]
    return "\n".join(scripts), texts["uPlot.min.css"] + "\n" + texts["page.css"]


@functools.cache
def _skeleton() -> str:
    return (resources.files(__package__) / "assets" / "page.html").read_text("utf-8")


def _verdict(front: Front) -> str:
    first, *others = verdict(front) or ["What this model is worth to its goals"]
    lines = [("lead", first)]
    lines += [("choice" if "guarded" in line else "more", line) for line in others]
    return "\n".join(f'<p class="{kind}">{html.escape(line)}</p>' for kind, line in lines)


def _cards(front: Front) -> str:
    facts = {"rows": f"{front.rows:,}"}
    if front.lists is not None:
        first = front.lists.first
        for goal, count in zip(first.goals, first.lists.tolist(), strict=True):
            facts[f"lists with a positive of {goal}"] = f"{count:,}"
    main = views(front)[0]
    if main.has_choice:
        kept = f"{int(main.not_dominated.sum())} of {len(main.values)}"
        facts[f"{main.name} that none dominates"] = kept
    facts[f"hypervolume of {front.objective}"] = _number(front.hypervolume)
    for task, kind, positives, count in zip(
        front.tasks, front.kinds, front.positives, front.labelled, strict=True
    ):
        if kind == "binary":
            facts[f"positives of {task}"] = f"{positives:,}"
        if kind != "binary" or count < front.rows:
            facts[f"labels of {task}"] = f"{count:,}"
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts.items()
    )


def _section(title: str, content: str, note: str = "") -> str:
    said = f'<p class="note">{note}</p>' if note else ""
    return f"<section><h2>{title}</h2>{said}{content}</section>\n"


def _sections(front: Front, details: Details) -> list[tuple[str, ...]]:
    """Title, content and note of what follows the charts; without content it is left out."""
    found: list[tuple[str, ...]] = []
    if any(details.curves.values()):
        found.append(("Calibration", '<div id="calibration"></div>'))
    if details.expert_use is not None:
        found.append(("Expert use", '<div id="experts"></div>', _EXPERT_NOTE))
    if details.comparison is not None:
        found.append(("Against other models", _comparison(details.comparison), _COMPARISON_NOTE))
    if details.importance is not None:
        found.append(("What the model reads", rows(details.importance.records()), _READS_NOTE))
    if front.lists is not None:
        found.append(("Lists", _folded("All numbers", lists.section(front.lists)), lists.NOTE))
    found.append(("Preferences", _table(front), _TABLE_NOTE))
    if len(details.history) > 1:
        found.append(("Training", '<div id="training"></div>'))
    settings = _folded("What differs from the defaults", _settings(details.changed))
    settings += _folded("Versions", _settings(details.versions))
    found.append(("Config and versions", settings))
    return found


_TABLE_NOTE = (
    "A heading sorts, a row is chosen by a click. Log loss in nats, with 95 % bootstrap intervals "
    "where they were asked for; calibration is predicted over observed."
)
_COMPARISON_NOTE = (
    "The best of each model over its preferences. Regret: log loss where this model weighs the "
    "goal most, minus that of the other model that is best in it; with its deviation over "
    "resamples of the rows."
)
_READS_NOTE = (
    "What the main metric of each goal loses when a field is shuffled between rows, with its "
    "deviation over the shuffles. Fields that tell the same share their importance."
)
_EXPERT_NOTE = (
    "Share of each expert in the gate's weights, from the least to the greatest weight of the "
    "first goal where the model takes a preference."
)


def _folded(summary: str, content: str) -> str:
    return f'<details class="print"><summary>{summary}</summary>{content}</details>'


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.4f}"


def _table(front: Front) -> str:
    """All preferences: the lists' NDCG first where there are any."""
    records = front.records()
    if front.lists is not None and front.preferences is not None:
        first = front.lists.first
        ndcg = [
            {
                f"{first.measure(at).replace('ndcg', 'NDCG')}/{goal}": row[at]
                for at, goal in enumerate(first.goals)
            }
            for row in first.ndcg.tolist()
        ]
        weights = {f"preference/{goal}" for goal in front.tasks}
        records = [
            {name: value for name, value in record.items() if name in weights}
            | of_lists
            | {name: value for name, value in record.items() if name not in weights}
            for record, of_lists in zip(records, ndcg, strict=True)
        ]
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(_heading(name))}</button></th>'
        for name in records[0]
    )
    shown = "".join(
        f"<tr>{''.join(_cell(front, place, *each) for each in record.items())}</tr>"
        for place, record in enumerate(records)
    )
    csv = base64.b64encode(front.to_csv().encode()).decode()
    count = f"All {len(records)} preferences" if len(records) > 1 else "All measures"
    return _folded(
        count,
        f'<div class="wide"><table id="front"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{shown}</tbody></table></div>",
    ) + (
        '<p class="no-print"><a download="front.csv" '
        f'href="data:text/csv;charset=utf-8;base64,{csv}">Download as CSV</a></p>'
    )


def _cell(front: Front, place: int, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f'<td data-value="{int(value)}">{"yes" if value else "no"}</td>'
    kind, _, task = name.partition("/")
    samples = {
        "auc": front.auc_interval,
        "log_loss": front.loss_interval,
        "loss": front.loss_interval,
    }.get(kind)
    interval = None if samples is None else samples[:, place, front.tasks.index(task)]
    shown = f"{value:.3f}" if kind == "preference" else _number(value)
    if interval is not None and not np.isnan([value, *interval]).any():
        low, high = interval
        shown += f"<small>{low:.4f}&ndash;{high:.4f}</small>"
    return f'<td data-value="{value}">{shown}</td>'


def rows(records: Sequence[dict[str, Any]]) -> str:
    """A table of records with the same keys, as HTML; names are escaped."""

    def row(cells: Sequence[Any], tag: str) -> str:
        shown = (
            _number(cell) if isinstance(cell, float) else html.escape(str(cell)) for cell in cells
        )
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    found = [row([_heading(name) for name in records[0]], "th")]
    found += [row(list(record.values()), "td") for record in records]
    return f'<div class="wide"><table>{"".join(found)}</table></div>'


def _comparison(comparison: Comparison) -> str:
    facts = []
    for (task, regret), covered in zip(
        comparison.regrets().items(), comparison.covered, strict=True
    ):
        fact = f"{html.escape(task)}: regret {regret}"
        if not np.isnan(covered):
            fact += f", covered {covered:.0%} of the way between the others' ends"
        facts.append(f"<li>{fact}</li>")
    return f"{rows(comparison.records())}<ul>{''.join(facts)}</ul>"


def _heading(name: str) -> str:
    kind, _, task = name.partition("/")
    shown = {"preference": "weight", "auc": "AUC", "log_loss": "log loss", "ece": "ECE"}.get(
        kind, kind
    )
    if not task:
        return {"non_dominated": "not dominated"}.get(name, name).replace("_", " ")
    return f"{shown} {task}"


def _settings(values: dict[str, Any]) -> str:
    shown = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(json.dumps(value))}</td></tr>"
        for key, value in values.items()
        if value is not None
    )
    if not shown:
        return "<p>Nothing.</p>"
    return f'<div class="wide"><table class="settings"><tbody>{shown}</tbody></table></div>'
