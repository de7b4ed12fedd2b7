"""Scores a trained model over a grid of preferences and writes the front.

    hyperrec evaluate --workdir runs/synthetic --split test --grid 25
    hyperrec evaluate --workdir runs/synthetic --preferences "0.3,0.7;0.5,0.5"
    hyperrec evaluate --workdir runs/shop --data logs/2026-03.csv

Writes `<workdir>/evaluation/<split>/front.json`, `front.csv`, `front.png`
and `report.html`; where the data has groups, also `lists.csv`, and lists come first. Rows of
`--data` are read with the model's own vocabulary and scaling, and written to
`<workdir>/evaluation/fresh_<name of the file>`.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import distributed

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no trained model, or a preference, split or folder is not as it should be.
    """
    values = flags.FlagValues()
    _define_flags(values)
    overrides = cli.parse_flags(values, argv, __doc__)
    if overrides:
        raise UserError(f"--config.{next(iter(overrides))}: a trained model keeps its config")
    if values.workdir is None:
        raise UserError("--workdir is missing: the folder that `hyperrec train` wrote")
    if values.data and (values.store or values["split"].present):
        raise UserError(
            "--data: all its rows are scored; leave --store and --split out, which are about the "
            "data of the training"
        )
    if values.data and values.ranking and {"learned", "all"} & set(values.ranking):
        raise UserError(
            f"--ranking {','.join(values.ranking)}: the learned score is fitted on validation "
            "rows, which a fresh log does not have; name others, such as expected_gain"
        )
    if values.resamples == 1:
        raise UserError("--resamples=1: a deviation needs at least 2; 0 leaves the bootstrap out")
    cluster = distributed.cluster_from_flags(values)
    with distributed.joined(cluster), contextlib.ExitStack() as held:
        _evaluate(values, Path(values.workdir), held)
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, as given to `hyperrec train`.", flag_values=values
    )
    flags.DEFINE_enum(
        "split", "test", ["train", "validation", "test"], "Rows to score.", flag_values=values
    )
    flags.DEFINE_integer(
        "grid", 25, "Preferences of the standard grid.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string(
        "preferences",
        None,
        "Preferences of your own in place of the grid: '0.3,0.7;0.5,0.5', or a CSV file with one a "
        "line. A preference has a weight for each goal; it is normalised to sum 1.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "resamples",
        200,
        "Bootstrap resamples, at least 2, that tell a difference from noise; 0: none.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_list(
        "ranking",
        None,
        "How rows are scored for lists (the data's group column), commas between: expected_gain, "
        "log_odds, product, marginal_gain (where variety is a goal), learned (a head that the "
        "preference generates, fitted on the validation rows, in fusion.npz), all of them by "
        "`all`, or `none`. The first is shown first; lists.csv has all. Default where the data has "
        "groups: marginal_gain where variety is a goal, else expected_gain.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "importance",
        0,
        "Rows on which each field is shuffled in turn, to tell what each goal loses without it; "
        "10000 are usually enough. 0: none.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_list(
        "against",
        [],
        "Workdirs of other runs on the same data, commas between, such as a single-task model or "
        "one model for each compromise: what this model loses to them at its ends, how much of the "
        "way between theirs it covers.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data",
        None,
        "A fresh labelled log in place of a split: a .csv, .csv.gz or .parquet file whose columns "
        "have the names of the model's fields and goals, or a description of files as for "
        "`hyperrec prepare csv`. All its rows are scored.",
        flag_values=values,
    )
    flags.DEFINE_string("store", None, "Data, if it has moved since training.", flag_values=values)
    flags.DEFINE_string(
        "output",
        None,
        "Folder; default <workdir>/evaluation/<split>, of --data "
        "<workdir>/evaluation/fresh_<name of the file>.",
        flag_values=values,
    )
    distributed.define_flags(values)


