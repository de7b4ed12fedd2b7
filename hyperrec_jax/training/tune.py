"""Searches options by Optuna: ranges, a study, and its best trials."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import TrainingError, UserError, needs_extra
from hyperrec_jax.evaluation.selection import Selection

DEFAULT_RANGES = (
    "optimizer.learning_rate=1e-4:1e-2:log",
    "optimizer.l2=1e-8:1e-4:log",
    "model.dropout=0.0:0.5",
)


_STUDY = "study"


@dataclasses.dataclass(frozen=True)
class Range:
    """Values of one option: `choices`, or the numbers from `low` to `high`."""

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> "Range":
        """Reads `NAME=LOW:HIGH[:log]` or `NAME=A,B,...`.

        Raises:
          UserError: the text is neither.
        """
        name, _, values = text.partition("=")
        if name and "," in values:
            return cls(name, tuple(values.split(",")))
        low, _, rest = values.partition(":")
        high, _, scale = rest.partition(":")
        try:
            ends = [int(end) if end.strip().isdigit() else float(end) for end in (low, high)]
        except ValueError:
            ends = []
        if not name or not ends or scale not in ("", "log") or not _ordered(ends, bool(scale)):
            raise UserError(
                f"--range {text}: write NAME=LOW:HIGH, NAME=LOW:HIGH:log (LOW above 0) or NAME=A,B"
            )
        return cls(name, (), ends[0], ends[1], bool(scale))

    def suggest(self, trial: Any) -> Any:
        """The value of a trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        suggest = trial.suggest_int if whole else trial.suggest_float
        return suggest(self.name, self.low, self.high, log=self.log)

    def ends(self) -> tuple[Any, Any]:
        """The first and the last value."""
        return (self.choices[0], self.choices[-1]) if self.choices else (self.low, self.high)


def _ordered(ends: Sequence[float], log: bool) -> bool:
    low, high = ends
    return math.isfinite(low) and math.isfinite(high) and low <= high and (low > 0 or not log)


def tune(
    config: Mapping[str, Any],
    folder: Path,
    ranges: Sequence[Range],
    trials: int,
    metrics: Sequence[str] = ("hypervolume",),
) -> Any:
    """Runs a study, or goes on with it.

    Args:
      config: What the trials start from, with the keys of `configs/base.py`.
      folder: Folder of the study.
      ranges: What to search.
      trials: Trials in all, those that are done included.
      metrics: Measures of the validation front, to maximise; see `evaluation.selection`.

    Returns:
      The `optuna.Study`.

    Raises:
      UserError: an option or a metric does not exist, a value is bad, the folder holds a study of
        other metrics, or Optuna is not installed; nothing was written then.
    """
    with needs_extra("tune"):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # errors are ours to tell
    selections = _check(config, ranges, metrics)
    log, sampler = folder / "study.log", optuna.samplers.TPESampler(seed=config["seed"])
    if log.exists():  # to load it writes nothing, unlike to create it anew
        storage = JournalStorage(JournalFileBackend(str(log)))
        study = optuna.load_study(study_name=_STUDY, storage=storage, sampler=sampler)
        judged_by = study.user_attrs.get("metrics", list(metrics))
        if judged_by != list(metrics):
            raise UserError(
                f"--study {folder} maximises {', '.join(judged_by)}; take another folder"
            )
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--study {folder}: can't be written ({error.strerror})") from error
        study = optuna.create_study(
            study_name=_STUDY,
            storage=JournalStorage(JournalFileBackend(str(log))),
            sampler=sampler,
            directions=["maximize"] * len(metrics),
        )
        study.set_user_attr("metrics", list(metrics))
    stopped = _enqueue_stopped(study)

    def finished() -> int:
        return sum(trial.state.is_finished() for trial in study.trials) - stopped

    def objective(trial: Any) -> list[float]:
        chosen = {space.name: space.suggest(trial) for space in ranges}
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in chosen.items())
        print(f"trial {finished() + 1} of {trials}: {shown}", file=sys.stderr)
        number = trial.user_attrs.get("folder", trial.number)
        return _train(config, chosen, folder / f"trial_{number:04d}", selections, trial)

    # A run that diverges says something about its options; the study goes on.
    study.optimize(objective, n_trials=max(trials - finished(), 0), catch=(TrainingError,))
    return study


def _check(
    config: Mapping[str, Any], ranges: Sequence[Range], metrics: Sequence[str]
) -> list[Selection]:
    """Refuses what the first trial would refuse, before the folder of the study is made."""
    from hyperrec_jax.config.resolve import has_lists, resolve

    store = Store.open(Path(config["data"]["store"]))
    run = resolve(dict(config), store.schema, store.split("train"))
    for place in (0, 1):
        chosen = {space.name: space.ends()[place] for space in ranges}
        try:
            resolve(overridden(config, chosen), store.schema, store.split("train"))
        except UserError as error:
            raise UserError(f"--range: {error}") from error
    goals = create_goals(store.schema)
    selections = [
        Selection.parse(text, goals, "--metrics", lists=has_lists(store.schema)) for text in metrics
    ]
    for selection in selections:
        if selection.of_lists and run.list_scales is None:
            raise UserError(
                f"--metrics {selection.text}: a trial measures its lists where train.select names "
                f"a measure of them; add --set train.select={selection.text}"
            )
    return selections


def _enqueue_stopped(study: Any) -> int:
    """Puts trials that were stopped first in the queue; returns how many ever were."""
    from optuna.trial import TrialState

    resumed = {trial.user_attrs.get("resumes") for trial in study.trials} - {None}
    for trial in study.trials:
        stopped = trial.state in (TrialState.RUNNING, TrialState.FAIL)
        if not stopped or "diverged" in trial.user_attrs or trial.number in resumed:
            continue
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        folder = trial.user_attrs.get("folder", trial.number)
        study.enqueue_trial(trial.params, {"resumes": trial.number, "folder": folder})
        resumed.add(trial.number)
    return len(resumed)


def _train(
    config: Mapping[str, Any],
    chosen: Mapping[str, Any],
    workdir: Path,
    selections: Sequence[Selection],
    trial: Any,
) -> list[float]:
    """Validation metrics of the selected state of a run with the chosen options."""
    from hyperrec_jax.training.log import read_metrics
    from hyperrec_jax.training.train import train

    merged = overridden(config, chosen)
    try:
        progress = train(merged, workdir)
    except TrainingError:
        trial.set_user_attr("diverged", True)
        raise
    (record,) = [
        record
        for record in read_metrics(workdir)
        if record["kind"] == "validation" and record["step"] == progress.best_step
    ]
    values = [selection.of(record) for selection in selections]
    for selection, value in zip(selections, values, strict=True):
        if math.isnan(value):
            raise UserError(
                f"--metrics: {selection.text} is undefined on the validation rows; take another"
            )
    return values


def summary(study: Any, metrics: Sequence[str]) -> str:
    """A table of the best trials: those that no other dominates."""
    from hyperrec_jax.reports.tables import table

    if not study.best_trials:
        return "no trial has finished"
    names = list(study.best_trials[0].params)
    rows = [
        [
            f"trial_{trial.user_attrs.get('folder', trial.number):04d}",
            *trial.values,
            *(_shown(trial.params[name]) for name in names),
        ]
        for trial in study.best_trials
    ]
    return table(["folder", *metrics, *names], rows)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
