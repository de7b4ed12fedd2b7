"""Options of training with values that no one meant: each must be used, or refused in one line."""

import random

from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden, split_overrides
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.store import Store
from hyperrec_jax.training.workdir import flatten

VALUES = (
    *("-1", "0", "1", "2", "1e9", "-1e-9", "1e400", "nan", "-inf", "10**400", "0x10", "1_0", "٣"),
    *("", " ", "none", "null", "None", "true", "False", "yes", "'", '"', "\\", "\0", "\ud800", "é"),
    *("(1,2)", "[1,2]", "[", "()", "[-1]", "[0.5, 0.5]", "[nan, 1]", "{}", "{'a': 1}", "[[1]]"),
    *("pomoe", "mmoe", "linear", "dirichlet", "entropy", "adam", "../..", "lambda_ndcg", "="),
)
COMPONENT_KEYS = (
    *("model.name", "model.num_experts", "model.dropout", "model.bottom_widths", "model.norm"),
    *("model.compute_dtype", "model.nope", "objective.name", "objective.temperature"),
    *("objective.reference", "normaliser.decay", "sampler.concentration", "sampler.preferences"),
    *("model", "train", "mesh", "", ".", "model..name", "list.scales", "tarin.epochs"),
)


class OptionTarget:
    """One to three overrides of the default config, resolved for a store as `train` does it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = (*flatten(defaults.get_config().to_dict()), *COMPONENT_KEYS)

    def run(self, generator: random.Random) -> None:
        """One example; raises what the reader raises."""
        chosen = [
            (generator.choice(self._keys), generator.choice(VALUES))
            for _ in range(generator.choice((1, 1, 2, 3)))
        ]
        _, values = split_overrides([part for k, v in chosen for part in ("--set", f"{k}={v}")])
        config = overridden(defaults.get_config().to_dict(), values)
        resolve(config, self._store.schema, self._store.split("train"))
