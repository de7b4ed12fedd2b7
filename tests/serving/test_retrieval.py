"""Two towers: vectors whose products order items as lists are ordered, and the search for them."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hyperrec_jax
from hyperrec_jax import Model
from hyperrec_jax.commands import retrieve as retrieve_command
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import ListScorer
from hyperrec_jax.serving.export import export
from hyperrec_jax.serving.retrieval import Index, Retriever, recall, top_items
from hyperrec_jax.training.train import train
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow

LISTS = {"list.loss": "lambda_ndcg", "list.epochs": 1, "list.batch_size": 256}
PREFERENCE = [0.3, 0.7]


@pytest.fixture(scope="module")
def model(small_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "run"
    options = {"model.name": "two_tower", "sampler.name": "fixed", "list.score": "log_odds"}
    train(tiny_config(small_store, **options, **LISTS, train__epochs=1), folder, small_store)
    return Model.load(folder, small_store)


@pytest.fixture(scope="module")
def rows(small_store):
    return pd.read_csv(small_store.path.parent / "log.csv").head(40)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(1, 40),
    k=st.integers(1, 50),
    block=st.integers(1, 45),
)
def test_blocks_find_what_a_sort_finds(seed, items, k, block):
    generator = np.random.default_rng(seed)
    users, catalogue = generator.normal(size=(3, 4)), generator.normal(size=(items, 4))
    found = top_items(users, catalogue, k, block)
    products = np.float32(users) @ np.float32(catalogue).T
    expected = np.argsort(-products, axis=1)[:, : min(k, items)]
    np.testing.assert_allclose(
        found.scores, np.take_along_axis(products, expected, axis=1), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        np.take_along_axis(products, found.items, axis=1), found.scores, rtol=1e-5, atol=1e-5
    )
    assert all(len(set(of_user)) == min(k, items) for of_user in found.items.tolist())
    assert recall(found.items, expected) == pytest.approx(1) or len(np.unique(products)) < items


def test_recall_counts_what_was_missed():
    assert recall([[1, 2, 9, 8]], [[1, 2, 3, 4]]) == 0.5


def test_products_order_items_as_lists_are_ordered(model, rows):
    retriever = Retriever.of(model._predictor)
    assert model.list_scorer().fusion == "log_odds"
    users, items = rows.iloc[[5]][["country", "age"]], rows[["item", "price"]]
    products = retriever.user_vectors(users, PREFERENCE) @ retriever.item_vectors(items).T
    pairs = rows.assign(country=users["country"].item(), age=users["age"].item())
    ranked = model.rank(pairs, PREFERENCE, group=np.zeros(len(rows)))
    # The sums of log-odds differ from the products by the goals' biases.
    shift = ranked.score - products[0]
    np.testing.assert_allclose(shift, shift.mean(), atol=1e-4)
    assert products.std() > 1e-3
    with pytest.raises(UserError, match="2 of them for 1 users"):
        retriever.user_vectors(users, [[0.5, 0.5], [1, 0]])


def test_the_preference_moves_the_user_alone(model, rows):
    retriever = Retriever.of(model._predictor)
    one, other = (retriever.user_vectors(rows, weights) for weights in ([1, 0], [0, 1]))
    assert np.abs(one - other).max() > 1e-3
    each = retriever.user_vectors(rows, np.tile([0.0, 1.0], (len(rows), 1)))
    np.testing.assert_allclose(each, other, rtol=1e-5, atol=1e-6)


def test_the_command_finds_for_an_exported_model_too(model, rows, tmp_path):
    users, items = tmp_path / "users.parquet", tmp_path / "items.parquet"
    rows.head(3)[["country", "age", "session"]].to_parquet(users)
    rows[["item", "price"]].to_parquet(items)
    export(model.folder, tmp_path / "model")
    exported = hyperrec_jax.load(tmp_path / "model")
    files = ["--users", str(users), "--items", str(items), "--k", "5"]
    written = []
    for folder in (model.folder, tmp_path / "model"):
        target = tmp_path / f"found_{folder.name}.parquet"
        arguments = ["--workdir", str(folder), *files, "--preference", "0.3,0.7"]
        arguments += ["--keep-user", "session", "--keep-item", "item", "--output", str(target)]
        assert retrieve_command.main(arguments) == 0
        written.append(pd.read_parquet(target))
    pd.testing.assert_frame_equal(*written, rtol=1e-4)
    found = written[0]
    assert list(found.columns) == ["session", "item", "user_row", "item_row", "rank", "score"]
    retriever = Retriever.of(exported)
    products = retriever.user_vectors(rows.head(3), PREFERENCE) @ retriever.item_vectors(rows).T
    best = -np.sort(-products, axis=1)[:, :5]
    np.testing.assert_allclose(found["score"].to_numpy().reshape(3, 5), best, rtol=1e-4)
    np.testing.assert_array_equal(rows["item"].to_numpy()[found["item_row"] - 1], found["item"])


def test_an_index_finds_nearly_all():
    pytest.importorskip("usearch")
    generator = np.random.default_rng(0)
    users, items = generator.normal(size=(20, 8)), generator.normal(size=(2000, 8))
    found, exact = Index(items).search(users, 10), top_items(users, items, 10)
    assert recall(found.items, exact.items) > 0.9
    np.testing.assert_allclose(found.scores[:, 0], exact.scores[:, 0], rtol=0.2)


def test_other_models_and_unnamed_towers_are_refused(small_store, trained_run, tmp_path):
    with pytest.raises(UserError, match="gives rows a score, not users and items a vector"):
        Retriever.of(hyperrec_jax.load(trained_run)._predictor)
    config = tiny_config(small_store, **{"model.name": "two_tower"})
    rows = small_store.split("train")
    config["model"]["user_fields"] = ("cuntry",)
    with pytest.raises(UserError, match="user_fields: no field 'cuntry'; did you mean country"):
        resolve(config, small_store.schema, rows)
    del config["model"]["user_fields"]
    with pytest.raises(UserError, match=r"name the fields of each tower.* country, item, price"):
        resolve(config, small_store.schema, rows)


def test_the_scorer_says_what_its_lists_were_trained_by(model):
    kept = ListScorer.load(model.folder / "list_scorer.json")
    assert json.loads((model.folder / "list_scorer.json").read_text())["fusion"] == "log_odds"
    assert kept.fusion == "log_odds"
    front = model.evaluate(preferences=3)
    assert front.lists.first.fusion == "log_odds"
