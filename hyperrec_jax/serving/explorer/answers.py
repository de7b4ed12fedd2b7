"""What `hyperrec explore` shows: metrics and lists under any preference, at once.

The experts' outputs of a sample of rows are kept, so that a new preference costs only gates and
towers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.front import Front, evaluate_front
from hyperrec_jax.evaluation.list_front import Lists, list_front
from hyperrec_jax.evaluation.list_scorer import NDCG_RANKS, ListScorer, centre
from hyperrec_jax.evaluation.marginal_gain import list_fusion, marginal_gain
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.ranks import ranks
from hyperrec_jax.evaluation.varied import varied_of
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.fairness import Fairness
from hyperrec_jax.goals.losses import output_slices, predict_all
from hyperrec_jax.goals.regression import Regression
from hyperrec_jax.models.decoding import decode, encode
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.reports.details import Details, details_of_rows, raw_values_of
from hyperrec_jax.reports.example_lists import MOST_RANKS, lists_of, naming_fields
from hyperrec_jax.reports.views import views
from hyperrec_jax.training.trained import Trained

MAX_LISTS = 50
LIST_ROWS = 20
RESAMPLES = 100
TINY = 1e-30
"""Amounts below this are ordered as this, whose logarithm is finite."""


class Explorer:
    """A model on a sample of rows, ready for any preference.

    Attributes:
      front: Metrics of the standard grid on the sample, and of its lists where it has groups.
      details: What the page shows beside the front.
      lists: Rows of each list that can be looked at: a group of the data, or `LIST_ROWS`
        neighbours where it has no groups. The first has positives of most goals.
    """

    def __init__(
        self,
        trained: Trained,
        store: Store,
        split: str,
        rows: int,
        grid: int = 25,
    ) -> None:
        """Scores the grid.

        Args:
          trained: The model.
          store: Data with the model's schema.
          split: Name of the split.
          rows: The first so many rows of the split are the sample.
          grid: Preferences of the front.

        Raises:
          UserError: neither the model nor the score of its lists takes a preference, the store has
            another schema or no rows, or a goal has no positive, so that lists have no score.
        """
        if not trained.network.conditioned and not trained.schema.plain:
            raise UserError(
                f"model {trained.config['model']['name']} takes no preference, and its goals make "
                "no score of lists: nothing to explore"
            )
        if store.schema != trained.schema:
            raise UserError(f"store {store.path}: its schema is not that of the model")
        source = store.split(split)
        if not min(rows, len(source)):
            raise UserError(f"{store.path}: the {split} split has no rows")
        schema = trained.schema
        self.tasks, self.goals = schema.tasks, create_goals(schema)
        self._schema = schema
        self._batch, groups = _sample(source, min(rows, len(source)), bool(schema.group))
        self._groups = groups
        neighbours = np.arange(len(self._batch["labels"])) // LIST_ROWS
        self.lists = lists_of(
            neighbours if groups is None else groups, self._batch["labels"], MAX_LISTS
        )
        model, variables = trained.network, trained.variables
        inputs = {c.name: jnp.asarray(self._batch[c.name]) for c in input_columns(schema)}
        features = jax.jit(lambda batch: encode(model, variables, batch))(inputs)
        decoded = jax.jit(lambda one: decode(model, variables, features, one[None])[0])
        self._score = lambda preference: np.asarray(decoded(jnp.asarray(preference, jnp.float32)))
        self._scorer = trained.list_scorer(store) if schema.plain else None
        self._equal = self._score(centre(len(self.tasks)))
        # A model that takes no preference answers all alike; its lists follow them.
        preferences = evaluation_grid(len(self.tasks), grid).astype(np.float32)
        outputs = np.stack([self._score(preference) for preference in preferences])
        self._calibrator = trained.calibrator
        scores = self._scores(outputs, preferences)
        self.front: Front = dataclasses.replace(
            evaluate_front(
                scores,
                split,
                self.tasks,
                preferences,
                goals=self.goals,
                resamples=RESAMPLES,
                groups=groups,
            ),
            lists=self._front_of_lists(outputs, preferences, RESAMPLES),
        )
        self.details: Details = dataclasses.replace(
            details_of_rows(trained.folder, trained, self._gather, scores, self.front, groups),
            grouped=groups is not None,
            expected_gain=self._scorer is not None,
            examples=self._examples(trained),
        )

    def at(self, preference: np.ndarray, chosen: int, baseline: np.ndarray) -> dict[str, Any]:
        """Metrics of the sample and one list under a preference `[goal]`.

        The list is ordered by the expected gain (see `evaluation.list_scorer`), or where goals are
        not binary, by the weighted sum of what `order_scores` makes of the outputs.

        Args:
          preference: Weights that sum to one, `[goal]`.
          chosen: Position of the list among `lists`.
          baseline: The preference whose order the list's is compared with, `[goal]`.

        Raises:
          UserError: there is no such list.
        """
        if not 0 <= chosen < len(self.lists):
            raise UserError(f"no list {chosen}; there are {len(self.lists)}, from 0")
        outputs = self._score(preference)
        front = dataclasses.replace(
            evaluate_front(
                self._scores(outputs[None], preference[None]),
                self.front.split,
                self.tasks,
                preference[None],
                goals=self.goals,
            ),
            lists=self._front_of_lists(outputs[None], preference[None]),
        )
        return {
            "preference": preference.tolist(),
            "values": {
                view.name: [_finite(value) for value in view.values[0]] for view in views(front)
            },
            "list": self._list(outputs, preference, baseline, self.lists[chosen]),
        }

    def _gather(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: column[rows] for name, column in self._batch.items()}

    def _predicted(self, outputs: np.ndarray, preferences: np.ndarray) -> np.ndarray:
        """What predictions are made of, `[preference, row, output]`: the outputs, calibrated."""
        if self._calibrator is None:
            return outputs
        return self._calibrator.apply(outputs, preferences[:, None])

    def _scores(self, outputs: np.ndarray, preferences: np.ndarray) -> Scores:
        """Outputs `[preference, row, output]` beside the labels of the sample."""
        weight = self._batch.get("weight")
        return Scores(
            outputs.swapaxes(-1, -2),
            self._batch["labels"].T,
            None if weight is None else weight[:, 0],
            self._predicted(outputs, preferences).swapaxes(-1, -2),
        )

    def _front_of_lists(
        self, outputs: np.ndarray, preferences: np.ndarray, resamples: int = 0
    ) -> Lists | None:
        """The lists of the sample under some preferences; None where the data has none."""
        if self._groups is None or self._scorer is None:
            return None
        everything = np.arange(len(self._groups))
        scores = [
            self._order_score(each, everything, preference)
            for each, preference in zip(outputs, preferences, strict=True)
        ]
        return Lists(
            (
                list_front(
                    list_fusion(self._schema, self._scorer),
                    self._scorer.place(self._scorer.fusion),
                    self.tasks,
                    self._batch["labels"].T,
                    np.stack(scores),
                    self._groups,
                    preferences,
                    k=NDCG_RANKS,
                    resamples=resamples,
                    keep_scores=bool(resamples),
                    varied=varied_of(self._schema, self._batch["categorical"]),
                ),
            )
        )

    def _examples(self, trained: Trained) -> dict[str, Any]:
        """The lists that there are, and the fields that tell their rows apart."""
        self._raw = raw_values_of(trained)
        self._naming = naming_fields(self._raw, [self._gather(rows) for rows in self.lists[:10]])
        names = np.arange(1, len(self._batch["labels"]) + 1)
        names = names if self._groups is None else self._groups
        return {
            "fields": [self._raw.names[field] for field in self._naming],
            "lists": [{"list": str(names[rows[0]]), "rows": len(rows)} for rows in self.lists],
        }

    def _list(
        self, outputs: np.ndarray, preference: np.ndarray, baseline: np.ndarray, rows: np.ndarray
    ) -> list[dict[str, Any]]:
        """The rows that are among the first under either preference, the first one first."""
        score = self._order_score(outputs[rows], rows, preference)
        before = self._order_score(self._score(baseline)[rows], rows, baseline)
        rank, was = ranks(score), ranks(before)
        order = [place for place in np.argsort(rank) if min(rank[place], was[place]) <= MOST_RANKS]
        fields = self._raw.columns(self._gather(rows[order]))
        predicted = self._predicted(outputs[None, rows[order]], preference[None])[0]
        predictions = predict_all(self.goals, predicted)
        return [
            {
                "rank": int(rank[place]),
                "before": int(was[place]),
                "score": float(score[place]),
                "values": [fields[field][number] for field in self._naming],
                "predictions": predictions[number].tolist(),
                "labels": [_finite(label) for label in self._batch["labels"][rows[place]].tolist()],
            }
            for number, place in enumerate(order)
        ]

    def _order_score(
        self, outputs: np.ndarray, rows: np.ndarray, preference: np.ndarray
    ) -> np.ndarray:
        """What some rows with these outputs `[row, output]` are ordered by, `[row]`."""
        scorer: ListScorer | None = self._scorer
        if scorer is None:
            return order_scores(self.goals, outputs) @ preference.astype(np.float32)
        asked = self._equal[rows] if scorer.place(scorer.fusion) == "centre" else outputs
        if varied := varied_of(self._schema, self._batch["categorical"][rows]):
            groups = None if self._groups is None else self._groups[rows]
            return marginal_gain(scorer, asked, preference, varied, groups)
        return scorer.score(asked, preference, scorer.fusion)


def order_scores(goals: Sequence[RowGoal], outputs: np.ndarray) -> np.ndarray:
    """What rows are ordered by, for each goal: log-odds, the logarithm of a rate or an amount.

    Args:
      goals: The goals.
      outputs: `[row, output]`.

    Returns:
      float32 `[row, goal]`; of a regression goal the output itself, of fairness 0.
    """
    columns = []
    for goal, place in zip(goals, output_slices(goals), strict=True):
        if isinstance(goal, Fairness):  # no reason to show a row before another
            columns.append(np.zeros(len(outputs)))
        elif isinstance(goal, Binary | Regression):
            columns.append(outputs[:, place.start])
        else:
            columns.append(np.log(np.maximum(goal.predict(outputs[:, place]), TINY)))
    return np.stack(columns, axis=1).astype(np.float32)


def _sample(
    source: Split, count: int, grouped: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The first rows of a split and the list of each, without a list that is cut at the end."""
    batch = {name: np.asarray(column) for name, column in source.slice(0, count).items()}
    if not grouped:
        return batch, None
    groups = np.asarray(source.groups(0, count))
    whole = groups != groups[-1] if count < len(source) else np.ones(count, bool)
    if not whole.any():
        whole[:] = True
    return {name: column[whole] for name, column in batch.items()}, groups[whole]


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value) if isinstance(value, np.floating) else value
