"""Variety as a goal, from the description to the server: one order, whoever is asked."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import hyperrec_jax
from benchmarks.server_bodies import RunningApp
from hyperrec_jax import Model
from hyperrec_jax.commands import rank as rank_command
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.evaluation.list_goals import coverage, top_rows
from hyperrec_jax.evaluation.varied import variety_rates
from hyperrec_jax.preference import list_goals as soft
from hyperrec_jax.preference.expected_gain import structured_score
from hyperrec_jax.serving.export import export
from hyperrec_jax.serving.http import create_app
from hyperrec_jax.training.list_loss import TEMPERATURE, ranking_loss
from hyperrec_jax.training.train import train
from tests.conftest import tiny_config, write_own_data

pytestmark = pytest.mark.slow

VARIETY = "goals: [click, {name: variety, kind: variety, of: country, column: click}]"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variety")
    path = write_own_data(folder)
    path.write_text(path.read_text().replace("labels: [click, buy]", VARIETY))
    store = prepare_store(csv_source(path), folder / "store", 0.1)
    lists = {"list.loss": "lambda_ndcg", "list.epochs": 1, "list.batch_size": 256}
    lists["list.variety_weight"] = 1.0
    options = {"model.name": "film", "sampler.name": "fixed", "train.epochs": 1, "list.cutoff": 3}
    train(tiny_config(store, **options, **lists), folder / "run", store)
    return Model.load(folder / "run", store)


@pytest.fixture(scope="module")
def rows(model):
    return pd.read_csv(model.store.path.parent / "log.csv").tail(500)


def test_lists_are_measured_by_their_variety(model):
    front = model.evaluate(preferences=5, resamples=10)
    first = front.lists.first
    assert (first.fusion, first.measures) == ("marginal_gain", ("ndcg", "coverage"))
    assert first.label(1) == "coverage@10 variety"
    # Sessions have five rows, so that all of them are among the first ten.
    np.testing.assert_allclose(first.ndcg[:, 1], 1)
    record = first.records()[0]
    assert "coverage@10/variety" in record
    assert not {"map/variety", "ndcg@10/variety"} & set(record)


def test_scales_and_selection_are_those_of_the_goal(model):
    run = resolve(model.config, model.schema, model.store.split("train"))
    rates = variety_rates(model.schema, model.store.split("train"))
    assert run.lists.scales[1] == pytest.approx(rates[1])
    assert model.list_scorer().scales[1] == pytest.approx(rates[1])
    assert 0.2 < rates[1] < 1
    np.testing.assert_array_equal(run.lists.of_rows, [1, 0])


def test_training_charges_what_lists_fall_short(model):
    run = resolve(model.config, model.schema, model.store.split("train"))
    lists = run.lists
    batch = {name: jnp.asarray(column[0]) for name, column in lists.reader.read(0, 1).items()}
    generator = np.random.default_rng(0)
    shape = (len(batch["labels"]), 2)
    logits = jnp.asarray(generator.normal(size=shape), jnp.float32)
    preferences = jnp.asarray(generator.dirichlet([1, 1], lists.reader.lists_per_batch))
    of_row = jnp.take(preferences, batch["list_index"], axis=0, mode="clip")
    gains = batch["labels"].astype(jnp.float32)

    def loss(weight):
        weighted = dataclasses.replace(lists, variety_weight=weight)
        return ranking_loss(weighted, logits, gains, of_row, preferences, batch)

    real = np.flatnonzero(batch["mask"])
    scores = structured_score(logits, of_row, jnp.asarray(lists.scales))
    short = []
    for one in np.unique(batch["list_index"][real]):
        rows = real[batch["list_index"][real] == one]
        countries = batch["categorical"][rows, 0][None]
        mask = jnp.ones((1, len(rows)), bool)
        value = soft.coverage(scores[rows][None], countries, mask, k=3, temperature=TEMPERATURE)
        short.append(preferences[one, 1] * (1 - value[0]))
    assert loss(2.0) - loss(0.0) == pytest.approx(2 * np.mean(short), rel=1e-3)


def test_weight_on_variety_brings_every_country_to_the_top(model, rows):
    groups, countries = rows["session"].to_numpy(), rows["country"].to_numpy()
    shown = []
    for preference in ([1, 0], [0, 1]):
        ranked = model.rank(rows, preference)
        shown.append(coverage(top_rows(ranked.score[None], groups, 3), countries).mean())
    assert shown[1] == 1 > shown[0]
    plain = model.rank(rows, [0.5, 0.5], fusion="expected_gain")
    assert not np.array_equal(plain.rank, model.rank(rows, [0.5, 0.5]).rank)


def test_file_server_and_export_have_the_same_order(model, rows, tmp_path):
    preference = [0.4, 0.6]
    expected = model.rank(rows, preference)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    written = tmp_path / "ranked.parquet"
    arguments = ["--workdir", str(model.folder), "--input", str(tmp_path / "rows.csv")]
    rank_command.main([*arguments, "--preference", "0.4,0.6", "--output", str(written)])
    ranked = pd.read_parquet(written).sort_values("row")
    np.testing.assert_array_equal(ranked["rank"], expected.rank)
    np.testing.assert_allclose(ranked["score"], expected.score, rtol=1e-5)

    export(model.folder, tmp_path / "model")
    exported = hyperrec_jax.load(tmp_path / "model")
    np.testing.assert_array_equal(exported.rank(rows, preference).rank, expected.rank)
    session = rows[rows["session"] == rows["session"].iloc[0]]
    columns = ["country", "item", "price", "age"]
    body = {"rows": session[columns].to_dict("records"), "preference": preference}
    app = RunningApp(create_app(exported))
    status, content = app.post("/predict", [json.dumps(body).encode()])
    app.close()
    assert status == 200
    answer = json.loads(content)
    np.testing.assert_array_equal(
        np.argsort(answer["order"]) + 1, exported.rank(session, preference).rank
    )
    np.testing.assert_allclose(answer["score"], exported.rank(session, preference).score, rtol=1e-5)
