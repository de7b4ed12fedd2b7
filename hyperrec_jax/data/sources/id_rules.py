"""How the values of a field become ids, as a description says it: `min_count`, `hash_buckets`."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.data.source import IdRule
from hyperrec_jax.errors import UserError

RULE_KEYS = ("hash_buckets", "min_count")
_MOST = 1_000_000_000
_FIELDS = ("categorical", "sets", "sequences")


def read_id_rules(path: Path, values: Mapping[Any, Any]) -> dict[str, IdRule]:
    """The rules of all fields that have ids of their own, but for those that are the default.

    Args:
      path: Path of the description, for messages.
      values: Its keys; `min_count` is that of all fields that say nothing else, and the entries
        are those that `field_columns` has found to be well formed.

    Raises:
      UserError: A number is out of its range, two keys contradict each other, or a field has one
        that uses the ids of another field.
    """
    default = _number(path, "min_count", values.get("min_count"), 1) or 1
    rules = {}
    for key in _FIELDS:
        for entry in _entries(values.get(key)):
            name = entry["name"]
            rule = _rule(path, f"{key}: {name}", entry, default)
            if rule != IdRule():
                rules[name] = rule
    return rules


def _rule(path: Path, where: str, entry: Mapping[str, Any], default: int) -> IdRule:
    given = [key for key in RULE_KEYS if entry.get(key) is not None]
    if entry.get("shares") is not None:
        if given:
            raise UserError(
                f"{path}: {where}: {given[0]}: it uses the ids of {entry['shares']!r}; say it there"
            )
        return IdRule()
    if len(given) > 1:
        raise UserError(
            f"{path}: {where}: has both hash_buckets and min_count, and hashes have no vocabulary "
            "that a rare value could be left out of; leave one of them out"
        )
    buckets = _number(path, f"{where}: hash_buckets", entry.get("hash_buckets"), 2)
    if buckets is not None:
        return IdRule(hash_buckets=buckets)
    count = _number(path, f"{where}: min_count", entry.get("min_count"), 1)
    return IdRule(min_count=count or default)


def _entries(values: Any) -> Collection[Mapping[str, Any]]:
    listed: Sequence[Any] = values if isinstance(values, list) else [values] if values else []
    return [entry if isinstance(entry, Mapping) else {"name": entry} for entry in listed]


def _number(path: Path, where: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise UserError(
            f"{path}: {where}: {value!r} is not a whole number from {least} to {_MOST:,}"
        )
    return value
