"""Scores a trained model over a grid of preferences and writes the front.

    python evaluate.py --workdir runs/synthetic --split test --grid 25
    python evaluate.py --workdir runs/synthetic --preferences "0.3,0.7;0.5,0.5"

Writes `<workdir>/evaluation/<split>/front.json`, `front.csv`, `front.png`
and `report.html`.
"""

from pathlib import Path

from absl import flags

from hyperrec_jax import cli
from hyperrec_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, as given to train.py.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Rows to score.")
_GRID = flags.DEFINE_integer("grid", 25, "Preferences of the standard grid.", lower_bound=1)
_PREFERENCES = flags.DEFINE_string(
    "preferences",
    None,
    "Preferences of your own in place of the grid: '0.3,0.7;0.5,0.5', or a CSV file with one a "
    "line. A preference has a weight for each task; it is normalised to sum 1.",
)
_RESAMPLES = flags.DEFINE_integer(
    "resamples", 200, "Bootstrap resamples of the report's intervals; 0: none.", lower_bound=0
)
_STORE = flags.DEFINE_string("store", None, "Data, if it has moved since training.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder; default <workdir>/evaluation/<split>.")


def main() -> int:
    if _WORKDIR.value is None:
        raise UserError("--workdir is missing: the folder that train.py wrote")
    workdir = Path(_WORKDIR.value)
    # Here and not at the top: --help and a bad flag answer before JAX is loaded.
    from hyperrec_jax import experiment, html_report, preferences, report
    from hyperrec_jax.data.store import Store

    cli.use_compilation_cache()
    trained = experiment.load(workdir)
    rays = (
        preferences.parse_preferences(_PREFERENCES.value, trained.schema.num_tasks)
        if _PREFERENCES.value
        else _GRID.value
    )
    store = Store.open(Path(_STORE.value or trained.config["data"]["store"]))
    front, scores = trained.score(store, _SPLIT.value, rays, progress=True)
    split = store.split(_SPLIT.value)
    details = html_report.details(
        workdir, trained, split, scores, front, resamples=_RESAMPLES.value
    )
    output = Path(_OUTPUT.value or workdir / "evaluation" / _SPLIT.value)
    report.write(front, output, details)
    print(report.front_summary(front))
    print(f"written to {output}/")
    return 0


if __name__ == "__main__":
    cli.run_absl(main)
