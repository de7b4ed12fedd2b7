"""Predictors straight from a workdir; the one module here that needs the training code."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hyperrec_jax.serving.predictor import Predictor
from hyperrec_jax.serving.preprocess import Preprocessor
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.trained import Trained, load_trained


def make_scores(model: Any) -> dict[str, Callable[..., jax.Array]]:
    """The pure functions `score(variables, categorical, numerical, preferences) -> logits`.

    Args:
      model: A model of `hyperrec_jax.models`.

    Returns:
      `grid`: from preferences `[preference, goal]` to `[preference, row, goal]`; the first axis has
      length 1 where the model ignores them. `each`: from one preference per row, `[row, goal]`, to
      `[row, goal]`.
    """

    def each(
        variables: Any, ids: jax.Array, numbers: jax.Array, preferences: jax.Array
    ) -> jax.Array:
        batch = {"categorical": ids, "numerical": numbers}
        return model.apply(variables, batch, preferences, False).astype(jnp.float32)

    def grid(
        variables: Any, ids: jax.Array, numbers: jax.Array, preferences: jax.Array
    ) -> jax.Array:
        if not model.conditioned:
            return each(variables, ids, numbers, preferences[0])[None]
        return each(variables, ids, numbers, preferences[:, None, :])

    return {"grid": grid, "each": each}


def make_predictor(trained: Trained, workdir: Path) -> Predictor:
    """What takes raw rows, from a trained model and the vocabulary in its workdir.

    Raises:
      UserError: the vocabulary is missing, damaged or another run's.
    """
    scores = {
        name: functools.partial(jax.jit(score), trained.variables)
        for name, score in make_scores(trained.network).items()
    }
    return Predictor(
        preprocess=Preprocessor.open(trained.schema, workdirs.check_kept_vocabulary(workdir)),
        grid=scores["grid"],
        each=scores["each"],
        conditioned=trained.network.conditioned,
        config=trained.config,
        versions=workdirs.load_versions(workdir),
    )


def load_workdir(workdir: Path) -> Predictor:
    """The selected model of a workdir.

    Raises:
      UserError: there is none, or it can't be read.
    """
    return make_predictor(load_trained(workdir), workdir)
