"""What `hyperrec explore` shows: metrics and lists under any preference, at once.

The experts' outputs of a sample of rows are kept, so that a new preference costs only gates and
towers.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.front import Front, evaluate_front
from hyperrec_jax.evaluation.grid import grid_for
from hyperrec_jax.evaluation.list_scorer import centre
from hyperrec_jax.evaluation.measures import mean_losses, measure
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.losses import output_slices, predict_all
from hyperrec_jax.goals.regression import Regression
from hyperrec_jax.models.decoding import decode, encode
from hyperrec_jax.serving.preprocess import Preprocessor
from hyperrec_jax.training.trained import Trained

MAX_SEARCHES = 50
LIST_ROWS = 20
SHOWN_FIELDS = 4
TINY = 1e-30
"""Amounts below this are ordered as this, whose logarithm is finite."""


class Explorer:
    """A model on a sample of rows, ready for any preference.

    Attributes:
      front: Metrics of the standard grid on the sample.
      searches: Rows of each list that can be looked at: a group of the data, or `LIST_ROWS`
        neighbours where it has no groups.
    """

    def __init__(
        self,
        trained: Trained,
        preprocess: Preprocessor,
        store: Store,
        split: str,
        rows: int,
        grid: int = 25,
    ) -> None:
        """Scores the grid.

        Args:
          trained: The model.
          preprocess: With the vocabulary, to show values for ids.
          store: Data with the model's schema.
          split: Name of the split.
          rows: The first so many rows of the split are the sample.
          grid: Preferences of the front.

        Raises:
          UserError: the model takes no preference, the store has another schema or no rows, or a
            goal has no positive, so that lists have no score.
        """
        if not trained.network.conditioned:
            raise UserError(
                f"model {trained.config['model']['name']} takes no preference: nothing to explore"
            )
        if store.schema != trained.schema:
            raise UserError(f"store {store.path}: its schema is not that of the model")
        source = store.split(split)
        count = min(rows, len(source))
        if not count:
            raise UserError(f"{store.path}: the {split} split has no rows")
        self.tasks = trained.schema.tasks
        self.goals = create_goals(trained.schema)
        self._preprocess = preprocess
        self._batch = source.slice(0, count)
        groups = source.groups(0, count) if trained.schema.group else np.arange(count) // LIST_ROWS
        self.searches = _searches(groups)
        model, variables = trained.network, trained.variables
        names = [column.name for column in input_columns(store.schema)]
        inputs = {name: jnp.asarray(self._batch[name]) for name in names}
        features = jax.jit(lambda batch: encode(model, variables, batch))(inputs)
        decoded = jax.jit(lambda one: decode(model, variables, features, one[None])[0])
        self._score = lambda preference: np.asarray(decoded(jnp.asarray(preference)))
        preferences = grid_for(model.conditioned, len(self.tasks), grid).astype(np.float32)
        scores = self._scores(np.stack([self._score(preference) for preference in preferences]))
        self.front: Front = evaluate_front(scores, split, self.tasks, preferences, goals=self.goals)
        self._scorer = trained.list_scorer(store) if trained.schema.plain else None
        self._equal = self._score(centre(len(self.tasks)))

    def at(self, preference: np.ndarray, search: int) -> dict[str, Any]:
        """Metrics of the sample and the list of a search under a preference `[goal]`.

        The list is ordered by the expected gain (see `evaluation.list_scorer`), or where goals are
        not binary, by the weighted sum of what `order_scores` makes of the outputs.

        Raises:
          UserError: there is no such search.
        """
        if not 0 <= search < len(self.searches):
            raise UserError(f"no search {search}; there are {len(self.searches)}, from 0")
        outputs = self._score(preference.astype(np.float32))
        scores = self._scores(outputs[None])
        table = measure(self.goals, scores)
        return {
            "preference": preference.tolist(),
            "value": [_finite(table[f"{goal.primary}/{goal.name}"][0]) for goal in self.goals],
            "loss": [_finite(loss) for loss in mean_losses(self.goals, scores)[0][0]],
            "list": self._list(outputs, preference, self.searches[search]),
        }

    def _scores(self, outputs: np.ndarray) -> Scores:
        """Outputs `[preference, row, output]` beside the labels of the sample."""
        weight = self._batch.get("weight")
        return Scores(
            outputs.swapaxes(-1, -2),
            self._batch["labels"].T,
            None if weight is None else weight[:, 0],
        )

    def _list(
        self, outputs: np.ndarray, preference: np.ndarray, rows: np.ndarray
    ) -> list[dict[str, Any]]:
        score = self._order_score(outputs[rows], rows, preference)
        order = np.argsort(-score, kind="stable")
        equal = self._order_score(self._equal[rows], rows, centre(len(self.tasks)))
        before = np.argsort(np.argsort(-equal, kind="stable"))  # rank of each row
        fields = self._varying(rows)
        predictions = predict_all(self.goals, outputs[rows])
        return [
            {
                "rank": rank + 1,
                "equal": int(before[place]) + 1,
                "score": float(score[place]),
                "values": {name: values[place] for name, values in fields.items()},
                "predictions": predictions[place].tolist(),
                "labels": [_finite(label) for label in self._batch["labels"][rows[place]].tolist()],
            }
            for rank, place in enumerate(order[:LIST_ROWS])
        ]

    def _order_score(
        self, outputs: np.ndarray, rows: np.ndarray, preference: np.ndarray
    ) -> np.ndarray:
        """What some rows with these outputs `[row, output]` are ordered by, `[row]`."""
        if self._scorer is None:
            return order_scores(self.goals, outputs) @ preference.astype(np.float32)
        asked = self._equal[rows] if self._scorer.place() == "centre" else outputs
        return self._scorer.score(asked, preference)

    def _varying(self, rows: np.ndarray) -> dict[str, list[str]]:
        """Raw values of the first fields that tell the rows apart."""
        schema, shown = self._preprocess.schema, {}
        for index, field in enumerate(schema.categorical):
            ids = self._batch["categorical"][rows, index]
            shown[field.name] = [self._preprocess.told(field, int(i)) for i in ids]
        for index, number in enumerate(schema.numerical):
            values = self._batch["numerical"][rows, index] * number.std + number.mean
            values = np.expm1(values) if number.log1p else values
            shown[number.name] = [f"{value:.4g}" for value in values]
        varying = [name for name, values in shown.items() if len(set(values)) > 1]
        return {name: shown[name] for name in varying[:SHOWN_FIELDS]}


def order_scores(goals: Sequence[RowGoal], outputs: np.ndarray) -> np.ndarray:
    """What rows are ordered by, for each goal: log-odds, the logarithm of a rate or an amount.

    Args:
      goals: The goals.
      outputs: `[row, output]`.

    Returns:
      float32 `[row, goal]`; of a regression goal the output itself.
    """
    columns = []
    for goal, place in zip(goals, output_slices(goals), strict=True):
        if isinstance(goal, Binary | Regression):
            columns.append(outputs[:, place.start])
        else:
            columns.append(np.log(np.maximum(goal.predict(outputs[:, place]), TINY)))
    return np.stack(columns, axis=1).astype(np.float32)


def _searches(groups: np.ndarray) -> list[np.ndarray]:
    """Rows of the groups of two rows or more, in order of appearance."""
    _, first, inverse, counts = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    chosen = [group for group in np.argsort(first) if counts[group] > 1][:MAX_SEARCHES]
    return [np.flatnonzero(inverse == group) for group in chosen] or [np.arange(len(groups))]


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value) if isinstance(value, np.floating) else value
