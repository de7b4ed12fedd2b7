"""A trained model as one object: what `fit` and `load` return."""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hyperrec_jax.api.fresh import fresh_rows
from hyperrec_jax.data.checks import unseen_warnings
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.choice import Suggestion, suggest_preference
from hyperrec_jax.evaluation.drift import Drift, DriftLimits
from hyperrec_jax.evaluation.exchange import ExchangeRate
from hyperrec_jax.evaluation.front import Front
from hyperrec_jax.evaluation.guarded_suggestion import GuardedSuggestion
from hyperrec_jax.evaluation.importance import Importance
from hyperrec_jax.reports import plots
from hyperrec_jax.serving.export import export
from hyperrec_jax.serving.from_workdir import make_predictor
from hyperrec_jax.serving.predictor import Predictor, Ranked
from hyperrec_jax.serving.raw_rows import RawRows
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.guarded import CONFIDENCE, exchange, suggest_guarded
from hyperrec_jax.training.importance import importance_of
from hyperrec_jax.training.monitor import monitor
from hyperrec_jax.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Model(Trained):
    """A trained model, ready for any preference.

    Attributes:
      store: The data that it was trained on, if it is open already.
    """

    store: Store | None = None

    @classmethod
    def load(cls, folder: str | Path, store: Store | None = None) -> "Model":
        """The selected model of a run's folder.

        Args:
          folder: The folder.
          store: The data that it was trained on, if it is open or has moved.

        Raises:
          UserError: there is no model, or it can't be read.
        """
        trained = load_trained(Path(folder))
        parts = {field.name: getattr(trained, field.name) for field in dataclasses.fields(Trained)}
        return cls(**parts, store=store)

    @property
    def goals(self) -> tuple[str, ...]:
        """Names of the goals, in the order of a preference's weights."""
        return self.schema.tasks

    @functools.cached_property
    def _predictor(self) -> Predictor:
        return make_predictor(self, self.folder, self.store)

    @functools.cached_property
    def data(self) -> Store:
        """The data that it was trained on.

        Raises:
          UserError: it is not where it was.
        """
        return self.store or workdirs.open_store(self.config)

    def evaluate(
        self,
        store: Store | RawRows | None = None,
        split: str = "test",
        preferences: np.ndarray | int = 25,
        *,
        resamples: int = 0,
        fusions: Sequence[str] | None = None,
        progress: bool = False,
    ) -> Front:
        """Metrics of a split under a grid of preferences, and of its lists where it has groups.

        Args:
          store: Data with this model's schema; None for that which it was trained on. Or fresh
            rows with a column for each field and goal, as a frame, an Arrow table or a list of
            dictionaries: all are scored, read with the model's own vocabulary and scaling.
          split: `train`, `validation` or `test` of a store.
          preferences: `[preference, goal]`, or the number of preferences of the standard grid.
          resamples: Number of bootstrap resamples; 0 leaves intervals out.
          fusions: How lists are scored, see `evaluation.list_scorer`; an empty tuple for no lists.
            By default by `list_fusion`, where the data allows for lists.
          progress: Whether to show a bar.

        Raises:
          UserError: the store has another schema, or no such split; or lists are asked for by
            `fusions` that can't be had.
        """
        if store is not None and not isinstance(store, Store):
            options = {"resamples": resamples, "fusions": fusions, "progress": progress}
            return self._evaluate_rows(store, preferences, options)
        store = store or self.data
        front, scores = self.score(
            store, split, preferences, resamples=resamples, progress=progress
        )
        if not (self.schema.group if fusions is None else fusions):
            return front
        grid = front.preferences
        if grid is None and not isinstance(preferences, int):
            grid = preferences  # lists have preferences, also those of a model that takes none
        try:
            self.check_groups(store)
            scorer = self.list_scorer(store if len(store.split("validation")) else self.store)
        except UserError as error:
            if fusions is not None:
                raise
            logger.warning("no lists: %s", error)
            return front
        lists, _ = self.lists(
            store,
            scores,
            split,
            grid,
            fusions,
            resamples=resamples,
            scorer=scorer,
        )
        return dataclasses.replace(front, lists=lists)

    def importance(
        self, store: Store | None = None, split: str = "test", *, rows: int = 10_000
    ) -> Importance:
        """What each goal's main metric loses when a field is shuffled; see `importance_of`.

        Args:
          store: Data with this model's schema; None for that which it was trained on.
          split: Name of the split.
          rows: Most rows that are scored.
        """
        return importance_of(self, store or self.data, split, rows=rows)

    def _evaluate_rows(
        self, rows: RawRows, preferences: np.ndarray | int, options: dict[str, Any]
    ) -> Front:
        with fresh_rows(self, rows) as store:
            fresh = store.split("test")
            for line in unseen_warnings(self.schema, fresh.unseen, len(fresh), "fresh rows"):
                logger.warning("%s", line)
            front = self.evaluate(store, "test", preferences, **options)
            return dataclasses.replace(front, split="fresh")

    def predict(self, rows: RawRows, preference: ArrayLike | None = None) -> np.ndarray:
        """Probabilities of raw rows under one preference or several.

        Args:
          rows: A pandas or Polars frame, an Arrow table, or a list with a dictionary for each row.
          preference: A weight for each goal, `[goal]`, or several `[preference, goal]`; scaled to
            sum to one. None stands for equal weights.

        Returns:
          float32 `[row, goal]`, or `[preference, row, goal]` where several preferences are given.

        Raises:
          UserError: rows or preference are not as the model needs them.
        """
        return self._predictor.predict(rows, preference)

    def rank(
        self,
        rows: RawRows,
        preference: ArrayLike | None = None,
        group: str | ArrayLike | None = None,
        fusion: str | None = None,
    ) -> Ranked:
        """Orders rows within their lists by one score for all goals.

        Args:
          rows: As for `predict`.
          preference: As for `predict`.
          group: The column of the rows that names their list, or the list of each row `[row]`. By
            default the column that the training data named, if the rows have it; else all rows are
            one list.
          fusion: How the score is made, as for `Predictor.rank`; None for that of the data.

        Returns:
          `score` and `rank` (from 1) of each row, `[row]`, or `[preference, row]` where several
          preferences are given.

        Raises:
          UserError: as for `predict`; a scorer can't be had; or the groups do not fit.
        """
        return self._predictor.rank(rows, preference, group, fusion)

    def suggest(
        self,
        goal: str,
        front: Front | None = None,
        *,
        split: str = "validation",
        guard: str | Sequence[str] = (),
        confidence: float = CONFIDENCE,
        baseline: ArrayLike | None = None,
        baseline_run: "Model | None" = None,
        resample_by: str | None = None,
    ) -> Suggestion | GuardedSuggestion:
        """The preference that serves a goal best.

        Args:
          goal: Such as `best:buy,click=1%` (see `evaluation.choice`), or, to choose under guards,
            `max:buy` (see `evaluation.guarded_choice`).
          front: From `evaluate`; None scores 25 preferences of a split. Goals that begin with
            `max:` or `min:` ask the model anew.
          split: The rows to choose on; the test rows are for the report, not for the choice.
          guard: What may be lost against the baseline, such as `click>=-1%`; see
            `evaluation.guards`. One, or several.
          confidence: That all guards hold, at least 0.5 and below 1.
          baseline: A weight for each goal, `[goal]`; None for equal weights.
          baseline_run: The model that is asked under the baseline; None for this one.
          resample_by: A categorical field, such as the user, whose rows the bootstrap draws
            together; None for the lists, or the rows where there are none.

        Raises:
          UserError: the goal can't be read, or no preference meets it.
        """
        guards = [guard] if isinstance(guard, str) else list(guard)
        if goal.startswith(("max:", "min:")):
            start = None if baseline is None else self._predictor.weights(baseline, "baseline")
            return suggest_guarded(
                self,
                self.data,
                goal,
                guards,
                confidence=confidence,
                baseline=start,
                baseline_run=baseline_run,
                split=split,
                resample_by=resample_by,
            )
        if guards or baseline is not None or baseline_run is not None:
            raise UserError(f"guards go with goals that begin with max: or min:, not with {goal}")
        return suggest_preference(front or self.evaluate(split=split), goal)

    def monitor(
        self,
        rows: RawRows,
        preference: ArrayLike | None = None,
        *,
        guard: str | Sequence[str] = (),
        baseline: ArrayLike | None = None,
        limits: DriftLimits | None = None,
        confidence: float = CONFIDENCE,
        resample_by: str | None = None,
    ) -> Drift:
        """What has changed on fresh rows against the test rows of training, beyond noise.

        Args:
          rows: Fresh rows with labels, as for `evaluate`.
          preference: The preference in use, `[goal]`, which guards need.
          guard: What it was to keep, such as `click>=-1%`. One, or several.
          baseline: What guards compare with, `[goal]`; None for equal weights.
          limits: From where on a change is an alarm; None for the defaults.
          confidence: As for `suggest`.
          resample_by: As for `suggest`.

        Raises:
          UserError: the rows, a guard or a number is not as it should be.
        """
        weights = self._predictor.weights
        with fresh_rows(self, rows) as fresh:
            return monitor(
                self,
                self.data,
                fresh,
                guards=[guard] if isinstance(guard, str) else list(guard),
                preference=None if preference is None else weights(preference),
                baseline=None if baseline is None else weights(baseline, "baseline"),
                limits=limits,
                confidence=confidence,
                resample_by=resample_by,
            )

    def exchange_rates(
        self,
        preference: ArrayLike | None = None,
        *,
        split: str = "validation",
        confidence: float = CONFIDENCE,
        resample_by: str | None = None,
    ) -> tuple[ExchangeRate, ...]:
        """What a point of a goal costs in points of each other goal at a preference.

        Args:
          preference: A weight for each goal, `[goal]`; None for equal weights.
          split: The rows to measure on.
          confidence: Level of the intervals, at least 0.5 and below 1.
          resample_by: As for `suggest`.

        Returns:
          A rate for each pair of goals, with its interval.

        Raises:
          UserError: the preference is malformed, or the model takes none and has no lists.
        """
        return exchange(
            self,
            self.data,
            self._predictor.weights(preference),
            confidence=confidence,
            split=split,
            resample_by=resample_by,
        )

    def export(self, folder: str | Path) -> Path:
        """Writes the model as a folder that stands alone, for serving.

        Args:
          folder: A new folder, or one that holds an exported model, which is replaced.

        Raises:
          UserError: the folder can't be written or holds something else.
        """
        export(self.folder, Path(folder))
        return Path(folder)

    def plot(self, file: str | Path, front: Front | None = None) -> Path:
        """Draws a front as a picture.

        Args:
          file: Where to; its ending is the format, such as `.png` or `.svg`.
          front: From `evaluate`; None scores 25 preferences of the test rows.

        Raises:
          UserError: the file can't be written.
        """
        plots.plot(front or self.evaluate(), Path(file))
        return Path(file)

    def __repr__(self) -> str:
        return (
            f"Model({self.config['model']['name']}, goals {', '.join(self.goals)}, {self.folder})"
        )
