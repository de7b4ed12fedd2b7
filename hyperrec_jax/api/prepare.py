"""From a frame to a store."""

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.data.files import explain_write_errors, written_whole
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.description import parse_description
from hyperrec_jax.data.sources.frame import frame_source, write_frame
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.sanity import suspicions
from hyperrec_jax.serving.raw_rows import RawRows, to_table


def prepare(
    rows: RawRows,
    folder: str | Path,
    *,
    labels: Sequence[str] = (),
    goals: Sequence[str | Mapping[str, Any]] = (),
    categorical: Sequence[str | Mapping[str, Any]] = (),
    numerical: Sequence[str] = (),
    log1p: Sequence[str] = (),
    missing: Mapping[str, float] | None = None,
    sets: Sequence[str | Mapping[str, Any]] = (),
    sequences: Sequence[str | Mapping[str, Any]] = (),
    vectors: Sequence[Mapping[str, Any]] = (),
    time: Sequence[str] = (),
    min_count: int = 1,
    group: str | None = None,
    weight: str | None = None,
    split: Mapping[str, Any] | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> Store:
    """Makes a frame into a store that `fit` reads.

    Args:
      rows: A pandas or Polars frame, an Arrow table, or a list with one dictionary for each row.
        The columns that are used are also kept in the folder, as Parquet.
      folder: A new folder, or one that an earlier call wrote.
      labels: Columns of 0 and 1, of true and false, or of yes and no, one for each goal.
      goals: In place of labels, where they are more than that or may be missing: for each goal its
        name, or a dictionary such as `{"name": "watch_time", "kind": "value", "where": "click"}`;
        see docs/goals.md.
      categorical: Columns of ids: text, integers, booleans, dates (see `hyperrec_jax.data.text`);
        or a dictionary such as `{"name": "last_item", "shares": "item_id"}`,
        `{"name": "item_id", "min_count": 10}` or `{"name": "user_id", "hash_buckets": 100_000}`.
      numerical: Columns of numbers; standardised on the training rows.
      log1p: Those of them of which `log(1 + x)` is taken first.
      missing: The number that stands for a missing one, by column; elsewhere it is an error.
      sets: Columns of several ids in a row, as lists or as text with a separator: names, or
        dictionaries such as `{"name": "tags", "separator": "|", "pooling": "attention"}`; see
        docs/data.md.
      sequences: Columns of histories, newest last, such as
        `{"name": "history", "shares": "item_id", "max_length": 50}`.
      vectors: Columns of several numbers in a row, such as `{"name": "picture", "size": 64}`.
      time: Columns of times, as ISO text, seconds or milliseconds since 1970, or time stamps. Each
        becomes the hour and the day of the week in UTC, and the age in days.
      min_count: Values of a field of ids that come fewer times in the training rows share the id of
        unknown values; the `min_count` of a field comes first.
      group: Column of the list that a row belongs to, such as a search; a group stays whole.
      weight: Column that says how much a row counts, numbers of at least 0.
      split: How to split by time, such as `{"by": "time", "column": "ts", "test": "7d",
        "validation": "7d"}`: the newest rows are the test. Durations, shares or dates.
      validation_fraction: Share of the groups (rows without any) that selects the model, in (0, 1);
        where `split` does not say how much.
      test_fraction: Share that is kept for the test, in (0, 1); where `split` does not say.

    Warns:
      UserWarning: Many values of a field are in no training row; a column tells a label, or has one
        value only; a goal has too few positives; a split is empty; goals are a funnel in another
        order.

    Raises:
      UserError: a column is missing or a value is not as its column needs it; the folder stays as
        it was.
    """
    folder = Path(folder)
    missing = missing or {}
    for key, names in (("log1p", log1p), ("missing", missing)):
        unknown = [name for name in names if name not in numerical]
        if unknown:
            raise UserError(f"{key}: {unknown[0]!r} is not among the numerical columns")
    values: dict[str, Any] = {
        "name": folder.name,
        "files": {"train": "rows.parquet"},
        "categorical": _entries(categorical),
        "numerical": [
            {"name": name, "log1p": name in log1p, "missing": missing.get(name)}
            for name in numerical
        ],
        "labels": list(labels),
        "group": group,
    }
    if goals:
        values["goals"] = _entries(goals)
    for key, entries in (("sets", sets), ("sequences", sequences), ("vectors", vectors)):
        if entries:
            values[key] = _entries(entries)
    if time:
        values["time"] = [time] if isinstance(time, str) else list(time)
    if min_count != 1:
        values["min_count"] = min_count
    if weight is not None:
        values["weight"] = weight
    if split is not None:
        values["split"] = dict(split)
    if not (split and split.get("test")):
        values["test_fraction"] = test_fraction
    path = folder / "description.json"
    description = parse_description(path, values)
    table = to_table(rows)
    # Nothing takes its name, and no folder stays, before the store is made.
    with _new_folder(folder), explain_write_errors(folder), contextlib.ExitStack() as files:
        text = files.enter_context(written_whole(path))
        text.write(json.dumps(values, indent=1, default=str).encode())
        kept = files.enter_context(written_whole(folder / "rows.parquet"))
        identity = write_frame(table, description, kept)
        source = frame_source(description, Path(kept.name), identity)
        store = prepare_store(source, folder / "store", validation_fraction)
    for line in suspicions(store):
        warnings.warn(line, stacklevel=2)
    return store


def _entries(columns: Sequence[Any]) -> list[Any]:
    return [dict(column) if isinstance(column, Mapping) else column for column in columns]


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and removes it again where it is of no use after an error."""
    new = not folder.exists()
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except UserError:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
