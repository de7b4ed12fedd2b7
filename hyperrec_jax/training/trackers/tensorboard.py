"""TensorBoard: event files in the run's folder, one run for each kind of rows."""

import contextlib
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperrec_jax.training.trackers.base import TRACKERS


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Event files `<workdir>/tensorboard/<kind>/events...`, so that the curves of `train` and
    `validation` lie over each other.

    tensorboardX's own `SummaryWriter` has a thread for it, and waits for ever on a full disk.
    """

    def __init__(self, workdir: Path, config: dict[str, Any], step: int) -> None:
        # Here and not at the top: slow to import, and only one process needs it.
        with _without_torch():
            from tensorboardX import event_file_writer, proto, summary

        self._open, self._proto = event_file_writer.EventsWriter, proto
        self._scalar = summary.scalar
        self._folder, self._step = workdir / "tensorboard", step
        self._writers: dict[str, Any] = {}

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._add(step, kind, summary=self._scalar(name, value))
        self._writers[kind].flush()

    def file(self, step: int, kind: str, path: Path) -> None:
        if path.suffix != ".png":
            return  # tables are beside the event files anyway
        image = path.read_bytes()
        width, height = struct.unpack(">II", image[16:24])  # of the header chunk
        summary = self._proto.summary_pb2.Summary
        value = summary.Image(width=width, height=height, colorspace=4, encoded_image_string=image)
        self._add(step, kind, summary=summary(value=[summary.Value(tag=path.stem, image=value)]))
        self._writers[kind].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _add(self, step: int, kind: str, **content: Any) -> None:
        if kind not in self._writers:
            folder = self._folder / kind
            folder.mkdir(parents=True, exist_ok=True)
            self._writers[kind] = self._open(str(folder / "events"))
            # Tells TensorBoard to hide what an earlier file has of later steps.
            session = self._proto.event_pb2.SessionLog
            self._add(self._step + 1, kind, session_log=session(status=session.START))
        event = self._proto.event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._writers[kind].write_event(event)


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
