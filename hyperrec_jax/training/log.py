"""What a run writes down: `metrics.jsonl` for machines, trackers for eyes."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from hyperrec_jax.data.files import written_whole
from hyperrec_jax.errors import UserError
from hyperrec_jax.training.trackers.base import Tracker, finite


class MetricsLog:
    """Appends records to a run's log; only process 0 writes."""

    def __init__(self, workdir: Path, step: int, trackers: Sequence[Tracker] = ()) -> None:
        """Opens the log at a step.

        Args:
          workdir: The run's folder.
          step: Step that the run goes on from. Records after it were written by a run that was
            stopped before it could save; they are dropped, since they will be written again.
          trackers: What is shown the records, too; the log closes them.
        """
        self._path = workdir / "metrics.jsonl"
        self._trackers = trackers
        if jax.process_index() != 0:
            return
        kept = [json.dumps(record) for record in read_metrics(workdir) if record["step"] <= step]
        with written_whole(self._path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Writes one record `{"step": ..., "kind": ..., name: value, ...}`.

        Args:
          step: Steps trained so far.
          kind: `train` or `validation`.
          values: Scalars by name; NaN is written as null.
        """
        if jax.process_index() != 0:
            return
        record = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **record}) + "\n")
        for tracker in self._trackers:
            tracker.scalars(step, kind, finite(values))

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run's `metrics.jsonl`; a last line that a kill cut short is left out.

    Raises:
      UserError: another line is no record.
    """
    path = workdir / "metrics.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    records = [_parse(line) for line in lines[:-1]]  # what follows the last newline is cut short
    if None in records:
        raise UserError(
            f"{path}: line {records.index(None) + 1} is no record of a step; the file was damaged "
            "or changed by hand: delete the line"
        )
    return [record for record in records if record is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("kind"), str)
    return record if is_record and isinstance(record.get("step"), int) else None
