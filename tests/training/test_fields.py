"""Sets, histories and vectors: trained, measured, exported and served."""

import dataclasses
import json
import os

import jax
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import hyperrec_jax
from benchmarks.server_bodies import RunningApp
from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.config.resolve import create_model, resolve
from hyperrec_jax.data.columns import input_columns
from hyperrec_jax.data.fresh import fresh_source
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import Preprocessor
from hyperrec_jax.serving.from_workdir import make_scores
from hyperrec_jax.serving.http import create_app
from hyperrec_jax.serving.scoring_files import predict_file
from hyperrec_jax.training.fresh import fresh_store
from hyperrec_jax.training.log import read_metrics
from hyperrec_jax.training.trained import load_trained
from hyperrec_jax.training.warm_start import warm_start
from hyperrec_jax.training.workdir import load_schema
from tests.conftest import ROOT, TINY_MODEL
from tests.support.together import run_together
from tests.training.run_fields_mesh import run as run_on_mesh

pytestmark = pytest.mark.slow

ROWS, ITEMS, KINDS = 6000, 40, 20
HISTORY = {"name": "history", "shares": "item", "max_length": 10}
FIELDS = {
    "categorical": ["item", {"name": "last", "shares": "item"}],
    "sets": ["tags"],
    "vectors": [{"name": "picture", "size": 2}],
}
OPTIONS = TINY_MODEL | {
    "model.name": "sharedbottom",
    "model.embedding_dim": 8,
    "model.bottom_widths": (16,),
    "model.tower_widths": (8,),
    "model.dropout": 0.0,
    "train.epochs": 7,
    "train.batch_size": 128,
    "train.calibrate": False,  # predictions are the model's own
    "optimizer.learning_rate": 0.01,
}


def history_log():
    """A log in which the click depends on whether the history has an item of the target's kind."""
    rng = np.random.default_rng(0)
    history = [rng.integers(0, ITEMS, length) for length in rng.integers(4, 11, ROWS)]
    item = rng.integers(0, ITEMS, ROWS)
    match = [(seen % KINDS == it % KINDS).any() for seen, it in zip(history, item, strict=True)]
    rows = {
        "item": item,
        "last": [seen[-1] for seen in history],
        "history": [seen.tolist() for seen in history],
        "tags": [list(rng.choice(["a", "b", "c"], size)) for size in rng.integers(0, 4, ROWS)],
        "picture": list(rng.normal(size=(ROWS, 2)).astype(np.float32)),
        "click": (rng.random(ROWS) < np.where(match, 0.9, 0.1)).astype(int),
    }
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def log():
    return history_log()


