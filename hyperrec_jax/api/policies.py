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
      before: What the old policy may decide, with the chances.
      after: What the new one may decide.
      metrics: The main metric of each goal.
      values: Their values before and after, `[2, goal]`, expected where a policy draws.
      change: After minus before, `[goal]`.
      ends: Ends of its interval over paired resamples, `[2, goal]`.
    """

    segment: str | None
    since: Time | None
    before: tuple[Decision, ...]
    after: tuple[Decision, ...]
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
    opened = Measurer(model, model.data, split, resamples=resamples)
    mains = [opened.main(goal) for goal in range(len(model.goals))]
    weights = [one.weights for _, _, *pair in found for side in pair for one in side]
    distinct = np.unique(np.asarray(weights, np.float64), axis=0)
    measured = opened.measure(distinct, mains)

    def chances(side: tuple[Decision, ...]) -> Floats:
        """Share of the requests that gets each of the distinct preferences."""
        result = np.zeros(len(distinct))
        for one in side:
            result[(distinct == one.weights.astype(np.float64)).all(axis=1)] += one.propensity
        return result

    changes = []
    for segment, since, old, new in found:
        first, second = chances(old), chances(new)
        values = np.stack([first @ measured.values, second @ measured.values])
        gained = np.einsum("p,rpm->rm", second - first, measured.samples)
        whole = np.isfinite(gained).all(axis=1)
        changes.append(
            PolicyChange(
                segment,
                None if since == moment else since,
                old,
                new,
                tuple(measure.name for measure in mains),
                values,
                values[1] - values[0],
                interval(gained[whole], confidence),
            )
        )
    return changes


def differences(
    before: Policy, after: Policy, now: Time
) -> list[tuple[str | None, Time, tuple[Decision, ...], tuple[Decision, ...]]]:
    """Segments and times from which two policies decide differently, and what they may decide."""
    ends = [end for rule in (*before.rules, *after.rules) for end in (rule.start, rule.end)]
    moments = sorted({now, *(end for end in ends if end is not None and end > now)})
    found = []
    for segment in (None, *dict.fromkeys((*before.segments, *after.segments))):
        last = None
        for moment in moments:
            pair = [policy.outcomes(segment, moment) for policy in (before, after)]
            sides = [_distribution(side) for side in pair]
            key = None if sides[0] == sides[1] else sides
            if key is not None and key != last:
                found.append((segment, moment, pair[0], pair[1]))
            last = key
    return found


def _distribution(side: tuple[Decision, ...]) -> dict[tuple[float, ...], float]:
    """The chance of each preference, whatever its name."""
    result: dict[tuple[float, ...], float] = {}
    for one in side:
        weights = tuple(round(float(weight), 6) for weight in one.weights)
        result[weights] = round(result.get(weights, 0.0) + one.propensity, 9)
    return result


def _told(side: tuple[Decision, ...]) -> str:
    told = []
    for one in side:
        share = "" if one.propensity == 1 else f"{one.propensity:.3g} of "
        weights = ",".join(f"{weight:.4g}" for weight in one.weights)
        told.append(f"{share}{one.name} {weights}")
    return f"{' and '.join(told)} ({side[0].reason})"
