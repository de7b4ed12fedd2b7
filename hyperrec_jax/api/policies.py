"""What a new policy changes: for whom, from when, and what that does on the front."""

import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.api.model import Model
from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.serving.policy import Decision, Policy, Time
from hyperrec_jax.training.measured import Measurer

Floats = NDArray[np.float64]


class PolicyChange(NamedTuple):
    """A segment whose preference a new policy changes.

    Attributes:
      segment: Whom it is for; None for requests of no segment, or of one that no rule names.
      since: From when on; None for now.
      before: What the old policy decides.
      after: What the new one decides.
      metrics: The main metric of each goal.
      values: Their values before and after, `[2, goal]`.
      change: After minus before, `[goal]`.
      ends: Ends of its interval over paired resamples, `[2, goal]`.
    """

    segment: str | None
    since: Time | None
    before: Decision
    after: Decision
    metrics: tuple[str, ...]
    values: Floats
    change: Floats
    ends: Floats

    def __str__(self) -> str:
        whom = f"segment {self.segment}" if self.segment else "everyone else"
        when = "" if self.since is None else f" from {self.since:%Y-%m-%d %H:%M %Z} on"
        lines = [f"{whom}{when}: {_told(self.before)} -> {_told(self.after)}"]
        for goal, name in enumerate(self.metrics):
            low, high = self.ends[:, goal]
            lines.append(
                f"  {name} {self.values[0, goal]:.4f} -> {self.values[1, goal]:.4f}: "
                f"{self.change[goal]:+.4f} [{low:+.4f}, {high:+.4f}]"
            )
        return "\n".join(lines)


def policy_changes(
    model: Model,
    before: Policy,
    after: Policy,
    *,
    now: Time | None = None,
    split: str = "test",
    resamples: int = 1000,
    confidence: float = 0.95,
) -> list[PolicyChange]:
    """What requests that leave the preference to the policy get of a new one.

    Args:
      model: The model that serves.
      before: The policy in force.
      after: The policy that replaces it.
      now: From when on to compare, with its time zone; None for now.
      split: The rows to measure on.
      resamples: Number of bootstrap resamples, at least 2.
      confidence: Level of the intervals, in (0, 1).

    Returns:
      One for each segment and time from which the two differ in another way than before.

    Raises:
      UserError: the model's data is not there.
    """
    moment = now or datetime.datetime.now(datetime.UTC)
    found = differences(before, after, moment)
    if not found:
        return []
    weights = [one.weights for _, _, *pair in found for one in pair]
    opened = Measurer(model, model.data, split, resamples=resamples)
    mains = [opened.main(goal) for goal in range(len(model.goals))]
    distinct, place = np.unique(np.asarray(weights, np.float64), axis=0, return_inverse=True)
    measured = opened.measure(distinct, mains)
    changes = []
    for number, (segment, since, old, new) in enumerate(found):
        first, second = place.reshape(-1)[2 * number : 2 * number + 2]
        gained = measured.samples[:, second] - measured.samples[:, first]
        whole = np.isfinite(gained).all(axis=1)
        changes.append(
            PolicyChange(
                segment,
                None if since == moment else since,
                old,
                new,
                tuple(measure.name for measure in mains),
                measured.values[[first, second]],
                measured.values[second] - measured.values[first],
                interval(gained[whole], confidence),
            )
        )
    return changes


def differences(
    before: Policy, after: Policy, now: Time
) -> list[tuple[str | None, Time, Decision, Decision]]:
    """Segments and times from which two policies decide differently, and their decisions."""
    ends = [end for rule in (*before.rules, *after.rules) for end in (rule.start, rule.end)]
    moments = sorted({now, *(end for end in ends if end is not None and end > now)})
    found = []
    for segment in (None, *dict.fromkeys((*before.segments, *after.segments))):
        last = None
        for moment in moments:
            pair = [policy.decide(None, segment, moment) for policy in (before, after)]
            same = np.allclose(pair[0].weights, pair[1].weights, atol=1e-6)
            key = None if same else tuple(float(w) for one in pair for w in one.weights)
            if key is not None and key != last:
                found.append((segment, moment, pair[0], pair[1]))
            last = key
    return found


def _told(decision: Decision) -> str:
    weights = ",".join(f"{weight:.4g}" for weight in decision.weights)
    return f"{decision.name} {weights} ({decision.reason})"
