"""What a run writes down: `metrics.jsonl` for machines, TensorBoard for eyes."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from hyperrec_jax.data.files import written_whole
from hyperrec_jax.errors import UserError


class MetricsLog:
    """Appends records to a run's log; only process 0 writes."""

    def __init__(self, workdir: Path, step: int) -> None:
        """Opens the log at a step.

        Args:
          workdir: The run's folder.
          step: Step that the run goes on from. Records after it were written by a run that was
            stopped before it could save; they are dropped, since they will be written again.
        """
        self._path = workdir / "metrics.jsonl"
        self._events: _Events | None = None
        if jax.process_index() != 0:
            return
        kept = [json.dumps(record) for record in read_metrics(workdir) if record["step"] <= step]
        with written_whole(self._path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())
        self._events = _Events(workdir / "tensorboard", step)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Writes one record `{"step": ..., "kind": ..., name: value, ...}`.

        Args:
          step: Steps trained so far.
          kind: `train` or `validation`.
          values: Scalars by name; NaN is written as null.
        """
        if self._events is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        self._events.write(step, {f"{kind}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch, which takes seconds to import: tensorboardX imports it wherever it is
    installed, and does without where it is not."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


class _Events:
    """A TensorBoard file, written at once.

    tensorboardX's own `SummaryWriter` has a thread for it, and waits for ever on a full disk.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # Here and not at the top: slow to import, and only one process needs it.
        with _without_torch():
            from tensorboardX import event_file_writer, proto, summary

        self._event, self._scalar = proto.event_pb2.Event, summary.scalar
        folder.mkdir(exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        # Tells TensorBoard to hide what an earlier file has of later steps.
        started = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
        self._add(step + 1, session_log=started)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):  # TensorBoard draws no other, and its writer logs a warning
                self._add(step, summary=self._scalar(name, value))
        self._writer.flush()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        self._writer.close()


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