def _evaluate(values: Any, workdir: Path, held: contextlib.ExitStack) -> None:
    """Scores the rows and writes what comes of it; `held` is closed at the end."""
    # Here and not at the top: --help and a bad flag answer before JAX is loaded.
    from hyperrec_jax.data.checks import unseen_shares, unseen_warnings
    from hyperrec_jax.data.fresh import fresh_source
    from hyperrec_jax.evaluation import comparison
    from hyperrec_jax.evaluation import front as evaluation
    from hyperrec_jax.evaluation.outputs import Scores
    from hyperrec_jax.parallel import processes
    from hyperrec_jax.preference import grid
    from hyperrec_jax.reports import results, tables
    from hyperrec_jax.reports.details import details as report_details
    from hyperrec_jax.reports.summary import front_summary, wrapped
    from hyperrec_jax.training import trained as trained_models
    from hyperrec_jax.training import workdir as workdirs
    from hyperrec_jax.training.fit_scorer import describe_choice
    from hyperrec_jax.training.fresh import fresh_store
    from hyperrec_jax.training.importance import importance_of

    cli.import_parts(values)
    trained = trained_models.load_trained(workdir)
    preferences = (
        grid.parse_preferences(values.preferences, trained.schema.num_tasks)
        if values.preferences
        else values.grid
    )
    name = values.split
    if values.data:
        data = Path(values.data)
        source = fresh_source(data, trained.schema)
        store = held.enter_context(fresh_store(workdir, lambda _: source))
        name = f"fresh_{data.name.partition('.')[0]}"
    else:
        store = workdirs.open_store(trained.config, values.store)

    fusions = _fusions(values.ranking, trained.schema)
    if fusions != [] and not _has_lists(trained, store, values.ranking):
        fusions = []
    scorer = (
        _scorer(trained, None if values.data else store, values.ranking) if fusions != [] else None
    )

    def score(run: trained_models.Trained) -> tuple[evaluation.Front, Scores]:
        return run.score(
            store,
            values.split,
            preferences,
            resamples=values.resamples,
            progress=processes.is_first(),
        )

    front, scores = score(trained)
    fused = None
    if scorer is not None:
        # Lists have preferences, also those of a model that takes none.
        asked = preferences
        if isinstance(asked, int):
            asked = grid.evaluation_grid(trained.schema.num_tasks, asked)
        lists, fused = trained.lists(
            store,
            scores,
            values.split,
            asked,
            fusions,
            resamples=values.resamples,
            scorer=scorer,
            keep_scores=processes.is_first(),
        )
        front = dataclasses.replace(front, lists=lists)
    others = {path: score(trained_models.load_trained(Path(path)))[0] for path in values.against}
    against = comparison.compare(front, others) if others else None
    split = store.split(values.split)
    trained = dataclasses.replace(trained, variables=processes.local(trained.variables))
    output = Path(values.output or workdir / "evaluation" / name)
    if values.data:
        front = dataclasses.replace(front, split=name)

    def write() -> None:
        details = report_details(workdir, trained, split, scores, front, against)
        if values.importance:
            found = importance_of(trained, store, values.split, rows=values.importance)
            details = dataclasses.replace(details, importance=found)
        results.write(front, output, details, fused)
        results.show(front, output, trained)
        if front.lists and scorer:
            print(wrapped(describe_choice(scorer)))
        print(front_summary(front))
        if details.importance:
            told = ", ".join(details.importance.most_read())
            print(wrapped(f"fields by what goals lose without them: {told}; see importance.csv"))
        print(wrapped(unseen_shares(trained.schema, split, name)))
        for line in unseen_warnings(trained.schema, split.unseen, len(split), values.data or name):
            logger.warning("%s", line)
        if against:
            print("\n".join(map(wrapped, tables.comparison_summary(against).splitlines())))
        print(f"written to {output}/")

    processes.on_first(write)


def _has_lists(trained: Any, store: Any, asked: list[str] | None) -> bool:
    """Whether lists can be made of the rows; where they were asked for by name they must."""
    try:
        trained.check_groups(store)
    except UserError as error:
        if asked is not None:
            raise
        logger.warning("no lists: %s", error)
        return False
    return True


def _scorer(trained: Any, store: Any, asked: list[str] | None) -> Any:
    """The list scorer; None, and a line in the log, where lists were not asked for by name and
    the data does not allow for them."""
    try:
        return trained.list_scorer(store)
    except UserError as error:
        if asked is not None:
            raise
        logger.warning("no lists: %s", error)
        return None


def _fusions(asked: list[str] | None, schema: Any) -> list[str] | None:
    """The fusions that `--ranking` names, none for no lists; None for that of the model.

    Raises:
      UserError: there is no such fusion.
    """
    from hyperrec_jax.evaluation.list_scorer import FUSIONS
    from hyperrec_jax.evaluation.marginal_gain import MARGINAL_GAIN, list_fusion

    if asked is None:
        return None if schema.group else []
    if asked == ["none"]:
        return []
    for name in asked:
        if name == MARGINAL_GAIN:
            list_fusion(schema, None, name)
        elif name not in (*FUSIONS, "learned", "all"):
            renamed = "; what it named is log_odds now" if name == "weights" else ""
            raise UserError(
                f"--ranking {name}: there are {', '.join(FUSIONS)}, learned, all and none{renamed}"
            )
    return asked