@pytest.fixture(scope="module")
def store(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "shop"
    return hyperrec_jax.prepare(log, folder, labels=["click"], sequences=[HISTORY], **FIELDS)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    hyperrec_jax.fit(store, folder, OPTIONS)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    hyperrec_jax.load(run).export(folder)
    return hyperrec_jax.load(folder)


def best_auc(folder):
    return max(entry["auc/click"] for entry in read_metrics(folder) if "auc/click" in entry)


def test_a_history_tells_through_its_target_alone(log, run, tmp_path):
    assert best_auc(run) > 0.75
    mean = HISTORY | {"pooling": "mean"}
    store = hyperrec_jax.prepare(
        log, tmp_path / "mean", labels=["click"], sequences=[mean], **FIELDS
    )
    hyperrec_jax.fit(store, tmp_path / "run", OPTIONS)
    assert best_auc(tmp_path / "run") < 0.7


@pytest.mark.slow
def test_four_devices_give_the_losses_of_one(store):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    command = ["-m", "tests.training.run_fields_mesh", str(store.path), "4"]
    (printed,) = run_together([command], os.environ | environment)
    found = json.loads(printed.splitlines()[-1])
    np.testing.assert_allclose(found, run_on_mesh(store, 1), rtol=1e-5)


def test_an_exported_model_says_what_its_run_says(log, run, exported):
    rows = log.head(50)
    expected = hyperrec_jax.load(run).predict(rows)
    np.testing.assert_allclose(exported.predict(rows), expected, atol=1e-5)
    empty = rows.assign(history=[[]] * 50, tags=[None] * 50)
    assert np.isfinite(exported.predict(empty)).all()
    assert np.abs(exported.predict(empty) - expected).max() > 0.01


def test_a_server_takes_lists(log, exported):
    rows = log.head(3).drop(columns="click")
    records = [
        {name: np.asarray(value).tolist() for name, value in row.items()}
        for row in rows.to_dict("records")
    ]
    app = RunningApp(create_app(exported))
    try:
        status, answer = app.post("/predict", [json.dumps({"rows": records}).encode()])
        assert status == 200, answer
        scores = json.loads(answer)["scores"]
        columns = {name: [record[name] for record in records] for name in records[0]}
        _, other = app.post("/predict", [json.dumps({"columns": columns}).encode()])
        assert json.loads(other) == json.loads(answer)
        np.testing.assert_allclose(scores, exported.predict(rows), atol=1e-5)
        for name, value, why in (
            ("history", [[1]], "column 'history': [[1]] has an element that is neither text"),
            ("history", {"a": 1}, "is neither text nor a number"),
            ("history", "1|2", "it is not known what separates its values"),
            ("item", [1], "column 'item': [1] is neither text nor a number"),
            ("picture", [1.0], "column 'picture': [1.0] has 1 numbers instead of 2"),
        ):
            odd = json.dumps({"rows": [records[0] | {name: value}]}).encode()
            status, answer = app.post("/predict", [odd])
            assert status == 400
            assert why in json.loads(answer)["error"]
    finally:
        app.close()


def test_one_encoding_of_lists_serves_predictions_and_their_order(store):
    schema = dataclasses.replace(store.schema, tasks=("click", "buy"), goals=())
    config = overridden(defaults.get_config().to_dict(), TINY_MODEL)
    model = create_model(config, schema)
    rows = store.split("test").slice(0, 5)
    own = np.random.default_rng(0).dirichlet([1, 1], 5).astype(np.float32)
    scores = make_scores(model, schema)
    arrays = [rows[column.name] for column in input_columns(schema)]

    @jax.jit
    def both_and_each():
        variables = model.init(jax.random.key(0), rows, own, False)
        equal = np.full((5, 2), 0.5, np.float32)
        expected = [scores["each"](variables, *arrays, weights) for weights in (own, equal)]
        return scores["both"](variables, *arrays, own), expected

    found, expected = both_and_each()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4


def as_text(frame):
    """Lists as text with a separator, as CSV files have them."""
    return frame.assign(
        history=["|".join(map(str, seen)) for seen in frame["history"]],
        tags=["|".join(tags) for tags in frame["tags"]],
        picture=[" ".join(map(repr, map(float, numbers))) for numbers in frame["picture"]],
    )


def described(form):
    text = ', separator: "|"' if form == "csv" else ""
    numbers = ', separator: " "' if form == "csv" else ""
    return (
        f"files: {{train: log.{form}}}\n"
        "categorical: [item, {name: last, shares: item}]\n"
        f"sets: [{{name: tags{text}}}]\n"
        f"sequences: [{{name: history, shares: item, max_length: 10{text}}}]\n"
        f"vectors: [{{name: picture, size: 2{numbers}}}]\nlabels: [click]\n"
    )


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_files_and_frames_make_the_same_store(log, store, form, tmp_path):
    frame = as_text(log) if form == "csv" else log
    if form == "csv":
        frame.to_csv(tmp_path / "log.csv", index=False)
    else:
        pq.write_table(pa.table(frame), tmp_path / "log.parquet")
    (tmp_path / "own.yaml").write_text(described(form))
    made = prepare_store(csv_source(tmp_path / "own.yaml"), tmp_path / "store")
    for name in ("train", "validation", "test"):
        own, other = made.split(name), store.split(name)
        assert len(own) == len(other)
        mine, theirs = own.slice(0, len(own)), other.slice(0, len(other))
        assert mine.keys() == theirs.keys()
        for key in mine:
            np.testing.assert_allclose(mine[key], theirs[key], atol=1e-6)
    assert made.vocabulary("history").equals(store.vocabulary("item"))
    assert len(made.vocabulary("tags")) == 3


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "rows", "text"])
def test_every_form_of_a_row_is_read_as_prepare_read_it(log, store, form, tmp_path):
    frame = log.drop(columns="click")
    if form == "text":
        (tmp_path / "own.yaml").write_text(described("csv"))
        as_text(log).to_csv(tmp_path / "log.csv", index=False)
        store = prepare_store(csv_source(tmp_path / "own.yaml"), tmp_path / "store")
    preprocess = Preprocessor.open(store.schema, store.path / "vocabulary.arrow")
    rows = {
        "pandas": lambda: frame,
        "polars": lambda: pl.DataFrame(frame.to_dict("list")),
        "arrow": lambda: pa.table(frame),
        "rows": lambda: frame.to_dict("records"),
        "text": lambda: as_text(frame),
    }[form]()
    _, _, *several = preprocess(rows).arrays
    # Rows of the store by what they hold, whatever their order.
    stored = [
        np.concatenate([store.split(s).slice(0, len(store.split(s)))[key] for s in
                        ("train", "validation", "test")])
        for key in ("multivalued", "vectors")
    ]  # fmt: skip
    for own, expected in zip(several, stored, strict=True):
        own, expected = np.round(own, 4), np.round(expected, 4)
        np.testing.assert_allclose(
            own[np.lexsort(own.T)], expected[np.lexsort(expected.T)], atol=1e-3
        )


