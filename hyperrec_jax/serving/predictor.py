"""A model that takes raw rows and any preference."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import FUSIONS, ListScorer
from hyperrec_jax.evaluation.marginal_gain import (
    MARGINAL_GAIN,
    add_variety,
    gain_of_rows,
    list_fusion,
    of_rows,
)
from hyperrec_jax.evaluation.prediction_calibrator import PredictionCalibrator
from hyperrec_jax.evaluation.ranks import ranks
from hyperrec_jax.evaluation.varied import varied_of, variety_goals
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.losses import predict_all
from hyperrec_jax.preference.grid import normalise
from hyperrec_jax.serving.buckets import (
    PREFERENCE_BUCKETS,
    ROW_BUCKETS,
    chunks,
    padded,
    padded_rows,
    row_chunks,
)
from hyperrec_jax.serving.encoded import Encoded
from hyperrec_jax.serving.finite import require_finite
from hyperrec_jax.serving.groups import group_ids
from hyperrec_jax.serving.preprocess import Preprocessor
from hyperrec_jax.serving.raw_rows import RawRows
from hyperrec_jax.serving.refusal import shown

Score = Callable[..., Any]
"""`score(categorical, numerical, preferences) -> logits`, compiled; where there are such fields
`multivalued` and `vectors` come before the preferences."""


class Ranked(NamedTuple):
    """Rows as lists order them; an array has a leading axis of preferences where several are given.

    Attributes:
      score: Higher is earlier in the list, float32 `[row]`. Of the expected gain, 1 is what a row
        of average gain is worth.
      rank: Place of the row within its list, from 1, int64 `[row]`.
    """

    score: np.ndarray
    rank: np.ndarray


class Scored(NamedTuple):
    """What a model says of some rows.

    Attributes:
      probabilities: float32 `[..., row, goal]`.
      score: What lists are ordered by, float32 `[..., row]`; None for a model without a list scorer
        (see `Predictor.scorer`).
    """

    probabilities: np.ndarray
    score: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Predictor:
    """Predictions for raw rows under any preference: probabilities, rates, amounts.

    Attributes:
      preprocess: From raw rows to arrays.
      grid: Scores all rows under each of some preferences `[preference, goal]`:
        `[preference, row, goal]`.
      each: Scores each row under its own preference `[row, goal]`: `[row, goal]`.
      both: Scores each row under its own preference `[row, goal]` and under equal weights, in that
        order, with one encoding of the rows: `[2, row, goal]`. None where the model takes no
        preference or an earlier release exported it.
      towers: The vectors of users under their preferences, and those of items, `[row, width]`; None
        where the model has none.
      conditioned: Whether the model takes a preference at all.
      config: What it was trained with.
      versions: Versions of the packages that made it.
      scorer: What makes one score of the predictions for a list; None where a model of an earlier
        release has none.
      calibrator: What calibrates the predictions; None where they are the model's own.
      identity: What names the model in answers and logs: the run and its step, or the checksum of
        an exported model.
    """

    preprocess: Preprocessor
    grid: Score
    each: Score
    conditioned: bool
    config: dict[str, Any]
    versions: dict[str, Any]
    scorer: ListScorer | None = None
    identity: str = ""
    both: Score | None = None
    calibrator: PredictionCalibrator | None = None
    towers: tuple[Score, Score] | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the goals, in the order of a preference's weights."""
        return self.preprocess.schema.tasks

    @functools.cached_property
    def goals(self) -> tuple[RowGoal, ...]:
        """The goals, which make predictions of the model's outputs."""
        return create_goals(self.preprocess.schema)

    @property
    def _width(self) -> int:
        """Number of outputs of the model for all goals."""
        return sum(goal.outputs for goal in self.goals)

    def predict(self, rows: RawRows, preference: ArrayLike | None = None) -> np.ndarray:
        """Predictions for rows under one preference or several.

        Args:
          rows: A pandas or Polars frame, an Arrow table, or a list with one dictionary per row.
          preference: A weight for each goal, `[goal]`, or several `[preference, goal]`; scaled to
            sum to one. None stands for equal weights.

        Returns:
          float32 `[row, goal]`, or `[preference, row, goal]` where several preferences are given.

        Raises:
          UserError: rows or preference are not as the model needs them, or numbers are so far
            from those of training that the model's answer is not finite.
        """
        weights = self.weights(preference)
        predictions = self.predict_encoded(self.preprocess(rows), np.atleast_2d(weights))
        require_finite(predictions, "rows")
        return predictions[0] if weights.ndim == 1 else predictions

    def weights(self, preference: ArrayLike | None, where: str = "preference") -> np.ndarray:
        """A preference as float32 weights that sum to one, `[..., goal]`.

        Raises:
          UserError: it is negative, all zero, not numbers, or of the wrong length.
        """
        if preference is None:
            return np.full(len(self.tasks), 1 / len(self.tasks), np.float32)
        try:
            weights = np.asarray(preference, np.float64)
        except (TypeError, ValueError):
            raise UserError(f"{where}: {shown(preference)} is not a list of numbers") from None
        except OverflowError:
            raise UserError(
                f"{where}: a weight is too large; weights are relative, such as 3 and 7"
            ) from None
        if weights.ndim not in (1, 2) or not weights.size:
            raise UserError(f"{where}: give one number for each goal, such as 0.3,0.7")
        return normalise(weights, len(self.tasks), where).astype(np.float32)

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
          fusion: How the score is made: `expected_gain`, `log_odds`, `product`, or
            `marginal_gain` where variety is a goal, which it is by default there.

        Returns:
          Score and rank of each row, `[row]`, or `[preference, row]` where several preferences are
          given.

        Raises:
          UserError: as for `predict`; the model has no list scorer; or the groups do not fit.
        """
        preferences = self.weights(preference)
        batch = self.preprocess(rows)
        name = self.preprocess.schema.group if group is None else group
        groups = group_ids(rows, name, len(batch), optional=group is None)
        order = list_fusion(self.preprocess.schema, self.scorer, fusion)
        score = self.list_scores(batch, np.atleast_2d(preferences), order)
        require_finite(score[..., None], "rows")
        if order == MARGINAL_GAIN:
            several = zip(score, np.atleast_2d(preferences), strict=True)
            score = np.stack([self.in_lists(one, batch, w, groups) for one, w in several])
        score = score[0] if preferences.ndim == 1 else score
        return Ranked(score, ranks(score, groups))

    def require_preference(self, option: str) -> None:
        """Refuses an option that a model without preferences has no use for.

        Raises:
          UserError: neither the model nor the score of its lists takes a preference.
        """
        if not self.conditioned and self.scorer is None:
            name = self.config["model"]["name"]
            raise UserError(f"{option}: the model ({name}) takes no preference; leave it out")

    def require_scorer(self) -> ListScorer:
        """The list scorer.

        Raises:
          UserError: there is none.
        """
        if self.scorer is None:
            raise UserError(
                "the model has no list scorer, so that its rows have no score: train it again, or "
                "if it was exported by an earlier release, export it again where the run's data is"
            )
        return self.scorer

    def predict_encoded(self, batch: Encoded, preferences: np.ndarray) -> np.ndarray:
        """Predictions `[preference, row, goal]` of rows under `[preference, goal]`."""
        return self._predictions(self._logits(batch, preferences), preferences[:, None])

    def list_scores(
        self, batch: Encoded, preferences: np.ndarray, fusion: str = FUSIONS[0]
    ) -> np.ndarray:
        """List scores `[preference, row]` of encoded rows under preferences `[preference, goal]`;
        those of `marginal_gain` still lack what `in_lists` adds.

        Raises:
          UserError: the model has no list scorer, or there is no such fusion.
        """
        scorer = self.require_scorer()
        if scorer.place(of_rows(fusion)) == "preference":
            logits = self._logits(batch, preferences)
        else:
            logits = self._logits(batch, scorer.asked(preferences[:1], of_rows(fusion)))
        return self._score(scorer, logits, preferences[:, None, :], fusion)

    def in_lists(
        self,
        score: np.ndarray,
        batch: Encoded,
        preference: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores `[row]` by `marginal_gain` with what each row adds to the variety of its list.

        Args:
          score: Of single rows, `[row]`.
          batch: The rows.
          preference: `[goal]`.
          groups: List of each row, `[row]`; None where all rows are one list.
        """
        varied = varied_of(self.preprocess.schema, batch.categorical)
        return add_variety(score, preference, self.require_scorer().scales, varied, groups)

    def _score(
        self, scorer: ListScorer, logits: np.ndarray, preferences: np.ndarray, fusion: str
    ) -> np.ndarray:
        if fusion == MARGINAL_GAIN:
            places = [goal.place for goal in variety_goals(self.preprocess.schema)]
            return gain_of_rows(scorer, logits, preferences, places)
        return scorer.score(logits, preferences, fusion)

    def score_encoded(
        self, batch: Encoded, preferences: np.ndarray, fusion: str | None = None
    ) -> Scored:
        """What the model says of encoded rows under preferences `[preference, goal]`."""
        logits = self._logits(batch, preferences)
        if self.scorer is None:
            return Scored(self._predictions(logits, preferences[:, None]), None)
        fusion = fusion or self.scorer.fusion
        if self.scorer.place(of_rows(fusion)) == "preference" or not self.conditioned:
            score = self._score(self.scorer, logits, preferences[:, None, :], fusion)
        else:
            score = self.list_scores(batch, preferences, fusion)
        return Scored(self._predictions(logits, preferences[:, None]), score)

    def score_each(self, batch: Encoded, preferences: np.ndarray) -> Scored:
        """What the model says of encoded rows, each under its own preference `[row, goal]`: how a
        server scores requests of many callers at once.

        A model whose lists are made of predictions at the centre decodes its rows for both. Where
        variety is a goal, the scores still lack what `in_lists` adds for each list.
        """
        if self.scorer is None:
            logits = self._logits_each(self.each, batch, preferences)
            return Scored(self._predictions(logits, preferences), None)
        if not self.conditioned or self.scorer.place(self.scorer.fusion) == "preference":
            central = logits = self._logits_each(self.each, batch, preferences)
        elif self.both is not None:
            logits, central = self._logits_each(self.both, batch, preferences)
        else:
            logits = self._logits_each(self.each, batch, preferences)
            central = self._logits_each(self.each, batch, self.scorer.asked(preferences))
        fusion = list_fusion(self.preprocess.schema, self.scorer)
        score = self._score(self.scorer, central, preferences, fusion)
        return Scored(self._predictions(logits, preferences), score)

    def _predictions(self, logits: np.ndarray, preferences: np.ndarray) -> np.ndarray:
        """Predictions `[..., row, goal]` from outputs `[..., row, output]`.

        Args:
          logits: The outputs.
          preferences: In a form that broadcasts to them, see `PredictionCalibrator.apply`.
        """
        if self.calibrator is not None:
            logits = self.calibrator.apply(logits, preferences)
        return np.asarray(predict_all(self.goals, logits), np.float32)

    def _logits(self, batch: Encoded, preferences: np.ndarray) -> np.ndarray:
        result = np.empty((len(preferences), len(batch), self._width), np.float32)
        for rows in row_chunks(len(batch)):
            arrays = padded_rows(batch, rows)
            for chosen in chunks(len(preferences), PREFERENCE_BUCKETS[-1]):
                logits = np.asarray(
                    self.grid(*arrays, padded(preferences[chosen], PREFERENCE_BUCKETS))
                )
                # A model that takes no preference answers once, for all preferences.
                result[chosen, rows] = logits[
                    : chosen.stop - chosen.start, : rows.stop - rows.start
                ]
        return result

    def _logits_each(self, score: Score, batch: Encoded, preferences: np.ndarray) -> np.ndarray:
        """Outputs of `each`, `[row, output]`, or of `both`, `[2, row, output]`."""
        parts = []
        for rows in row_chunks(len(batch)):
            arrays = padded_rows(batch, rows)
            logits = np.asarray(score(*arrays, padded(preferences[rows], ROW_BUCKETS)))
            parts.append(logits[..., : rows.stop - rows.start, :])
        return np.concatenate(parts, axis=-2)
