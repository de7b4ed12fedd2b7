"""A run that begins at the model of another one, on newer data."""

import dataclasses

import jax
import numpy as np
import optax
import pandas as pd
import pytest

import hyperrec_jax
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.encode import scale_vectors
from hyperrec_jax.data.inputs import Inputs
from hyperrec_jax.data.schema import NumericalField, Schema, VectorField
from hyperrec_jax.errors import UserError
from hyperrec_jax.models.features import FeatureEmbedding
from hyperrec_jax.parallel.mesh import path_name
from hyperrec_jax.parallel.tables import is_table
from hyperrec_jax.serving.preprocess import Preprocessor
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.scales import rescaled, scaled_gradients, scales_of
from hyperrec_jax.training.state import first_state, state_template
from hyperrec_jax.training.train import train
from hyperrec_jax.training.warm_start import begin_at, warm_start
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


def _frame(rows=900):
    """A newer log: items 10 to 29, of which training knew those below 20, and dearer prices."""
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "country": rng.choice(["c0", "c1", "c2", "b9"], rows),
            "item": rng.integers(10, 30, rows),
            "price": rng.lognormal(2, 0.5, rows),
            "age": rng.normal(4, 2, rows),
            "click": rng.integers(0, 2, rows),
            "buy": rng.integers(0, 2, rows),
            "session": np.arange(rows) // 5,
        }
    )


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    return hyperrec_jax.prepare(
        _frame(),
        tmp_path_factory.mktemp("newer") / "data",
        labels=["click", "buy"],
        categorical=["country", "item"],
        numerical=["price", "age"],
        log1p=["price"],
        group="session",
    )


def _run(store, **overrides):
    config = tiny_config(store, **overrides)
    return resolve(config, store.schema, store.split("train"))


def test_the_first_state_scores_as_the_old_model_does(trained_run, newer):
    run = _run(newer)
    warm = warm_start(run, newer, trained_run)
    state = begin_at(first_state(run), warm)
    rows = _frame(50)
    preference = np.float32([0.3, 0.7])
    predictor = hyperrec_jax.load(trained_run)
    expected = predictor.predict(rows, preference)
    encoded = Preprocessor.open(newer.schema, newer.path / "vocabulary.arrow")(rows)
    batch = {"categorical": encoded.categorical, "numerical": encoded.numerical}
    logits = run.model.apply(state.variables, batch, preference, False)
    np.testing.assert_allclose(jax.nn.sigmoid(logits), expected, atol=2e-5)
    assert any("'item': 10 values keep their embedding, 10 new ones" in line for line in warm.told)
    assert any("column 'age': its mean moved" in line for line in warm.told)


def test_numbers_of_another_scale_give_the_same_vector():
    rng = np.random.default_rng(0)
    raw, pictures = rng.normal(3, 5, (6, 2)), rng.normal(-2, 4, (6, 3))
    scales = [
        [NumericalField("a", mean=1.0, std=2.0), NumericalField("b", mean=-3.0, std=0.5)],
        [NumericalField("a", mean=4.0, std=7.0), NumericalField("b", mean=2.0, std=3.0)],
    ]
    schemas = [
        Schema("", (), tuple(scales[0]), ("click",), vectors=(VectorField("picture", 3),)),
        Schema(
            *("", (), tuple(scales[1]), ("click",)),
            vectors=(VectorField("picture", 3, (1.0, 2.0, -1.0), (2.0, 0.5, 3.0)),),
        ),
    ]
    module = FeatureEmbedding((), 2, 4, inputs=Inputs((), vectors=(3,)))
    vectors, params = [], None
    for fields, schema in zip(scales, schemas, strict=True):
        mean, std = ([getattr(field, name) for field in fields] for name in ("mean", "std"))
        batch = {
            "categorical": np.zeros((6, 0), np.int32),
            "numerical": ((raw - mean) / std).astype(np.float32),
            "vectors": scale_vectors(pictures, schema.vectors).astype(np.float32),
        }
        if params is None:
            params = module.init(jax.random.key(0), batch)["params"]
        else:
            params = rescaled({"inner": params}, scales_of(*schemas))["inner"]
        vectors.append(module.apply({"params": params}, batch).concatenate())
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-5)