def test_files_of_lists_are_scored(log, exported, tmp_path):
    rows = log.head(20).drop(columns="click")
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    target = tmp_path / "scored.parquet"
    predict_file(exported, tmp_path / "rows.parquet", target, np.ones((1, 1), np.float32))
    scored = pq.read_table(target)["click"].to_numpy()
    np.testing.assert_allclose(scored, exported.predict(rows)[:, 0], atol=1e-5)


def test_a_fresh_log_of_lists_is_evaluated(log, run, tmp_path):
    fresh = log.tail(500)
    front = hyperrec_jax.load(run).evaluate(fresh)
    predicted = hyperrec_jax.load(run).predict(fresh)[:, 0]
    expected = roc_auc_score(fresh["click"], predicted)
    assert front.auc[0, 0] == pytest.approx(expected, abs=1e-4)
    # The same from a text file, whose description says what separates the values.
    as_text(fresh).to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "own.yaml").write_text(described("csv"))
    schema = load_schema(run)
    with fresh_store(run, lambda _: fresh_source(tmp_path / "own.yaml", schema)) as store:
        rows = store.split("test").slice(0, 500)
        assert (rows["multivalued"] >= 0).sum() == fresh["history"].map(len).sum() + fresh[
            "tags"
        ].map(len).sum()


def test_a_run_begins_at_the_model_of_older_histories(log, run, tmp_path):
    newer = log.head(900).assign(item=log["item"][:900] + 5)
    store = hyperrec_jax.prepare(
        newer, tmp_path / "own", labels=["click"], sequences=[HISTORY], **FIELDS
    )
    config = overridden(defaults.get_config().to_dict(), OPTIONS | {"data.store": str(store.path)})
    begun = resolve(config, store.schema, store.split("train"))
    warm = warm_start(begun, store, run)
    rows = store.split("test").slice(0, 50)
    found = begun.model.apply(warm.variables, rows, np.ones(1, np.float32), False)
    values = store.vocabulary("item").to_pylist()
    names = ["", *values]
    raw = {
        "item": [names[i] for i in rows["categorical"][:, 0]],
        "last": [names[i] for i in rows["categorical"][:, 1]],
        "tags": [
            [["", "a", "b", "c"][i] for i in row if i >= 0] for row in rows["multivalued"][:, :20]
        ],
        "history": [[names[i] for i in row if i >= 0] for row in rows["multivalued"][:, 20:]],
        "picture": (
            rows["vectors"] * np.array(store.schema.vectors[0].std)
            + np.array(store.schema.vectors[0].mean)
        ).tolist(),
    }
    expected = hyperrec_jax.load(run).predict(pa.table(raw))
    calibrator = load_trained(run).calibrator
    logits = np.asarray(found)
    logits = logits if calibrator is None else calibrator.apply(logits, np.ones((1, 1)))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sets": [{"name": "tags", "pooling": "max"}]}, "pooling: 'max'; there are mean, sum"),
        ({"sets": [{"name": "tags", "max_values": 0}]}, "max_values: 0 is not a whole number"),
        ({"sets": [{"name": "tags", "size": 3}]}, "unknown key 'size'; there are hash_buckets"),
        ({"sets": [{"name": "tags", "shares": "no"}]}, "tags: shares: no field 'no'"),
        ({"sequences": [{"name": "history", "pooling": "target_attention"}]}, "name it, as in"),
        ({"sequences": [{"name": "history", "target": "no"}]}, "no categorical field 'no'"),
        (
            {"sequences": [{"name": "history", "target": "item", "pooling": "mean"}]},
            "only pooling: target_attention and",
        ),
        ({"sets": [{"name": "tags", "pooling": "transformer"}]}, "a transformer reads the order"),
        ({"vectors": [{"name": "picture"}]}, "say how many numbers each row has"),
        ({"vectors": [{"name": "picture", "size": 3}]}, r"row 1, column 'picture': .* has 2 num"),
        ({"categorical": ["item", {"name": "last", "shares": "last"}]}, "last: shares: no field"),
        ({"categorical": ["item", "tags"]}, r"row 1, column 'tags': .* is of type list.*"),
        ({"sets": ["item"]}, "column 'item' is used twice"),
        ({"sets": ["last"]}, "row 1, column 'last': .* is of type int64; give lists of values"),
        ({"vectors": [{"name": "tags", "size": 2}]}, r"row 2, column 'tags': \[\] has 0 numbers"),
    ],
)
def test_refusals(log, fields, message, tmp_path):
    given = {"categorical": ["item"], "labels": ["click"]} | fields
    with pytest.raises(UserError, match=message) as told:
        hyperrec_jax.prepare(log.head(40), tmp_path / "own", **given)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "own").exists()
