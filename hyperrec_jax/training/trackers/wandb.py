"""Weights & Biases: a run of a project."""

import os
import uuid
from pathlib import Path
from typing import Any, ClassVar

from hyperrec_jax.training.trackers.base import TRACKERS, kept_name


@TRACKERS.register("wandb")
class Wandb:
    """A run with the config, metrics by step, and the files of evaluations.

    Its own variables of the environment say where: `WANDB_PROJECT` (default hyperrec_jax),
    `WANDB_ENTITY`, `WANDB_MODE=offline`.
    """

    extra: ClassVar[str] = "wandb"

    def __init__(self, workdir: Path, config: dict[str, Any], step: int) -> None:
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "hyperrec_jax"),
            id=kept_name(workdir, "wandb", lambda: uuid.uuid4().hex),
            name=workdir.resolve().name,
            dir=str(workdir),
            config=config,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        # Steps as a value of their own: a run that goes on repeats steps, which W&B's must not.
        self._run.log({f"{kind}/{name}": value for name, value in values.items()} | {"step": step})

    def file(self, step: int, kind: str, path: Path) -> None:
        if path.suffix == ".png":
            self._run.log({f"{kind}/{path.stem}": self._image(str(path)), "step": step})
        else:
            self._run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self) -> None:
        self._run.finish()
