"""Metrics of a trained model on paired resamples: what guards and exchange rates are made of."""

import functools
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.guards import LIST_RANKS, Measure, measures_of
from hyperrec_jax.evaluation.list_metrics import list_metrics, units_of_lists
from hyperrec_jax.evaluation.list_scorer import ListScorer, centre, scorer_scores
from hyperrec_jax.evaluation.marginal_gain import marginal_gain
from hyperrec_jax.evaluation.measures import labelled
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.paired import Measured, Resampler, Terms, list_terms, row_terms
from hyperrec_jax.evaluation.varied import varied_rows, with_variety
from hyperrec_jax.goals.losses import output_slices
from hyperrec_jax.training.trained import Trained

AT_ONCE = 8
"""Preferences that are scored at a time."""
FEW = 2
"""Fewer are filled up to this, others to `AT_ONCE`: no more than two programs are compiled."""


class Measurer:
    """Measures preferences of a model on a split, always on the same resamples of its units.

    Attributes:
      trained: The model.
      known: All measures by name; see `evaluation.guards`.
      drawn: What is drawn again, in words.
    """

    def __init__(
        self,
        trained: Trained,
        store: Store,
        split: str,
        *,
        resample_by: str | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        """Opens a split.

        Args:
          trained: The model.
          store: Data with its schema.
          split: Name of the split.
          resample_by: A categorical field, such as the user, whose rows are drawn together; of the
            users that training never saw, each list is drawn alone. None for the lists, or the
            rows where there are none.
          resamples: Number of resamples, at least 2.
          seed: Seed of the draws; only what has the same rows and seed is paired.

        Raises:
          UserError: the store is another model's, or there is no such split or field.
        """
        trained.check_store(store)
        self.trained = trained
        self._store, self._split = store, split
        self._rows = store.split(split)
        self._goals = create_goals(trained.schema)
        self._varied = varied_rows(trained.schema, self._rows)
        self._scorer = _scorer(trained, store)
        self.known = measures_of(self._goals, lists=self._scorer is not None)
        self._groups = self._rows.groups(0, len(self._rows)) if trained.schema.group else None
        units, what = self._units(resample_by)
        self._resampler = Resampler(units, resamples, seed)
        if self._scorer is not None and self._groups is not None:
            try:
                self._unit_of_list = units_of_lists(self._groups, self._resampler.unit_of_row)
            except ValueError:
                raise UserError(
                    f"--resample-by {resample_by}: differs between rows of one list "
                    f"({trained.schema.group}); name a field that is the same in all of them, such "
                    "as the user"
                ) from None
        self.drawn = f"{resamples:,} resamples of {self._resampler.units:,} {what}"

    def main(self, goal: int) -> Measure:
        """The main measure of a goal, by its position."""
        return self.known[self.trained.schema.tasks[goal]]

    def measure(self, preferences: np.ndarray, measures: Sequence[Measure]) -> Measured:
        """Measures of some preferences `[preference, goal]`.

        Returns:
          Values `[preference, measure]` and samples `[resample, preference, measure]`.
        """
        parts = [
            self._some(preferences[start : start + AT_ONCE], measures)
            for start in range(0, len(preferences), AT_ONCE)
        ]
        return Measured(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.samples for part in parts], axis=1),
        )

    def _some(self, preferences: np.ndarray, measures: Sequence[Measure]) -> Measured:
        size = FEW if len(preferences) <= FEW else AT_ONCE
        asked = np.resize(preferences, (size, preferences.shape[1]))
        scores = self.trained.score_rows(self._store, self._split, asked)
        shape = (len(preferences), len(measures))
        values, samples = np.empty(shape), np.empty((self._resampler.resamples, *shape))
        terms: list[Terms] = []
        units: list[np.ndarray] = []
        places: list[tuple[int, int]] = []
        shown = (len(preferences), *scores.logits.shape[1:])
        # One, if the model takes no preference.
        logits = np.broadcast_to(scores.logits[: len(preferences)], shown)
        predicted = np.broadcast_to(scores.outputs[: len(preferences)], shown)
        of_lists = [measure for measure in measures if measure.of_lists]
        listed = self._lists(logits, scores.labels, preferences, of_lists) if of_lists else {}
        for column, measure in enumerate(measures):
            place = output_slices(self._goals)[measure.goal]
            rows = labelled(scores, measure.goal)
            of_row = self._resampler.unit_of_row
            if rows.present is not None:
                of_row = of_row[rows.present]
            for index in range(len(preferences)):
                if measure.of_lists:
                    found: Terms | None = listed[measure.name][index]
                    own = self._unit_of_list
                else:
                    outputs = rows.of(predicted[index, place])
                    found = row_terms(self._goals[measure.goal], measure.metric, rows, outputs)
                    own = of_row
                if found is None:
                    exact = self._exact(measure, scores, predicted[index, place])
                    values[index, column], samples[:, index, column] = exact
                    continue
                terms.append(found)
                units.append(own)
                places.append((index, column))
        if terms:
            done = self._resampler.measure(terms, units)
            for number, (index, column) in enumerate(places):
                values[index, column] = done.values[number]
                samples[:, index, column] = done.samples[:, number]
        return Measured(values, samples)

    def _lists(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        preferences: np.ndarray,
        measures: Sequence[Measure],
    ) -> dict[str, list[Terms]]:
        """The terms of list metrics, by measure and preference."""
        assert self._scorer is not None
        assert self._groups is not None
        at = self._scorer.place(self._scorer.fusion)
        if at == "centre":
            logits = np.broadcast_to(self._central, logits.shape)
        if self._varied:
            several = zip(logits, preferences, strict=True)
            scored = np.stack(
                [
                    marginal_gain(self._scorer, one.T, weights, self._varied, self._groups, at)
                    for one, weights in several
                ]
            )
        else:
            scored = scorer_scores(self._scorer, logits, preferences, self._scorer.fusion, at)
        per_list = list_metrics(
            scored,
            labels,
            self._groups,
            LIST_RANKS,
            sorted({measure.metric for measure in measures}),
        )
        per_list = with_variety(per_list, scored, self._groups, LIST_RANKS, self._varied)
        return {
            measure.name: [
                list_terms(one, per_list.rows if measure.metric == "auc" else None)
                for one in per_list.values[measure.metric][:, measure.goal]
            ]
            for measure in measures
        }

    @functools.cached_property
    def _central(self) -> np.ndarray:
        """Outputs under equal weights, `[output, row]`."""
        middle = np.tile(centre(len(self._goals)), (FEW, 1))
        return self.trained.score_rows(self._store, self._split, middle).logits[0]

    def _exact(
        self, measure: Measure, scores: Scores, outputs: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """A metric that is no sum over rows, computed anew on each resample."""
        goal = self._goals[measure.goal]
        metric, rows = goal.metrics[measure.metric], labelled(scores, measure.goal)
        own = rows.of(outputs)
        present = slice(None) if rows.present is None else rows.present
        units = self._resampler.unit_of_row[present]
        mass = 1.0 if rows.weights is None else rows.weights
        drawn = tqdm(
            self._resampler.unit_weights(), desc=f"resampling {measure.name}", disable=None
        )
        samples = [metric(rows.labels, own, mass * times[units]) for times in drawn]
        return metric(rows.labels, own, rows.weights), np.array(samples)

    def _units(self, resample_by: str | None) -> tuple[np.ndarray, str]:
        """The unit of each row, and what units are."""
        if resample_by is None:
            if self._groups is None:
                return np.arange(len(self._rows)), "rows"
            return self._groups, f"lists ({self.trained.schema.group})"
        fields = [field.name for field in self.trained.schema.categorical]
        if resample_by == self.trained.schema.group and self._groups is not None:
            return self._groups, f"values of {resample_by}"
        if resample_by not in fields:
            raise UserError(
                f"--resample-by {resample_by}: is no categorical field of the model; there are "
                f"{', '.join(fields) or 'none'}"
            )
        rows = self._rows.slice(0, len(self._rows))["categorical"]
        ids = rows[:, fields.index(resample_by)].astype(np.int64)
        # Values that training never saw share the id 0, and are not one unit for that.
        alone = np.arange(len(ids)) if self._groups is None else self._groups
        _, alone = np.unique(alone, return_inverse=True)
        return np.where(ids > 0, ids, -1 - alone), f"values of {resample_by}"


def _scorer(trained: Trained, store: Store) -> ListScorer | None:
    """The list scorer; None where the data does not allow for lists."""
    try:
        trained.check_groups(store)
        return trained.list_scorer(store if len(store.split("validation")) else None)
    except UserError:
        return None