def test_gradients_by_converted_weights_are_converted_gradients():
    rng = np.random.default_rng(1)
    raw, by_output = rng.normal(3, 5, (7, 2)), rng.normal(size=(7, 4))
    schemas = [
        Schema("", (), tuple(NumericalField(*"a", mean=m, std=s) for m, s in scale), ("click",))
        for scale in ([(1.0, 2.0), (-3.0, 0.5)], [(4.0, 7.0), (2.0, 3.0)])
    ]
    gradients = []
    for schema in schemas:
        mean, std = (np.array([getattr(f, n) for f in schema.numerical]) for n in ("mean", "std"))
        kernel, bias = ((raw - mean) / std).T @ by_output, by_output.sum(axis=0)
        gradients.append({"numerical_kernel": kernel, "numerical_bias": bias})
    found = scaled_gradients({"inner": gradients[0]}, scales_of(*schemas), 1)["inner"]
    jax.tree.map(np.testing.assert_allclose, found, gradients[1])
    alone = gradients[0] | {"numerical_bias": np.zeros(4)}  # nothing for the kernel's to go with
    squares = jax.tree.map(np.square, scaled_gradients(alone, scales_of(*schemas), 1))
    found = scaled_gradients(jax.tree.map(np.square, alone), scales_of(*schemas), 2)
    jax.tree.map(np.testing.assert_allclose, found, squares)


def _adam(state):
    (found,) = (part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState))
    return found


def test_known_values_keep_their_moments_and_new_ones_begin_at_zero(
    trained_run, small_store, newer
):
    run = _run(newer, train__init_optimizer=True, optimizer__schedule="cosine")
    warm = warm_start(run, newer, trained_run)
    state = begin_at(first_state(run), warm)
    own = _run(small_store)
    before, _ = Checkpoints(trained_run, read_only=True).restore_latest(state_template(own))
    old, new = _adam(before), _adam(state)
    assert int(new.count) == int(old.count) == int(before.step) > 0
    assert int(state.opt_state[2].count) == 0  # of the schedule
    assert f"moments are those of step {int(before.step)}" in warm.told[-1]
    items = [["", *store.vocabulary("item").to_pylist()] for store in (small_store, newer)]
    first = [len(store.vocabulary("country")) + 1 for store in (small_store, newer)]
    for was, now in ((old.mu, new.mu), (old.nu, new.nu)):
        tables = [
            np.asarray(leaf)[start:]
            for tree, start in zip((was, now), first, strict=True)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if is_table(path_name(path))
        ]
        for place, value in enumerate(items[1]):
            known = value in items[0]
            expected = tables[0][items[0].index(value)] if known else np.zeros_like(tables[0][0])
            np.testing.assert_array_equal(tables[1][place], expected)
            assert known == (value == "" or int(value) < 20)
        assert np.abs(tables[1]).max() > 0


def test_an_optimizer_that_cant_be_taken_is_refused(trained_run, newer, tmp_path):
    overrides = {"train__init_optimizer": True}
    with pytest.raises(UserError, match="no other run to take the optimizer's state from"):
        train(tiny_config(newer, **overrides), tmp_path / "run", newer)
    overrides |= {"train__init_from": str(trained_run), "normaliser__name": "running_scale"}
    with pytest.raises(UserError, match="the objective must be those of that run") as refused:
        train(tiny_config(newer, **overrides), tmp_path / "run", newer)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_warm_run_goes_on_where_it_was_stopped(trained_run, newer, tmp_path, caplog):
    options = {"train__init_from": str(trained_run), "train__init_optimizer": True}
    config = tiny_config(newer, train__epochs=1, **options)
    progress = train(config, tmp_path / "warm", newer)
    assert "new ones begin at that of the unknown id" in caplog.text
    assert "the optimizer's moments are those of step" in caplog.text
    caplog.clear()
    assert train(config, tmp_path / "warm", newer) == progress  # finished: nothing begins again
    assert "unknown id" not in caplog.text
    run = resolve(config, newer.schema, newer.split("train"))
    state, _ = Checkpoints(tmp_path / "warm", read_only=True).restore_latest(state_template(run))
    assert int(state.step) == progress.best_step


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__name": "mmoe"}, "its model is pomoe and this run's is mmoe"),
        ({"model__embedding_dim": 8}, "its model has other shapes"),
    ],
)
def test_another_model_is_refused_before_anything_is_written(
    trained_run, newer, tmp_path, overrides, message
):
    config = tiny_config(newer, train__init_from=str(trained_run), **overrides)
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run", newer)
    assert not (tmp_path / "run").exists()


def test_other_columns_are_refused(trained_run, newer):
    run = _run(newer)
    schema = dataclasses.replace(newer.schema, tasks=("click", "order"), goals=())
    with pytest.raises(UserError, match="its goals are click, buy, and those of the new data"):
        warm_start(dataclasses.replace(run, schema=schema), newer, trained_run)
    with pytest.raises(UserError, match="no run is there"):
        warm_start(run, newer, trained_run / "nothing")
