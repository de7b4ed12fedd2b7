"""The numbers of the page as JSON, from which its charts and controls work."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.reports.details import Details
from hyperrec_jax.reports.views import View, views

MOST_BOUNDS = 40_000
"""Numbers of the table of bounds of a view; where there would be more, one baseline has them."""

_NOTES = {
    "lists": "One list for each group of rows and each preference. NDCG counts the first ranks of "
    "the lists that have a positive of the goal.",
    "predictions": "What the predictions of each goal are worth apart from the lists.",
    "losses": "Less is better: the loss that training minimises, on these rows.",
}


def page_facts(front: Front, details: Details, live: bool = False) -> dict[str, Any]:
    """What the scripts of the page read.

    Args:
      front: Metrics under each preference.
      details: What there is beside the front.
      live: Whether a running explorer answers for preferences between those of the grid.
    """
    found = views(front)
    preferences = found[0].preferences
    return {
        "goals": front.tasks,
        "binary": [kind == "binary" for kind in front.kinds],
        "expectedGain": details.expected_gain,
        "split": front.split,
        "workdir": details.workdir,
        "live": live,
        "grouped": details.grouped,
        "preferences": None if preferences is None else _numbers(preferences, 6),
        "views": [_view(view) for view in found],
        "others": _others(details),
        "examples": details.examples,
        "segments": details.segments,
        "calibration": {
            str(place): {
                str(goal): {
                    "predicted": _numbers(curve.predicted, 5),
                    "observed": _numbers(curve.observed, 5),
                }
                for goal, curve in by_goal.items()
            }
            for place, by_goal in details.curves.items()
            if by_goal
        },
        "experts": None if details.expert_use is None else _experts(details.expert_use, front),
        "training": _training(details.history),
    }


def as_script(facts: dict[str, Any]) -> str:
    """JSON that can stand in an element: a goal may be called `</script>`."""
    text = json.dumps(facts, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _view(view: View) -> dict[str, Any]:
    interval = view.interval
    return {
        "name": view.name,
        "title": view.name.capitalize(),
        "note": _NOTES[view.name],
        "labels": view.labels,
        "measures": view.measures,
        "higher": view.higher,
        "values": _numbers(view.values, 6),
        "low": None if interval is None else _numbers(interval[0], 5),
        "high": None if interval is None else _numbers(interval[1], 5),
        "notDominated": view.not_dominated.tolist(),
        "doubt": _doubt(view),
    }


def _doubt(view: View) -> dict[str, Any] | None:
    """For each baseline what must be taken off gains over it; None where nothing tells."""
    if not view.has_choice or view.samples is None:
        return None
    count = len(view.values)
    baselines = range(count) if count * view.values.size <= MOST_BOUNDS else [view.centre()]
    bounds = {str(place): view.doubt(place) for place in baselines}
    found = {
        place: [[_significant(value) for value in row] for row in bound]
        for place, bound in bounds.items()
        if bound is not None
    }
    return found or None


def _others(details: Details) -> list[dict[str, Any]]:
    if details.comparison is None:
        return []
    return [
        {
            "name": name,
            "predictions": _numbers(other.value, 6),
            "losses": _numbers(other.loss, 6),
        }
        for name, other in details.comparison.others.items()
    ]


def _experts(use: np.ndarray, front: Front) -> dict[str, Any]:
    order = np.arange(len(use))
    if front.preferences is not None and len(use) == len(front.preferences):
        order = np.argsort(front.preferences[:, 0], kind="stable")
    return {"use": _numbers(use, 4), "order": order.tolist()}


def _training(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Losses, and the main metrics, against the step; nothing of a run without records."""
    train = [record for record in history if record["kind"] == "train"]
    validation = [record for record in history if record["kind"] == "validation"]

    def lines(records: list[dict[str, Any]], prefix: str, what: str) -> list[dict[str, Any]]:
        names = [name for name in (records[0] if records else {}) if name.startswith(prefix)]
        return [
            {
                "name": f"{what} {name.removeprefix(prefix)}".strip(),
                "dashed": what == "validation",
                "steps": [record["step"] for record in records],
                "values": [_finite(record.get(name)) for record in records],
            }
            for name in names
        ]

    losses = lines(train, "loss/", "train") + lines(validation, "log_loss/", "validation")
    losses += lines(validation, "loss/", "validation")
    panels = [("Losses", losses), ("Best AUC of the grid", lines(validation, "auc/", ""))]
    return [{"title": title, "lines": found} for title, found in panels if found]


def _finite(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _significant(value: float) -> float | None:
    return float(f"{value:.3g}") if np.isfinite(value) else None


def _numbers(values: np.ndarray, digits: int) -> Any:
    """Nested lists of rounded numbers; None for what is undefined."""
    if np.ndim(values):
        return [_numbers(one, digits) for one in values]
    return round(float(values), digits) if np.isfinite(values) else None
