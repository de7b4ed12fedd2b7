"""Predictors straight from a workdir; the one module here that needs the training code."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import ListScorer, centre
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.models.decoding import decode, encode
from hyperrec_jax.models.two_tower import TwoTower
from hyperrec_jax.serving.predictor import Predictor
from hyperrec_jax.serving.preprocess import Preprocessor
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)


def make_scores(model: MultiTaskModel, schema: Schema) -> dict[str, Callable[..., jax.Array]]:
    """The pure functions `score(variables, categorical, numerical, preferences) -> logits`.

    Args:
      model: A model of `hyperrec_jax.models`.
      schema: Its schema; where that has multi-valued fields or vectors, their arrays come before
        the preferences.

    Returns:
      `grid`: from preferences `[preference, goal]` to `[preference, row, goal]`; the first axis has
      length 1 where the model ignores them. `each`: from one preference per row, `[row, goal]`, to
      `[row, goal]`. `both`, of models that take a preference: from one per row to outputs under it
      and under equal weights, `[2, row, goal]`. `users` and `items`, of models with two towers:
      the vectors of the rows, under one preference per row, `[row, width]`.
    """

    names = [column.name for column in input_columns(schema)]

    def each(variables: Any, *arrays: jax.Array) -> jax.Array:
        *inputs, preferences = arrays
        batch = dict(zip(names, inputs, strict=True))
        return cast(jax.Array, model.apply(variables, batch, preferences, False)).astype(
            jnp.float32
        )

    def grid(variables: Any, *arrays: jax.Array) -> jax.Array:
        *inputs, preferences = arrays
        features = encode(model, variables, dict(zip(names, inputs, strict=True)))
        return decode(model, variables, features, preferences)

    def both(variables: Any, *arrays: jax.Array) -> jax.Array:
        *inputs, preferences = arrays
        features = encode(model, variables, dict(zip(names, inputs, strict=True)))
        own = model.apply(variables, features, preferences, False, method="decode")
        equal = decode(model, variables, features, jnp.asarray(centre(model.num_tasks))[None])[0]
        return jnp.stack([cast(jax.Array, own).astype(jnp.float32), equal])

    def vectors(method: str, asked: bool) -> Callable[..., jax.Array]:
        def tower(variables: Any, *arrays: jax.Array) -> jax.Array:
            *inputs, preferences = arrays
            batch = dict(zip(names, inputs, strict=True))
            given = (batch, preferences) if asked else (batch,)
            return cast(jax.Array, model.apply(variables, *given, method=method))

        return tower

    scores = {"grid": grid, "each": each}
    if isinstance(model, TwoTower):
        scores |= {"users": vectors("user_vectors", True), "items": vectors("item_vectors", False)}
    return scores | {"both": both} if model.conditioned else scores


def make_predictor(trained: Trained, workdir: Path, store: Store | None = None) -> Predictor:
    """What takes raw rows, from a trained model and the vocabulary in its workdir.

    Args:
      trained: The model.
      workdir: Its folder.
      store: Its data, if it is open; see `list_scorer_or_none`.

    Raises:
      UserError: the vocabulary is missing, damaged or another run's.
    """
    scores = {
        name: functools.partial(jax.jit(score), trained.variables)
        for name, score in make_scores(trained.network, trained.schema).items()
    }
    return Predictor(
        preprocess=Preprocessor.open(trained.schema, workdirs.check_kept_vocabulary(workdir)),
        grid=scores["grid"],
        each=scores["each"],
        conditioned=trained.network.conditioned,
        config=trained.config,
        versions=workdirs.load_versions(workdir),
        scorer=list_scorer_or_none(trained, store),
        calibrator=trained.calibrator,
        identity=f"{workdir.resolve().name}@step{trained.progress.best_step}",
        both=scores.get("both"),
        towers=(scores["users"], scores["items"]) if "users" in scores else None,
    )


def list_scorer_or_none(trained: Trained, store: Store | None = None) -> ListScorer | None:
    """The list scorer of a trained model; None, and a line in the log, where there can't be one.

    Args:
      trained: The model.
      store: Its data, if it is open: a run of an earlier release has no scorer in its folder, and
        it is then fitted on the validation rows.
    """
    try:
        return trained.list_scorer(store)
    except UserError as error:
        logger.warning("no score for lists: %s", error)
        return None


def load_workdir(workdir: Path) -> Predictor:
    """The selected model of a workdir.

    Raises:
      UserError: there is none, or it can't be read.
    """
    return make_predictor(load_trained(workdir), workdir)
