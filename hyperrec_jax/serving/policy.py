"""A policy: which preference answers whom, and when. `policy_file` reads it from `policy.yaml`."""

import dataclasses
import datetime
import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.serving.refusal import shown

Weights = NDArray[np.float32]
Time = datetime.datetime
Shares = tuple[tuple[str, float], ...]
"""Names of preferences and the share of the requests that gets each; shares sum to one."""

SLACK = 1e-6
"""By which a weight may be out of its bounds, for rounding."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A preference for a segment, at a time.

    Attributes:
      segment: Whom it is for; None for everyone.
      start: From when on; None for always.
      end: Before when; None for always.
      shares: The preference, or those that are drawn between.
    """

    segment: str | None
    start: Time | None
    end: Time | None
    shares: Shares

    def applies(self, segment: str | None, now: Time) -> bool:
        """Whether the rule is for a segment at a time."""
        return (
            self.segment in (None, segment)
            and (self.start is None or self.start <= now)
            and (self.end is None or now < self.end)
        )

    def covers(self, other: "Rule") -> bool:
        """Whether the rule applies wherever another one does."""
        return (
            self.segment in (None, other.segment)
            and (self.start is None or (other.start is not None and self.start <= other.start))
            and (self.end is None or (other.end is not None and other.end <= self.end))
        )


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a policy answers.

    Attributes:
      weights: Weights of the goals, which sum to one, `[goal]`.
      name: Name of the preference; None for weights of the request's own.
      reason: `request`, `rule 1` (from 1), `default` or `fallback`.
      propensity: Chance that it was this one, in (0, 1]; below 1 where the policy draws.
    """

    weights: Weights
    name: str | None
    reason: str
    propensity: float = 1.0


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which preference answers whom, and when.

    Attributes:
      path: The file.
      version: Its version.
      goals: Names of the goals.
      preferences: Weights that sum to one, `[goal]`, by name.
      low, high: Bounds of each goal's weight, `[goal]`.
      rules: In the order of the file.
      default: The preference where no rule applies, or those that are drawn between.
      fallback: Name of the preference in place of one that may not be asked for; None to refuse it.
      digest: Hash of the file's content.
    """

    path: Path
    version: str
    goals: tuple[str, ...]
    preferences: Mapping[str, Weights]
    low: Weights
    high: Weights
    rules: tuple[Rule, ...]
    default: Shares
    fallback: str | None
    digest: str

    def decide(
        self,
        wish: Weights | str | None,
        segment: str | None,
        now: Time | None = None,
        unit: str | None = None,
    ) -> Decision:
        """The preference for a request.

        Args:
          wish: Weights that sum to one `[goal]`, or the name of a preference, which go before the
            rules; None to leave it to them.
          segment: Whom the request is for; None where it does not say.
          now: When, with its time zone; None for now.
          unit: Whose request it is, such as a user: where the policy draws, the same unit gets the
            same preference as long as the shares stay; None draws for each request anew.

        Raises:
          UserError: the wish may not be asked for, and there is no fallback.
        """
        if wish is not None:
            refused = self._why_not(wish)
            if refused is None and isinstance(wish, str):
                return self._named(wish, "request")
            if refused is None:
                return Decision(np.asarray(wish, np.float32), None, "request")
            if self.fallback is None:
                raise UserError(refused)
            return self._named(self.fallback, "fallback")
        return _drawn(self.outcomes(segment, now), unit)

    def outcomes(self, segment: str | None, now: Time | None = None) -> tuple[Decision, ...]:
        """What a request that leaves the preference to the policy may get, with its chances.

        Args:
          segment: Whom the request is for; None where it does not say.
          now: When, with its time zone; None for now.
        """
        moment = now or datetime.datetime.now(datetime.UTC)
        shares, reason = self.default, "default"
        for number, rule in enumerate(self.rules, 1):
            if rule.applies(segment, moment):
                shares, reason = rule.shares, f"rule {number}"
                break
        return tuple(
            Decision(self.preferences[name], name, reason, share) for name, share in shares
        )

    def told(self, decision: Decision, model: str) -> dict[str, Any]:
        """What an answer says of a decision, for JSON.

        Args:
          decision: From `decide`.
          model: What names the model.
        """
        return {
            "name": self.path.stem,
            "version": self.version,
            "preference": decision.name,
            "weights": dict(zip(self.goals, decision.weights.tolist(), strict=True)),
            "reason": decision.reason,
            "propensity": decision.propensity,
            "model": model,
        }

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments that rules name."""
        return tuple(dict.fromkeys(rule.segment for rule in self.rules if rule.segment))

    def _named(self, name: str, reason: str) -> Decision:
        return Decision(self.preferences[name], name, reason)

    def _why_not(self, wish: Weights | str) -> str | None:
        if isinstance(wish, str):
            if wish in self.preferences:
                return None
            near = suggestion(shown(wish)[1:-1], self.preferences)
            return f"preference: the policy has none named {shown(wish)}; {near}"
        for goal, weight, low, high in zip(self.goals, wish, self.low, self.high, strict=True):
            if not low - SLACK <= weight <= high + SLACK:
                return (
                    f"preference: the weight of {goal} is {weight:.4g}, and the policy "
                    f"{self.version} allows {low:g} to {high:g}"
                )
        return None


def _drawn(outcomes: tuple[Decision, ...], unit: str | None) -> Decision:
    """One of the outcomes, by its chance; of a unit always the same one."""
    if unit is None:
        place = random.random()
    else:
        # By the names alone: a new version of the file moves nobody whose shares stay.
        text = "\0".join([unit, *(str(outcome.name) for outcome in outcomes)])
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
    for outcome in outcomes:
        place -= outcome.propensity
        if place < 0:
            return outcome
    return outcomes[-1]
