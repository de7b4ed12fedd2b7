"""What an evaluation comes to, in sentences: the first thing that its page says."""

import numpy as np

from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.pareto import trade_off
from hyperrec_jax.reports.tables import undefined_note
from hyperrec_jax.reports.views import CONFIDENCE, View, views

ALLOWED = 0.01
"""Part of its value that a guarded goal may lose."""
MOST_CHOICES = 3
"""Goals for which a guarded choice is told."""


def verdict(front: Front) -> list[str]:
    """Sentences on the trade-off, the most important first; plain text."""
    main, *others = [view for view in views(front) if view.name != "losses"]
    lines = []
    if not np.isnan(main.values).any():
        lines += of_view(main)
        lines += choices(main)
        for view in others:
            if np.isnan(view.values).any():
                continue
            said = [f"{line[0].lower()}{line[1:]}" for line in of_view(view)]
            if _found(view) is False:
                said = ["no trade-off beyond the noise of these rows."]
            lines += [f"The {view.name}: {line}" for line in said]
    if front.preferences is None and front.lists is None:
        lines.append("This model takes no preference: its front is one point.")
    if front.undefined_tasks:
        lines.append(undefined_note(front, ", ".join(front.undefined_tasks)) + ".")
    return lines


def amount(value: float) -> str:
    """A difference as people read it: `.041`, and `.0041` below a hundredth."""
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.4f}"


def weights(preference: np.ndarray) -> str:
    """A preference as people read it: `.30 / .70`."""
    return " / ".join(f"{weight:.2f}" for weight in preference)


def of_view(view: View) -> list[str]:
    """What the preference moves; nothing where there is no choice."""
    if not view.has_choice:
        return []
    assert view.preferences is not None
    goals = np.arange(len(view.goals))
    most, least = view.preferences.argmax(axis=0), view.preferences.argmin(axis=0)
    gain = view.sign * (view.values[most, goals] - view.values[least, goals])
    said = [f"{amount(gain[goal])} {view.labels[goal]} of {view.goals[goal]}" for goal in goals]
    if len(goals) == 2:
        line = f"From {view.goals[0]}-first to {view.goals[1]}-first this model "
        if gain.min() > 0:
            line += f"gives up {said[0]} for {said[1]}"
        else:
            moved = [
                f"{view.labels[goal]} of {view.goals[goal]} by {change:+.4f}"
                for goal, change in enumerate(view.sign * gain * (-1, 1))
            ]
            line += f"moves {moved[0]} and {moved[1]}"
    else:
        line = f"From its least to its greatest weight each goal gains: {', '.join(said)}"
    return [f"{line}{_doubt(view)}."]


def _found(view: View) -> bool | None:
    """Whether there is a trade-off beyond the noise; None where nothing tells."""
    if view.samples is None or not view.has_choice or not np.isfinite(view.samples).all():
        return None
    assert view.preferences is not None
    return trade_off(view.preferences, -view.sign * view.samples).found


def _doubt(view: View) -> str:
    """Whether the trade-off is beyond the noise, as the end of a sentence."""
    return {
        None: "",
        True: ", beyond the noise of these rows",
        False: "; that is within the noise of these rows, so that the preference decides little",
    }[_found(view)]


def choices(view: View) -> list[str]:
    """For each goal the best preference whose guards surely hold."""
    if not view.has_choice or len(view.goals) < 2:
        return []
    assert view.preferences is not None
    baseline, lines, without = view.centre(), [], []
    for goal, name in list(enumerate(view.goals))[:MOST_CHOICES]:
        chosen = view.guarded(goal, ALLOWED, baseline)
        if chosen is None:
            return []
        others = [other for other in view.goals if other != name]
        kept = f"{others[0]} loses" if len(others) == 1 else "no other goal loses more than"
        kept += f"{' at most' if len(others) == 1 else ''} {ALLOWED:.0%}"
        if chosen == baseline:
            without.append(name)
            continue
        gain = view.sign[goal] * (view.values[chosen, goal] - view.values[baseline, goal])
        lines.append(
            f"Best guarded choice for {name}: weights {weights(view.preferences[chosen])}, "
            f"{amount(gain)} {view.labels[goal]} above equal weights while {kept} (with "
            f"{CONFIDENCE:.0%} confidence)."
        )
    if without:
        kept = f"no other goal loses more than {ALLOWED:.0%}"
        lines.append(
            f"No preference is surely better for {' or '.join(without)} than equal weights while "
            f"{kept}."
        )
    return lines
