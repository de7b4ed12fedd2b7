"""Reads a policy from `policy.yaml`.

    version: 2026-11-25              # any text; new content needs a new version
    preferences:                     # by name, a weight for each goal
      balanced: {click: 0.5, buy: 0.5}
      buy_first: {click: 0.3, buy: 0.7}
    bounds: {buy: [0.2, 0.9]}        # what a request may ask for, after scaling to a sum of 1
    rules:                           # the first one that applies
      - {segment: app, from: 2026-11-27, until: 2026-11-30, preference: buy_first}
      - {segment: app, preference: balanced}
      - {segment: web, preference: {balanced: 0.9, buy_first: 0.1}}   # drawn, by these shares
    default: balanced                # where no rule applies
    fallback: balanced               # in place of what is out of bounds; without it, refused

Days are those of UTC, the last one included; a time is written with its offset,
2026-11-27T18:00:00+01:00, and `until` a time is before it.
"""

import datetime
import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.serving.policy import SLACK, Policy, Rule, Shares, Time, Weights
from hyperrec_jax.serving.refusal import shown

_KEYS = ("version", "preferences", "bounds", "rules", "default", "fallback")
_RULE_KEYS = ("segment", "from", "until", "preference")


def read_policy(path: Path, goals: tuple[str, ...]) -> Policy:
    """Reads a policy for a model.

    Args:
      path: The file.
      goals: Names of the model's goals.

    Raises:
      UserError: the file can't be read, or does not fit the model; says the key and the value.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    return parse_policy(path, content, goals)


def parse_policy(path: Path, content: bytes, goals: tuple[str, ...]) -> Policy:
    """Reads the content of a policy's file; see `read_policy`."""
    try:
        values = yaml.load(content, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: is no policy: it has no keys, such as {', '.join(_KEYS)}")
    _refuse_unknown(f"{path}", values, _KEYS)
    for key in ("version", "preferences", "default"):
        if values.get(key) in (None, "", {}):
            raise UserError(f"{path}: {key} is missing")
    version = values["version"]
    if isinstance(version, bool | list | dict):
        raise UserError(f"{path}: version: {shown(version)} is no text")
    low, high = _bounds(path, values.get("bounds"), goals)
    preferences = _preferences(path, values["preferences"], goals, low, high)

    def known(key: str, name: Any) -> str:
        if not isinstance(name, str) or name not in preferences:
            raise UserError(
                f"{path}: {key}: no preference is named {shown(name)}; "
                + suggestion(str(name), preferences)
            )
        return name

    def shares(key: str, value: Any) -> Shares:
        """A name, or a mapping from names to shares."""
        if not isinstance(value, dict):
            return ((known(key, value), 1.0),)
        for name, share in value.items():
            known(key, name)
            if not _is_weight(share) or not share > 0:
                raise UserError(f"{path}: {key}: {name}: {shown(share)} is no share above 0")
        if not value or abs(sum(value.values()) - 1) > SLACK:
            raise UserError(
                f"{path}: {key}: the shares sum to {sum(value.values()):g}, not 1, as in "
                "{balanced: 0.9, buy_first: 0.1}"
            )
        return tuple((name, float(share)) for name, share in value.items())

    entries = values.get("rules")
    if not isinstance(entries, list | None):
        raise UserError(f"{path}: rules: {shown(entries)} is no list of rules")
    rules: list[Rule] = []
    for number, entry in enumerate(entries or (), 1):
        where = f"{path}: rules: rule {number}"
        rule = _rule(where, entry, functools.partial(shares, f"rules: rule {number}: preference"))
        for before, other in enumerate(rules, 1):
            if other.covers(rule):
                raise UserError(
                    f"{where} never applies: rule {before} is for the same segment and time and "
                    "comes first; change their order, or remove one"
                )
        rules.append(rule)
    fallback = values.get("fallback")
    return Policy(
        path=path,
        version=str(version),
        goals=goals,
        preferences=preferences,
        low=low,
        high=high,
        rules=tuple(rules),
        default=shares("default", values["default"]),
        fallback=None if fallback is None else known("fallback", fallback),
        digest=hashlib.sha256(content).hexdigest(),
    )


def _preferences(
    path: Path, values: Any, goals: tuple[str, ...], low: Weights, high: Weights
) -> dict[str, Weights]:
    if not isinstance(values, dict):
        raise UserError(f"{path}: preferences: {shown(values)} names none, as in " + _EXAMPLE)
    found = {}
    for name, weights in values.items():
        where = f"{path}: preferences: {name}"
        if not isinstance(name, str):
            raise UserError(f"{where}: the name is no text; put it in quotes")
        if not isinstance(weights, dict):
            raise UserError(f"{where}: {shown(weights)} has no weight for each goal: {_EXAMPLE}")
        _refuse_unknown(where, weights, goals, "goal")
        for goal in goals:
            if goal not in weights:
                raise UserError(f"{where}: has no weight of goal {goal!r}")
            if not _is_weight(weights[goal]):
                raise UserError(f"{where}: {goal}: {shown(weights[goal])} is no number from 0 on")
        numbers = np.array([weights[goal] for goal in goals], np.float64)
        if not numbers.sum() > 0:
            raise UserError(f"{where}: all weights are 0; at least one must be above")
        scaled = numbers / numbers.max()
        scaled /= scaled.sum()
        for goal, weight, least, most in zip(goals, scaled, low, high, strict=True):
            if not least - SLACK <= weight <= most + SLACK:
                raise UserError(
                    f"{where}: {goal}: {weight:.4g} is out of the bounds {least:g} to {most:g}"
                )
        found[name] = scaled.astype(np.float32)
    return found


def _bounds(path: Path, values: Any, goals: tuple[str, ...]) -> tuple[Weights, Weights]:
    low, high = np.zeros(len(goals), np.float32), np.ones(len(goals), np.float32)
    if values is None:
        return low, high
    if not isinstance(values, dict):
        raise UserError(f"{path}: bounds: {shown(values)} is not as in {{buy: [0.2, 0.9]}}")
    _refuse_unknown(f"{path}: bounds", values, goals, "goal")
    for goal, pair in values.items():
        fine = isinstance(pair, list) and len(pair) == 2 and all(map(_is_weight, pair))
        if not fine or not pair[0] <= pair[1] <= 1:
            raise UserError(
                f"{path}: bounds: {goal}: {shown(pair)} is not the least and the greatest weight, "
                "as in [0.2, 0.9]"
            )
        low[goals.index(goal)], high[goals.index(goal)] = pair
    if low.sum() > 1 + SLACK or high.sum() < 1 - SLACK:
        raise UserError(f"{path}: bounds: no weights that sum to 1 are within them")
    return low, high


def _rule(where: str, entry: Any, shares: Callable[[Any], Shares]) -> Rule:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {shown(entry)} is not as in {{segment: app, preference: ...}}")
    _refuse_unknown(where, entry, _RULE_KEYS)
    if "preference" not in entry:
        raise UserError(f"{where}: has no preference")
    segment = entry.get("segment")
    if not isinstance(segment, str | None) or segment == "":
        raise UserError(f"{where}: segment: {shown(segment)} is no text; put it in quotes")
    start, end = (_moment(f"{where}: {key}", entry.get(key), key) for key in ("from", "until"))
    if start is not None and end is not None and not start < end:
        raise UserError(f"{where}: from is not before until")
    return Rule(segment, start, end, shares(entry["preference"]))


def _moment(where: str, value: Any, key: str) -> Time | None:
    """A day or time; of `until` a day, the end of it."""
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise UserError(f"{where}: {value} has no offset, as in {value.isoformat()}+00:00")
        return value
    if isinstance(value, datetime.date):
        day = datetime.datetime.combine(value, datetime.time(), datetime.UTC)
        return day + datetime.timedelta(days=1) if key == "until" else day
    raise UserError(f"{where}: {shown(value)} is no day, as in 2026-11-27, nor a time")


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < math.inf


def _refuse_unknown(
    where: str, values: Mapping[Any, Any], known: tuple[str, ...], what: str = "key"
) -> None:
    for key in values:
        if key not in known:
            raise UserError(f"{where}: no {what} {shown(key)}; {suggestion(str(key), known)}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"key {key!r} is given twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_EXAMPLE = "balanced: {click: 0.5, buy: 0.5}"
