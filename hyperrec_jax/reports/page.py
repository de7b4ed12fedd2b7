"""The front as one HTML page that needs no network: pictures as inline SVG, a table that sorts.

All that comes from data (names of tasks, fields, config values) is escaped.
"""

import base64
import dataclasses
import functools
import html
import io
import json
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.comparison import Comparison
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.scoring import Scores
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.log import read_metrics

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Distinct to colour-blind eyes (Okabe and Ito 2008)."""
MARKERS = "os^DvPX*"
PANEL_WIDTH = 4.2
EXPERT_ROWS = 4096
MAX_PAIRS = 6


@dataclasses.dataclass(frozen=True)
class Details:
    """What the report shows beside the front.

    Attributes:
      source: Where the rows come from.
      config: Of the run.
      versions: Packages and devices of the run.
      history: Records of `metrics.jsonl`.
      curves: Calibration curves of some rays: index of the ray -> one curve a task.
      expert_use: Share of each expert in the gates' weights, `[ray, gate, expert]`; one ray where
        the preference does not change them, None for models without gates.
      comparison: With other models on the same rows, or None.
    """

    source: str
    config: dict[str, Any]
    versions: dict[str, Any]
    history: list[dict[str, Any]]
    curves: dict[int, list[metrics.CalibrationCurve]]
    expert_use: np.ndarray | None
    comparison: Comparison | None = None


def details(
    workdir: Path,
    trained: Any,
    split: Any,
    scores: Scores,
    front: Front,
    comparison: Comparison | None = None,
) -> Details:
    """Collects what the report shows beside the front.

    Args:
      workdir: The run's folder.
      trained: From `training.trained.load_trained`.
      split: The rows that were scored.
      scores: From `Trained.score`.
      front: From those scores.
      comparison: Of that front with others.
    """
    last = len(front.auc) - 1
    curves = {
        ray: [
            metrics.calibration_curve(labels, logits)
            for labels, logits in zip(scores.labels, scores.logits[ray], strict=True)
        ]
        for ray in sorted({0, last // 2, last})
    }
    return Details(
        source=trained.schema.source,
        config=workdirs.flatten(trained.config),
        versions=workdirs.load_versions(workdir),
        history=read_metrics(workdir),
        curves=curves,
        expert_use=_expert_use(trained, split, front.preferences),
        comparison=comparison,
    )


def _expert_use(trained: Any, split: Any, rays: np.ndarray | None) -> np.ndarray | None:
    """Shares of the experts over rows from all parts of the split, `[ray, gate, expert]`.

    Models note what they weigh experts by under the name `gate_weights`: in `encode` where the
    preference does not change it, else in `decode`.
    """
    rows = np.linspace(0, len(split) - 1, min(EXPERT_ROWS, len(split))).astype(int)
    batch = split.gather(rows)
    apply = functools.partial(trained.network.apply, trained.variables, mutable=["intermediates"])

    @jax.jit
    def encode(batch: Any) -> Any:
        features, noted = apply(batch, False, method="encode")
        return features, _mean_weights(noted)

    @jax.jit
    def decode(features: Any, ray: Any) -> Any:
        return _mean_weights(apply(features, ray, False, method="decode")[1])

    features, weights = encode({name: batch[name] for name in ("categorical", "numerical")})
    if rays is None:
        rays = np.full((1, trained.schema.num_tasks), 1 / trained.schema.num_tasks)
    noted = [weights] if weights else [decode(features, np.float32(ray)) for ray in rays]
    if not noted[0]:
        return None
    means = np.asarray(noted, np.float64)
    return means / np.maximum(means.sum(axis=-1, keepdims=True), 1e-12)


def _mean_weights(noted: Any) -> list[jax.Array]:
    """Of each gate `[expert]`; no gates, no list."""
    (gates,) = noted.get("intermediates", {}).get("gate_weights", ([],))
    return [gate.reshape(-1, gate.shape[-1]).astype(jnp.float32).mean(axis=0) for gate in gates]


def render(front: Front, extra: Details) -> str:
    """The page."""
    sections = [
        ("Front", _figure(lambda: _draw_front(front)), _FRONT_NOTE),
        ("Preferences", _table(front), _TABLE_NOTE),
    ]
    if front.has_grid:
        sections.append(("Against the weight", _figure(lambda: _draw_weights(front)), _WEIGHT_NOTE))
    if extra.comparison is not None:
        sections.append(("Against other models", _comparison(extra.comparison), _COMPARISON_NOTE))
    sections.append(
        ("Calibration", _figure(lambda: _draw_calibration(front, extra)), _CALIBRATION_NOTE)
    )
    if extra.expert_use is not None:
        use = extra.expert_use
        sections.append(("Expert use", _figure(lambda: _draw_experts(front, use)), _EXPERT_NOTE))
    if len(extra.history) > 1:
        sections.append(("Training", _figure(lambda: _draw_training(extra.history)), ""))
    sections.append(("Config and versions", _settings(extra), ""))
    body = "".join(
        f"<section><h2>{title}</h2>{f'<p>{note}</p>' if note else ''}{content}</section>"
        for title, content, note in sections
    )
    facts = {"rows": f"{front.rows:,}"}
    if front.preferences is not None:
        facts["preferences"] = f"{len(front.auc)}"
        facts["not dominated"] = f"{int(front.non_dominated.sum())}"
    facts["hypervolume"] = _number(front.hypervolume)
    if front.trade_off is not None:
        facts["trade-off"] = "yes" if front.trade_off.found else "none here"
    for task, count in zip(front.tasks, front.positives, strict=True):
        facts[f"positives of {task}"] = f"{count:,}"
    cards = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts.items()
    )
    title = f"{extra.source}, {front.split}: one model"
    if front.preferences is not None:
        title += f", {len(front.auc)} preference{'s' if len(front.auc) > 1 else ''}"
    title = html.escape(title)
    undefined = html.escape(", ".join(front.undefined_tasks))
    warning = (
        f'<p class="warning">AUC of {undefined} is undefined: the split holds one class only.</p>'
        if undefined
        else ""
    )
    return _PAGE.format(
        title=title, style=_STYLE, cards=cards, warning=warning, body=body, script=_SCRIPT
    )


_FRONT_NOTE = (
    "Each point is a preference of the one model; rings mark those that no other dominates. "
    "Below, or beside, the same with 95 % bootstrap intervals, if they were asked for: all points "
    "share their rows and move together, so that bars may overlap where points truly differ."
)
_TABLE_NOTE = "Click a heading to sort. Log loss in nats; calibration is predicted over observed."
_WEIGHT_NOTE = (
    "A model that obeys: the more weight a task has, the lower its loss, the higher its AUC."
)
_COMPARISON_NOTE = (
    "The best of each model over its preferences. Regret: log loss where this model weighs the "
    "task most, minus that of the other model that is best in it; with its deviation over "
    "resamples of the rows."
)
_CALIBRATION_NOTE = (
    "Predicted against observed rate in bins of equally many rows; the diagonal is calibrated."
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
    for ray, record in enumerate(records):
        cells = []
        for name, value in record.items():
            if isinstance(value, bool):
                cells.append(f'<td data-value="{int(value)}">{"yes" if value else "no"}</td>')
                continue
            kind, _, task = name.partition("/")
            samples = {"auc": front.auc_interval, "log_loss": front.log_loss_interval}.get(kind)
            shown = _number(value)
            if samples is not None and not np.isnan(value):
                low, high = samples[:, ray, front.tasks.index(task)]
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


def _comparison(comparison: Comparison) -> str:
    def row(cells: Sequence[Any], tag: str) -> str:
        shown = (_number(cell) if isinstance(cell, float) else html.escape(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    records = comparison.records()
    rows = [row([_heading(name) for name in records[0]], "th")]
    rows += [row(list(record.values()), "td") for record in records]
    facts = []
    for (task, regret), covered in zip(
        comparison.regrets().items(), comparison.covered, strict=True
    ):
        fact = f"{html.escape(task)}: regret {regret}"
        if not np.isnan(covered):
            fact += f", covered {covered:.0%} of the way between the others' ends"
        facts.append(f"<li>{fact}</li>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div><ul>{"".join(facts)}</ul>'


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


# Pictures.


def _figure(draw: Callable[[], Any]) -> str:
    """The SVG of a figure, its ids made unique in the page."""
    import matplotlib as mpl  # slow to import
    from cycler import cycler

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "text.parse_math": False,  # a task may be called $x
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


def _new_figure(panels: int, height: float = 3.6, columns: int = 3) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    columns = min(panels, columns)
    rows = -(-panels // columns)
    width = 5.8 if panels == 1 else PANEL_WIDTH * columns
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes


def _draw_front(front: Front) -> Any:
    tasks = range(len(front.tasks))
    pairs = [(a, b) for a in tasks for b in tasks if a < b][:MAX_PAIRS] or [(0, 0)]
    # The intervals may be far wider than the front: it is drawn without them first.
    intervals = [None] if front.auc_interval is None else [None, front.auc_interval]
    views = [(pair, interval) for interval in intervals for pair in pairs]
    figure, axes = _new_figure(len(views), 4.2, columns=2 if len(pairs) == 1 else 3)
    colours = None if front.preferences is None else "cividis"
    weights = front.preferences[:, 0] if front.preferences is not None else None
    for panel, ((one, other), interval) in zip(axes, views, strict=False):
        x, y = front.auc[:, one], front.auc[:, other]
        if interval is not None:
            errors = np.abs(interval - front.auc)
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
        panel.set(xlabel=f"AUC {front.tasks[one]}", ylabel=f"AUC {front.tasks[other]}")
        panel.locator_params(axis="x", nbins=3)  # AUCs may need six digits
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1))  # above: points may be anywhere
    if weights is not None:
        figure.colorbar(points, ax=list(axes), label=f"weight of {front.tasks[0]}")
    return figure


def _draw_weights(front: Front) -> Any:
    assert front.preferences is not None
    figure, (losses, areas) = _new_figure(2)
    for index, task in enumerate(front.tasks):
        weight = front.preferences[:, index]
        order = np.argsort(weight, kind="stable")
        style = {
            "marker": MARKERS[index % len(MARKERS)],
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": "-" if len(front.tasks) == 2 else "none",
            "markersize": 4,
            "label": task,
        }
        for panel, values, interval, scale in (
            (losses, front.log_loss, front.log_loss_interval, front.log_loss[:, index].min()),
            (areas, front.auc, front.auc_interval, None),
        ):

            def shown(raw: np.ndarray, scale: float | None = scale) -> np.ndarray:
                return raw if scale is None else 100 * (raw / scale - 1)

            panel.plot(weight[order], shown(values[order, index]), **style)
            if interval is not None and len(front.tasks) == 2:
                low, high = shown(interval[:, order, index])
                panel.fill_between(
                    weight[order], low, high, color=style["color"], alpha=0.15, linewidth=0
                )
    losses.set(xlabel="weight of the task", ylabel="log loss over its best, %")
    areas.set(xlabel="weight of the task", ylabel="AUC")
    losses.legend()
    return figure


def _draw_calibration(front: Front, extra: Details) -> Any:
    figure, axes = _new_figure(len(front.tasks))
    for index, (panel, task) in enumerate(zip(axes, front.tasks, strict=False)):
        for number, (ray, curves) in enumerate(extra.curves.items()):
            label = (
                "all"
                if front.preferences is None
                else "r = " + ", ".join(f"{weight:.2f}" for weight in front.preferences[ray])
            )
            curve = curves[index]
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


def _draw_experts(front: Front, use: np.ndarray) -> Any:
    gates, experts = use.shape[1:]
    figure, axes = _new_figure(gates)
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
    """A gate's shares `[ray, expert]` by the weight of the first task."""
    assert front.preferences is not None
    order = np.argsort(front.preferences[:, 0], kind="stable")
    ticks = np.unique(np.linspace(0, len(order) - 1, min(5, len(order))).astype(int))
    panel.set_xticks(ticks, [f"{front.preferences[order[i], 0]:.2f}" for i in ticks])
    panel.set_xlabel(f"weight of {front.tasks[0]}")
    return panel.imshow(shares[order].T, aspect="auto", cmap="cividis", vmin=0, vmax=top)


