"""Training that begins at the selected model of another run, on newer data.

The ids of a store are the places of its values, so that they mean other things in another store.
Values that both know take their rows of the embedding table along; values that only the new data
has begin at the row of the unknown id, which the old model scored them by. Numbers are standardised
by the new training rows: the weights that read them are converted, so that the same raw number
still gives the same vector. A row of known values is thus scored as the old model scores it.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.encode import ValueEncoder
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.vocabulary_file import read_vocabulary
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import processes
from hyperrec_jax.parallel.mesh import path_name
from hyperrec_jax.parallel.tables import is_table, table_rows
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.carried_rows import CarriedRows
from hyperrec_jax.training.pretrained import Tables
from hyperrec_jax.training.scales import rescaled, scales_of
from hyperrec_jax.training.state import TrainState, state_template
from hyperrec_jax.training.trained import load_trained
from hyperrec_jax.training.warm_optimizer import Moments, kept_moments, with_moments

logger = logging.getLogger(__name__)

_FAR = 0.5
"""Standard deviations, or their logarithm's change, from which a shift is worth a line."""


class WarmStart(NamedTuple):
    """The parameters that a run begins with.

    Attributes:
      variables: The model's `params` and `batch_stats` as NumPy arrays, in the shapes of the run.
      told: What changed between the two data sets, a line each.
      moments: Those of Adam; None where the optimizer begins anew.
    """

    variables: dict[str, Any]
    told: list[str]
    moments: Moments | None = None


def warm_start(run: Run, store: Store, origin: Path, tables: Tables | None = None) -> WarmStart:
    """Converts the selected model of another run to the data of this one.

    Nothing is written.

    Args:
      run: The run that begins.
      store: Its data.
      origin: The folder of the other run.
      tables: Vectors from files, from `pretrained_tables`: new values begin at theirs, and frozen
        tables are theirs.

    Raises:
      UserError: there is no model, or it has other fields, goals or shapes.
    """
    tables = tables or {}
    where = f"train.init_from={origin}"
    trained = load_trained(origin)
    old, new = trained.schema, run.schema
    _require_same_columns(where, old, new)
    if trained.config["model"]["name"] != run.config["model"]["name"]:
        raise UserError(
            f"{where}: its model is {trained.config['model']['name']} and this run's is "
            f"{run.config['model']['name']}; take the same model"
        )
    vocabularies = [workdirs.check_kept_vocabulary(origin), store.path / workdirs.VOCABULARY]
    ids, told = _ids(new, *vocabularies) if old.tables else ([], [])
    template = state_template(run).variables
    found = processes.fetch(trained.variables)
    carried = CarriedRows(ids, old.table_sizes, tuple(run.model.own_tables))
    _require_same_shapes(where, found, template, carried)

    def converted(path: tuple[Any, ...], leaf: np.ndarray, wanted: Any) -> np.ndarray:
        name = path_name(path)
        if not is_table(name):
            return leaf
        taken = _taken(leaf, carried.rows(name), len(wanted))
        first = carried.vocabularies(name)[0]
        if first in tables:  # vectors from a file, which has a table of its own
            table = tables[first]
            from_file = ~carried.known(name) | run.model.own_tables[first].frozen
            taken[: len(table)] = np.where(from_file[:, None], table, taken[: len(table)])
        return taken

    variables = jax.tree_util.tree_map_with_path(converted, found, template)
    scales = scales_of(old, new)
    params = rescaled(variables["params"], scales)
    told += _shifts(old, new)
    moments = None
    if run.config["train"]["init_optimizer"]:
        moments, step = kept_moments(run, origin, carried, scales)
        told.append(
            f"the optimizer's moments are those of step {step}, the newest checkpoint of {origin}, "
            f"and the parameters those of step {trained.progress.best_step}, the selected model"
        )
    return WarmStart(variables | {"params": params}, told, moments)


def begin_at(state: TrainState, warm: WarmStart) -> TrainState:
    """The first state of a run with other parameters, placed as its own were."""
    for line in warm.told:
        if processes.is_first():
            logger.warning("%s", line)

    def placed(leaf: jax.Array, values: np.ndarray) -> jax.Array:
        values = np.asarray(values, leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: values[part])

    own = {"params": state.params, "batch_stats": state.batch_stats}
    state = state.replace(**jax.tree.map(placed, own, dict(warm.variables)))
    return state if warm.moments is None else with_moments(state, warm.moments)


