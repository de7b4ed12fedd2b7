"""Rare and hashed ids from end to end: trained, evaluated on fresh rows, served, begun again."""

import jax
import numpy as np
import pandas as pd
import pytest

import hyperrec_jax
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.serving import Preprocessor
from hyperrec_jax.training.state import first_state
from hyperrec_jax.training.warm_start import begin_at, warm_start
from tests.conftest import TINY_MODEL, tiny_config

pytestmark = pytest.mark.slow

FIELDS = {
    "categorical": [{"name": "item", "min_count": 8}, {"name": "user", "hash_buckets": 16}],
    "sets": [{"name": "friends", "shares": "user", "max_values": 3}],
    "labels": ["click", "buy"],
}


def _log(first, rows=1500):
    """Items of which the last ones are rare; users that no other log has."""
    rng = np.random.default_rng(first)
    click = rng.random(rows) < 0.5
    return pd.DataFrame(
        {
            "item": (40 * rng.random(rows) ** 6).astype(int),
            "user": [f"u{first + row}" for row in range(rows)],
            "friends": [[f"u{row}" for row in rng.integers(0, 99, size)] for size in range(rows)],
            "click": click.astype(int),
            "buy": (click & (rng.random(rows) < 0.5)).astype(int),
        }
    ).assign(friends=lambda frame: frame["friends"].str[:4])


def test_a_model_of_rare_and_hashed_ids(tmp_path):
    store = hyperrec_jax.prepare(_log(0), tmp_path / "data", **FIELDS)
    assert store.schema.categorical[0].rare > 5
    options = {"model.name": "sharedbottom", "train.epochs": 1, "train.unknown_share": 0.05}
    model = hyperrec_jax.fit(store, tmp_path / "run", TINY_MODEL | options)
    fresh = _log(5000, 400)
    predicted = model.predict(fresh)
    split = store.split("test")
    assert split.unseen[1:] == (0, 0)
    # Rare items are one item, and a user that is new to all has a bucket of its own.
    rare = fresh.assign(item=[39, 38, 977, None] * 100)
    of_rare = model.predict(rare).reshape(100, 4, 2)
    same = rare.assign(user="u1", friends=[["u2"]] * 400)
    np.testing.assert_array_equal(np.ptp(model.predict(same), axis=0), [0, 0])
    assert np.ptp(of_rare, axis=(0, 1)).min() > 0
    front = model.evaluate(fresh)
    assert front.rows == 400
    records = fresh.to_dict("records")
    np.testing.assert_allclose(model.predict(records), predicted, atol=1e-6)
    # Newer data, on which the first state scores as the old model does.
    newer = hyperrec_jax.prepare(_log(9000), tmp_path / "newer", **FIELDS)
    run = resolve(
        tiny_config(newer, model__name="sharedbottom"), newer.schema, newer.split("train")
    )
    warm = warm_start(run, newer, tmp_path / "run")
    state = begin_at(first_state(run), warm)
    assert "field 'user': all 16 hashed ids keep their embeddings" in warm.told
    kept = set(store.vocabulary("item").to_pylist()) & set(newer.vocabulary("item").to_pylist())
    raw = _log(9000)
    raw = raw[raw["item"].astype(str).isin(kept)].head(50)
    assert len(raw) == 50
    encoded = Preprocessor.open(newer.schema, newer.path / "vocabulary.arrow")(raw)
    names = ("categorical", "numerical", "multivalued")
    batch = dict(zip(names, encoded.arrays, strict=True))
    logits = run.model.apply(state.variables, batch, np.float32([0.5, 0.5]), False)
    expected = model.predict(raw)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), expected, atol=2e-5)