def _draw_training(history: Sequence[dict[str, Any]]) -> Any:
    figure, (losses, areas) = _new_figure(2)
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
    lines(areas, validation, "auc/", "validation")
    losses.set(xlabel="step", ylabel="log loss")
    areas.set(xlabel="step", ylabel="best AUC of the grid")
    for panel in (losses, areas):
        if panel.lines:
            panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small")
    return figure


_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2rem 0 .25rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0; }
dl div { background: #f2f5f8; border-radius: .4rem; padding: .4rem .9rem; }
dt { font-size: .8rem; color: #444; } dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
p { margin: .25rem 0 .5rem; color: #333; } .warning { border-left: 4px solid #D55E00;
  padding-left: .75rem; margin-top: 1rem; }
.wide { overflow-x: auto; margin: 0; } figure svg { max-width: 100%; height: auto;
  min-width: calc(var(--panels) * 17rem); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
thead th { background: #f2f5f8; padding: 0; } small { color: #555; }
th button { all: unset; cursor: pointer; padding: .4rem .6rem; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072B2; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.settings th, .settings td { text-align: left; font-weight: 400; white-space: normal; }
summary { cursor: pointer; font-weight: 600; margin-top: .75rem; } a { color: #0060a0; }
@media (min-width: 60rem) { section details { display: inline-block; vertical-align: top;
  margin-right: 3rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .wide { overflow: visible; }
  section { break-inside: avoid; } figure svg { min-width: 0; } a[download] { display: none; }
  table { font-size: 8px; } th, td { padding: .1rem .25rem; }
  td small { display: block; font-size: 6px; }
  #front th, #front td, th button { padding: .1rem; } #front th { white-space: normal; }
}
"""

_SCRIPT = """
const table = document.getElementById("front");
table.tHead.querySelectorAll("th").forEach((head, column) => {
  head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.tHead.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = row => Number(row.cells[column].dataset.value);
    [...table.tBodies[0].rows].sort((a, b) => sign * (value(a) - value(b)))
      .forEach(row => table.tBodies[0].append(row));
  });
});
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<dl>{cards}</dl>
{warning}
{body}
<script>{script}</script>
</body>
</html>
"""
