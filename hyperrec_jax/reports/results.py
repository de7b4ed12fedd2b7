"""Writes what an evaluation gives: the front as JSON, CSV, picture and page, and its lists."""

from pathlib import Path

from hyperrec_jax.data import files
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.fusion import Fusion
from hyperrec_jax.evaluation.lists import RankingFront
from hyperrec_jax.reports import page
from hyperrec_jax.reports.details import Details
from hyperrec_jax.reports.plots import plot
from hyperrec_jax.reports.tables import ranking_records
from hyperrec_jax.training import workdir as workdirs

FILES = ("front.json", "front.csv", "front.png", "report.html", "ranking.csv", "fusion.npz")
"""What an evaluation may write."""


def write(
    front: Front,
    folder: Path,
    details: Details,
    ranking: RankingFront | None = None,
    fused: Fusion | None = None,
) -> None:
    """Writes `front.json`, `front.csv`, `front.png` and `report.html`, together.

    Whoever is stopped meanwhile leaves no new front beside an old report. Those of `FILES` that an
    earlier evaluation wrote are removed.

    Args:
      front: Metrics under each preference.
      folder: Where to.
      details: What the report shows beside the front.
      ranking: Metrics of the lists, for `ranking.csv`; None leaves it out.
      fused: What the lists were scored by, for `fusion.npz`; None leaves it out.

    Raises:
      UserError: the folder can't be written.
    """
    with files.written_together(folder, FILES) as temporary:
        against = {"against": details.comparison.to_dict()} if details.comparison else {}
        workdirs.write_json(temporary / "front.json", front.to_dict() | against)
        (temporary / "front.csv").write_text(front.to_csv(), "utf-8")
        plot(front, temporary / "front.png")
        (temporary / "report.html").write_text(page.render(front, details), "utf-8")
        if ranking:
            records = ranking_records(front, ranking)
            lines = [",".join(records[0]), *(",".join(map(str, row.values())) for row in records)]
            (temporary / "ranking.csv").write_text("\n".join(lines) + "\n", "utf-8")
        if fused:
            fused.save(temporary / "fusion.npz")
