"""Writes what an evaluation gives: the front as JSON, CSV, picture and page, and its lists; and
shows it where the run is shown."""

import logging
from pathlib import Path

from hyperrec_jax.data import files
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.fusion import Fusion
from hyperrec_jax.reports import page
from hyperrec_jax.reports.details import Details
from hyperrec_jax.reports.plots import plot
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.trackers.base import finite, opened
from hyperrec_jax.training.trained import Trained

logger = logging.getLogger(__name__)

FILES = (
    "front.json",
    "front.csv",
    "front.png",
    "report.html",
    "lists.csv",
    "fusion.npz",
    "importance.csv",
)
OLD_FILES = ("ranking.csv",)
"""What an evaluation may write; and what those of earlier releases wrote, which is removed."""


def write(
    front: Front,
    folder: Path,
    details: Details,
    fused: Fusion | None = None,
) -> None:
    """Writes `front.json`, `front.csv`, `front.png` and `report.html`, together.

    Where the front has lists, `lists.csv` has their metrics by preference and fusion; where fields
    were shuffled, `importance.csv` has what each goal lost.

    Whoever is stopped meanwhile leaves no new front beside an old report. Those of `FILES` that an
    earlier evaluation wrote are removed.

    Args:
      front: Metrics under each preference.
      folder: Where to.
      details: What the report shows beside the front.
      fused: What the lists were scored by, for `fusion.npz`; None leaves it out.

    Raises:
      UserError: the folder can't be written.
    """
    with files.written_together(folder, FILES + OLD_FILES) as temporary:
        against = {"against": details.comparison.to_dict()} if details.comparison else {}
        workdirs.write_json(temporary / "front.json", front.to_dict() | against)
        (temporary / "front.csv").write_text(front.to_csv(), "utf-8")
        plot(front, temporary / "front.png")
        (temporary / "report.html").write_text(page.render(front, details), "utf-8")
        if front.lists:
            (temporary / "lists.csv").write_text(front.lists.to_csv(), "utf-8")
        if details.importance:
            (temporary / "importance.csv").write_text(details.importance.to_csv(), "utf-8")
        if fused:
            fused.save(temporary / "fusion.npz")


def show(front: Front, folder: Path, trained: Trained) -> None:
    """Shows a front at the trackers of its run: best values, the picture, the tables.

    A tracker that can't be reached is told, and changes nothing of what was written.

    Args:
      front: Metrics under each preference.
      folder: Where `write` wrote it.
      trained: The run.
    """
    names = trained.config["train"]["trackers"]
    step = trained.progress.best_step or 0
    values = {"hypervolume": front.hypervolume} | front.best()
    try:
        with opened(names, trained.folder, trained.config, step) as trackers:
            for tracker in trackers:
                tracker.scalars(step, front.split, finite(values))
                for name in ("front.png", "front.json", "front.csv", "lists.csv"):
                    if (folder / name).exists():
                        tracker.file(step, front.split, folder / name)
    except UserError as error:
        logger.warning("%s", error)