def _require_same_columns(where: str, old: Schema, new: Schema) -> None:
    for what, before, now in (
        (
            "categorical fields",
            [f.name for f in old.categorical],
            [f.name for f in new.categorical],
        ),
        ("numerical fields", [f.name for f in old.numerical], [f.name for f in new.numerical]),
        ("goals", list(old.tasks), list(new.tasks)),
        ("kinds of goals", [g.kind for g in old.goals], [g.kind for g in new.goals]),
        (
            "numerical fields with log1p",
            [f.name for f in old.numerical if f.log1p],
            [f.name for f in new.numerical if f.log1p],
        ),
        ("sets and sequences", _told(old), _told(new)),
        (
            "vectors",
            [f"{f.name} ({f.width})" for f in old.vectors],
            [f"{f.name} ({f.width})" for f in new.vectors],
        ),
        (
            "hashed fields",
            [f"{t.name} (hash_buckets: {t.size - 1})" for t in old.tables if t.hashed],
            [f"{t.name} (hash_buckets: {t.size - 1})" for t in new.tables if t.hashed],
        ),
        (
            "shared vocabularies",
            [f"{f.name}: {f.shares}" for f in old.id_fields if f.shares],
            [f"{f.name}: {f.shares}" for f in new.id_fields if f.shares],
        ),
    ):
        if before != now:
            raise UserError(
                f"{where}: its {what} are {', '.join(before) or 'none'}, and those of the new data "
                f"{', '.join(now) or 'none'}; prepare the data with the same, in the same order"
            )


def _told(schema: Schema) -> list[str]:
    """What of the sets and sequences of a schema changes the meaning of its model's weights."""
    return [
        f"{f.name} ({f.kind}, {f.pooling}{f' to {f.target}' if f.target else ''})"
        for f in schema.multivalued
    ]


def _ids(schema: Schema, before: Path, now: Path) -> tuple[list[np.ndarray], list[str]]:
    """For each id of the new vocabularies the id of the old one that it begins at.

    Hashed ids mean the same whatever the data, so that all of their rows stay.

    Args:
      schema: The new data's; its tables are those of the old one but for their sizes.
      before: The old vocabulary.
      now: The new one.

    Returns:
      int64 `[id]` for each vocabulary; and a line for each on what it has in common with the old
      one.
    """
    old, new = read_vocabulary(before), read_vocabulary(now)
    each, told = [], []
    for table in schema.tables:
        name = table.name
        if table.hashed:
            each.append(np.arange(table.size))
            told.append(f"field {name!r}: all {table.size - 1:,} hashed ids keep their embeddings")
            continue
        known, values = old[name].values, new[name].values
        ids = ValueEncoder(known)(values.cast(known.type))
        each.append(np.concatenate([[0], ids]))
        seen = int((ids > 0).sum())
        told.append(
            f"field {name!r}: {seen:,} values keep their embedding, {len(values) - seen:,} new "
            f"ones begin at that of the unknown id, {len(known) - seen:,} are gone"
        )
    return each, told


def _taken(table: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Rows of a table, filled up with unused ones, `[length, dim]`."""
    unused = np.zeros((length - len(rows), table.shape[1]), table.dtype)
    return np.concatenate([table[rows], unused])


def _require_same_shapes(where: str, found: Any, template: Any, carried: CarriedRows) -> None:
    """Compares all arrays but for the number of ids."""

    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named = {path_name(path): tuple(leaf.shape) for path, leaf in leaves}
        return {name: (-1, *s[1:]) if is_table(name) else s for name, s in named.items()}

    before, now = shapes(found), shapes(template)
    unlike = [n for n in sorted(before.keys() | now.keys()) if before.get(n) != now.get(n)]
    if unlike:
        raise UserError(
            f"{where}: its model has other shapes: {unlike[0]} is "
            f"{before.get(unlike[0], 'missing')} in it and {now.get(unlike[0], 'missing')} in this "
            f"run ({len(unlike)} arrays differ); take the model options that it was trained with"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(template):
        name = path_name(path)
        if not is_table(name):
            continue
        num_ids = len(carried.rows(name))
        if leaf.shape[0] != table_rows([num_ids]):
            raise UserError(
                f"{where}: {name} has {leaf.shape[0]} rows and not one for each of the "
                f"{num_ids} ids of its fields; such a table can't be carried over"
            )


def _shifts(old: Schema, new: Schema) -> list[str]:
    """Numbers that are distributed otherwise now, and goals whose options are others."""
    lines = []
    for before, now in zip(old.numerical, new.numerical, strict=True):
        moved = abs(now.mean - before.mean) / before.std
        if moved > _FAR or abs(np.log(now.std / before.std)) > _FAR:
            lines.append(
                f"column {now.name!r}: its mean moved from {before.mean:.4g} to {now.mean:.4g}, "
                f"its standard deviation from {before.std:.4g} to {now.std:.4g}; the weights are "
                "converted to the new scale"
            )
    for goal, other in zip(old.goals, new.goals, strict=True):
        if goal.options != other.options:
            lines.append(
                f"goal {goal.name!r}: its options were {goal.options} and are {other.options} now; "
                "its predictions begin on the new scale"
            )
    return lines
