"""Splits by time: the newest rows are the test, those before them validation, the rest training.

A group is as old as its newest row, so that it stays whole and training rows know of nothing that
came after the first test row's group.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hyperrec_jax.data.times import UNITS, iso_time
from hyperrec_jax.errors import UserError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)")
_BINS = 4096

TimesAndGroups = tuple[np.ndarray, np.ndarray | None]
"""Times of some rows `[row]`, and their groups `[row]` or None without groups."""

Extent = tuple[str, float]
"""`("share", .1)`, `("duration", microseconds)` or `("since", microseconds since 1970)`."""


@dataclass(frozen=True)
class TimeSplit:
    """How a log is split by time.

    Attributes:
      column: The column of times.
      unit: Unit of times that are numbers, of `times.UNITS`; None tells it from their size.
      test: How much of the newest rows is the test split; None where it is not set aside.
      validation: As `test`, of the rows before; None leaves it to the validation fraction.
    """

    column: str
    unit: str | None = None
    test: Extent | None = None
    validation: Extent | None = None

    @classmethod
    def parse(cls, values: Any, where: str) -> "TimeSplit":
        """Reads the key `split` of a description.

        Args:
          values: Such as `{by: time, column: ts, test: 7d, validation: 7d}`; each extent is a
            duration, a share of the rows, or the date that the split begins at.
          where: Where it stands, for messages.

        Raises:
          UserError: It is malformed.
        """
        example = "write {by: time, column: ts, test: 7d, validation: 7d}"
        if not isinstance(values, Mapping) or values.get("by") != "time":
            raise UserError(f"{where}: {example}; splits by groups or files need no key split")
        known = ("by", "column", "unit", "test", "validation")
        for key in values:
            if key not in known:
                raise UserError(f"{where}: unknown key {key!r}; there are {', '.join(known)}")
        column, unit = values.get("column"), values.get("unit")
        if not isinstance(column, str) or not column:
            raise UserError(f"{where}: column: {column!r} is not a name; {example}")
        if unit is not None and unit not in UNITS:
            raise UserError(f"{where}: unit: {unit!r}; there are {', '.join(UNITS)}")
        test, validation = (
            None if values.get(key) is None else _extent(values[key], f"{where}: {key}")
            for key in ("test", "validation")
        )
        if test and validation and (test[0] == validation[0] == "since") and validation >= test:
            raise UserError(f"{where}: validation begins at or after test; it lies before")
        return cls(column, unit, test, validation)


def _extent(value: Any, where: str) -> Extent:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1:
        return "share", float(value)
    if isinstance(value, datetime.date):  # as YAML reads a date without quotes
        value = value.isoformat()
    if isinstance(value, str):
        if found := _DURATION.fullmatch(value.strip()):
            return "duration", float(found[1]) * UNITS[found[2]]
        try:
            return "since", float(iso_time(value))
        except ValueError:
            pass
    raise UserError(
        f"{where}: {value!r} is neither a duration such as 7d or 12h, nor a share between 0 and 1, "
        "nor a date such as 2026-01-31"
    )


class Cuts:
    """When the splits of a log begin.

    Args:
      split: What was asked for.
      wanted: Splits that are set aside: `test`, `validation` or both, with the share of the rows
        that is taken where `split` does not say how much.
      parts: Reads times and groups of the log, some rows at a time; called several times.
    """

    def __init__(
        self,
        split: TimeSplit,
        wanted: Mapping[str, float],
        parts: Callable[[], Iterable[TimesAndGroups]],
    ) -> None:
        self._newest = _newest_of_groups(parts())
        self._parts = parts
        self._begin: dict[str, int] = {}
        first, last = self._range()
        end, taken = last + 1, 0.0
        for name in ("test", "validation"):
            if name not in wanted:
                continue
            kind, extent = getattr(split, name) or ("share", wanted[name])
            if kind == "share":
                begin = self._quantile(1 - taken - extent, first, last) if extent > 0 else end
            else:
                begin = int(np.ceil(extent if kind == "since" else end - extent))
            end = self._begin[name] = min(begin, end)
            taken = 1 - self._share_before(end)

    def masks(self, times: np.ndarray, groups: np.ndarray | None) -> dict[str, np.ndarray]:
        """Which rows belong to each split that is set aside: bool `[row]`."""
        times = self._age(times, groups)
        masks, taken = {}, np.zeros(len(times), bool)
        for name, begin in self._begin.items():
            masks[name] = (times >= begin) & ~taken
            taken |= masks[name]
        return masks

    def _age(self, times: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        """The time that decides for each row: that of its group's newest row."""
        if groups is None or self._newest is None:
            return times
        names, newest = self._newest
        return newest[np.searchsorted(names, groups)]

    def _ages(self) -> Iterable[np.ndarray]:
        return (self._age(times, groups) for times, groups in self._parts())

    def _range(self) -> tuple[int, int]:
        ends = [(int(ages.min()), int(ages.max())) for ages in self._ages()]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def _share_before(self, begin: int) -> float:
        counts = [(np.count_nonzero(ages < begin), len(ages)) for ages in self._ages()]
        return sum(below for below, _ in counts) / sum(rows for _, rows in counts)

    def _quantile(self, share: float, first: int, last: int) -> int:
        """The time of the row before which at most a share of the rows lies, exactly.

        Histograms of ever narrower ranges find it, whatever the number of rows.
        """
        rows = sum(len(ages) for ages in self._ages())
        rank = min(max(int(share * rows + 1e-6), 0), rows - 1)
        low, high, below = first, last + 1, 0
        while high - low > 1:
            width = -(-(high - low) // _BINS)
            counts = np.zeros(_BINS + 1, np.int64)
            for ages in self._ages():
                inside = ages[(ages >= low) & (ages < high)]
                counts[: _BINS + 1] += np.bincount((inside - low) // width, minlength=_BINS + 1)
            place = int(np.searchsorted(below + np.cumsum(counts), rank, side="right"))
            below += int(counts[:place].sum())
            low, high = low + place * width, min(low + (place + 1) * width, high)
        return low


def _newest_of_groups(
    chunks: Iterable[TimesAndGroups],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Groups, sorted, and the time of the newest row of each; None without groups."""
    merged: pl.DataFrame | None = None
    pending: list[pl.DataFrame] = []
    for times, groups in chunks:
        if groups is None:
            return None
        pending.append(_newest(pl.DataFrame({"group": groups, "time": times})))
        if sum(map(len, pending)) > max(1 << 16, 0 if merged is None else len(merged)):
            merged, pending = _newest(pl.concat([*_some(merged), *pending])), []
    whole = _newest(pl.concat([*_some(merged), *pending])).sort("group")
    return whole["group"].to_numpy(), whole["time"].to_numpy()


def _newest(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by("group").agg(pl.col("time").max())


def _some(frame: pl.DataFrame | None) -> list[pl.DataFrame]:
    return [] if frame is None else [frame]
