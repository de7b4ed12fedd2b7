"""Scores a trained model over a grid of preferences and writes the front.

    python evaluate.py --workdir runs/synthetic --split test --grid 25
    python evaluate.py --workdir runs/synthetic --preferences "0.3,0.7;0.5,0.5"

Writes `<workdir>/evaluation/<split>/front.json`, `front.csv`, `front.png`
and `report.html`.
"""

import dataclasses
from pathlib import Path

from absl import flags

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import distributed

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
    "resamples",
    200,
    "Bootstrap resamples, at least 2, that tell a difference from noise; 0: none.",
    lower_bound=0,
)
_RANKING = flags.DEFINE_enum(
    "ranking",
    None,
    ["weights", "learned"],
    "Also rank each search (the data's group column) by one score for all tasks: NDCG@10, MAP and "
    "grouped AUC a task, in ranking.csv. weights: the preference's over calibrated log-odds; "
    "learned: a head that the preference generates, fitted on the validation rows, in fusion.npz.",
)
_AGAINST = flags.DEFINE_list(
    "against",
    [],
    "Workdirs of other runs on the same data, commas between, such as a single-task model or one "
    "model a compromise: what this model loses to them at its ends, how much of the way between "
    "theirs it covers.",
)
_STORE = flags.DEFINE_string("store", None, "Data, if it has moved since training.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder; default <workdir>/evaluation/<split>.")
distributed.define_flags()


def main() -> int:
    if _WORKDIR.value is None:
        raise UserError("--workdir is missing: the folder that train.py wrote")
    if _RESAMPLES.value == 1:
        raise UserError("--resamples=1: a deviation needs at least 2; 0 leaves the bootstrap out")
    workdir = Path(_WORKDIR.value)
    with distributed.joined(distributed.cluster_from_flags()):
        _evaluate(workdir)
    return 0


def _evaluate(workdir: Path) -> None:
    # Here and not at the top: --help and a bad flag answer before JAX is loaded.
    from hyperrec_jax.evaluation import comparison
    from hyperrec_jax.evaluation import front as evaluation
    from hyperrec_jax.evaluation.scoring import Scores
    from hyperrec_jax.parallel import processes
    from hyperrec_jax.preference import sampling as preferences
    from hyperrec_jax.reports import page as html_report
    from hyperrec_jax.reports import tables as report
    from hyperrec_jax.training import trained as trained_models
    from hyperrec_jax.training import workdir as workdirs

    trained = trained_models.load_trained(workdir)
    rays = (
        preferences.parse_preferences(_PREFERENCES.value, trained.schema.num_tasks)
        if _PREFERENCES.value
        else _GRID.value
    )
    store = workdirs.open_store(trained.config, _STORE.value)

    if _RANKING.value:
        trained.check_ranking(store)

    def score(run: trained_models.Trained) -> tuple[evaluation.Front, Scores]:
        return run.score(
            store,
            _SPLIT.value,
            rays,
            resamples=_RESAMPLES.value,
            progress=processes.is_first(),
        )

    front, scores = score(trained)
    others = {path: score(trained_models.load_trained(Path(path)))[0] for path in _AGAINST.value}
    against = comparison.compare(front, others) if others else None
    split = store.split(_SPLIT.value)
    trained = dataclasses.replace(trained, variables=processes.local(trained.variables))
    output = Path(_OUTPUT.value or workdir / "evaluation" / _SPLIT.value)
    ranking = fused = None
    if _RANKING.value:
        if _RANKING.value == "learned":
            fused = trained.fit_fusion(store, front.preferences)
        ranking = trained.list_front(store, scores, _SPLIT.value, front.preferences, fused)

    def write() -> None:
        details = html_report.details(workdir, trained, split, scores, front, against)
        report.write(front, output, details, ranking, fused)
        print(report.front_summary(front))
        if against:
            print(report.comparison_summary(against))
        if ranking:
            print(report.ranking_summary(front, ranking))
        print(f"written to {output}/")

    processes.on_first(write)


if __name__ == "__main__":
    cli.run_absl(main)
