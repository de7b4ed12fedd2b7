"""Permutation importance of a trained model's fields on rows of a split."""

import numpy as np

from hyperrec_jax.data.columns import Batch
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.importance import Importance, permutation_importance
from hyperrec_jax.evaluation.outputs import make_score_fn
from hyperrec_jax.training.trained import Trained

ROWS = 10_000
SHUFFLES = 3


def importance_of(
    trained: Trained,
    store: Store,
    split: str = "test",
    preferences: np.ndarray | None = None,
    *,
    rows: int = ROWS,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Importance:
    """What each goal's main metric loses when a field is shuffled between rows.

    Args:
      trained: The model.
      store: Data with its schema.
      split: Name of the split.
      preferences: `[preference, goal]`; by default each goal alone, and all alike.
      rows: Most rows that are scored, evenly spaced over the split.
      shuffles: Shuffles of each field.
      seed: Seed of the shuffles.

    Raises:
      UserError: the store has another schema or vocabulary, no such split, or no rows in it.
    """
    trained.check_store(store)
    part = store.split(split)
    if not len(part):
        raise UserError(f"{part.path}: has no rows to shuffle; take another split")
    goals = trained.schema.num_tasks
    if preferences is None:
        preferences = np.concatenate([np.eye(goals), np.full((1, goals), 1 / goals)])
    asked = np.asarray(preferences, np.float32)
    batch = part.gather(np.linspace(0, len(part) - 1, min(rows, len(part))).astype(np.int64))
    score, size = make_score_fn(trained.network), trained.config["train"]["batch_size"]

    def outputs(inputs: Batch) -> np.ndarray:
        count = len(inputs["numerical"])
        parts = [
            {name: values[start : start + size] for name, values in inputs.items()}
            for start in range(0, count, size)
        ]
        scored = [np.asarray(score(trained.variables, one, asked)) for one in parts]  # type: ignore[arg-type]
        return np.concatenate(scored, axis=-1)

    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(len(batch["labels"])) for _ in range(shuffles)])
    return permutation_importance(
        outputs, batch, create_goals(trained.schema), places(trained.schema), asked, orders
    )


def places(schema: Schema) -> dict[str, tuple[str, slice]]:
    """The array of a batch that holds each field, and the field's columns in it."""
    found = {}
    for array, widths in (
        ("categorical", {field.name: 1 for field in schema.categorical}),
        ("numerical", {field.name: 1 for field in schema.numerical}),
        ("multivalued", {field.name: field.length for field in schema.multivalued}),
        ("vectors", {field.name: field.width for field in schema.vectors}),
    ):
        first = 0
        for name, width in widths.items():
            found[name] = array, slice(first, first + width)
            first += width
    return found
