"""The list score in every product: one number, whoever is asked."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import polars as pl
import pytest

import hyperrec_jax
from benchmarks.server_bodies import RunningApp
from hyperrec_jax.commands import predict as predict_command
from hyperrec_jax.commands import rank as rank_command
from hyperrec_jax.data.schema import GoalField
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import FUSIONS, ListScorer
from hyperrec_jax.evaluation.ranks import ranks
from hyperrec_jax.preference.expected_gain import structured_score
from hyperrec_jax.serving.export import export
from hyperrec_jax.serving.http import create_app
from hyperrec_jax.training.fit_calibrator import CALIBRATOR
from hyperrec_jax.training.fit_scorer import LIST_SCORER, fit_scorer, kept_scorer
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from tests.conftest import tiny_config

PREFERENCE = [0.3, 0.7]


@pytest.fixture(scope="module", params=["centre", "preference"])
def run(request, trained_run, tmp_path_factory):
    """`trained_run`, with lists of predictions at either place."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(trained_run, folder)
    scorer = ListScorer.load(folder / LIST_SCORER)
    dataclasses.replace(scorer, at=dict.fromkeys(FUSIONS, request.param)).save(folder / LIST_SCORER)
    (folder / CALIBRATOR).unlink()  # lists are made of the model's own outputs: so are predictions
    return folder


@pytest.fixture(scope="module")
def exported(run):
    export(run, run.parent / "model")
    return run.parent / "model"


@pytest.fixture(scope="module")
def rows(small_store):
    return pd.read_csv(small_store.path.parent / "log.csv").head(300)


def by_hand(model, rows, fusion="expected_gain"):
    """The score from what `predict` gives, in float64 as far as that goes."""
    scorer = model.list_scorer()
    asked = PREFERENCE if scorer.place(fusion) == "preference" else [0.5, 0.5]
    chances = model.predict(rows, asked).astype(np.float64)
    return scorer.score(np.log(chances / (1 - chances)), PREFERENCE, fusion)


def test_model_export_server_predict_and_rank_agree(run, exported, rows, tmp_path):
    model, served = hyperrec_jax.load(run), hyperrec_jax.load(exported)
    expected = by_hand(model, rows)
    ranked = model.rank(rows, PREFERENCE)
    np.testing.assert_allclose(ranked.score, expected, rtol=2e-5, atol=1e-6)
    expected = ranked.score
    again = served.rank(rows, PREFERENCE)
    np.testing.assert_allclose(again.score, expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(ranked.rank, ranks(ranked.score, rows["session"]))
    # predict
    rows.to_csv(tmp_path / "rows.csv", index=False)
    arguments = ["--input", str(tmp_path / "rows.csv"), "--preference", "3,7"]
    for folder in (run, exported):
        target = tmp_path / f"{folder.name}.parquet"
        predict_command.main(["--workdir", str(folder), "--output", str(target), *arguments])
        table = pl.read_parquet(target)
        assert table.columns == ["session", "click", "buy", "score"]
        np.testing.assert_allclose(table["score"], expected, rtol=2e-6, atol=1e-6)
        chances = model.predict(rows, PREFERENCE)
        np.testing.assert_allclose(table[["click", "buy"]].to_numpy(), chances, atol=1e-6)
    # rank
    target = tmp_path / "ranked.parquet"
    rank_command.main(["--model", str(exported), "--output", str(target), *arguments])
    table = pl.read_parquet(target)
    assert table.columns == ["session", "row", "click", "buy", "score", "rank"]
    np.testing.assert_allclose(table["score"], expected[table["row"] - 1], rtol=2e-6, atol=1e-6)
    assert table["session"].cast(pl.Int64).to_list() == rows["session"][table["row"] - 1].tolist()
    assert table["row"].sort().to_list() == list(range(1, 301))
    for _, part in table.group_by("session", maintain_order=True):
        assert part["rank"].to_list() == list(range(1, len(part) + 1))
        assert part["score"].is_sorted(descending=True)
    first = table["session"].unique(maintain_order=True).cast(pl.Int64).to_list()
    assert first == rows["session"].unique().tolist()  # lists in their order of appearance
    # server
    app = RunningApp(create_app(served))
    columns = ["country", "item", "price", "age"]
    body = {"rows": rows[columns].to_dict("records"), "preference": PREFERENCE}
    status, answer = app.post("/predict", [json.dumps(body).encode()])
    app.close()
    assert status == 200
    found = json.loads(answer)
    np.testing.assert_allclose(found["score"], expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found["scores"], chances, rtol=0, atol=1e-6)
    values = np.array(found["score"])
    assert (np.diff(values[found["order"]]) <= 0).all()
    assert sorted(found["order"]) == list(range(300))


def test_fusions_preferences_and_groups_of_ones_own(run, rows):
    model = hyperrec_jax.load(run)
    for fusion in FUSIONS:
        found = model.rank(rows, PREFERENCE, fusion=fusion).score
        np.testing.assert_allclose(found, by_hand(model, rows, fusion), rtol=1e-4, atol=1e-5)
    both = model.rank(rows, [[0.3, 0.7], [0.9, 0.1]])
    assert both.score.shape == both.rank.shape == (2, 300)
    one = model.rank(rows, [0.9, 0.1])
    np.testing.assert_allclose(both.score[1], one.score, rtol=0, atol=1e-6)
    whole = model.rank(rows.drop(columns="session"))  # no list is named: all rows are one
    np.testing.assert_array_equal(np.sort(whole.rank), np.arange(1, 301))
    named = model.rank(rows, group="country").rank
    given = model.rank(rows.drop(columns="session"), group=rows["country"].to_numpy()).rank
    np.testing.assert_array_equal(named, given)
    dictionaries = model.rank(rows.to_dict("records"), group="country").rank
    np.testing.assert_array_equal(named, dictionaries)
    for group, message in (
        ("shop", "lack column 'shop'"),
        ([1, 2], "group has 2 values for 300 rows"),
        ([None, *range(299)], "row 1: names no list"),
    ):
        with pytest.raises(UserError, match=message):
            model.rank(rows, group=group)
    with pytest.raises(UserError, match="row 3 lacks column 'session'"):
        model.rank(
            [*rows.head(2).to_dict("records"), rows.drop(columns="session").iloc[2].to_dict()],
            group="session",
        )
    with pytest.raises(UserError, match="fusion 'best'"):
        model.rank(rows, fusion="best")


def test_rank_refuses_what_it_cannot_order(run, rows, tmp_path):
    rows.drop(columns="session").to_csv(tmp_path / "rows.csv", index=False)
    arguments = ["--workdir", str(run), "--input", str(tmp_path / "rows.csv")]
    arguments += ["--output", str(tmp_path / "ranked.csv")]
    for more, message in (
        ([], "lacks column 'session'"),
        (["--group", "country", "--preference", "1,0;0,1"], "a list has one order"),
        (["--group", "country", "--fusion", "mean"], "fusion 'mean': there are expected_gain"),
    ):
        with pytest.raises(UserError, match=message):
            rank_command.main([*arguments, *more])
    assert not (tmp_path / "ranked.csv").exists()
    rank_command.main([*arguments, "--group", "country", "--keep", "item"])
    assert pl.read_csv(tmp_path / "ranked.csv").columns[:3] == ["item", "country", "row"]


def test_training_fits_the_scorer_of_the_selected_state(trained_run, small_store):
    model = hyperrec_jax.load(trained_run)
    scorer = kept_scorer(trained_run, model.progress.best_step)
    assert scorer is not None
    assert kept_scorer(trained_run, model.progress.best_step + 1) is None
    rows = small_store.split("validation")
    np.testing.assert_allclose(scorer.scales, np.array(rows.positives) / len(rows))
    assert set(scorer.validation) == set(FUSIONS)
    for fusion, found in scorer.validation.items():
        assert scorer.at[fusion] == max(found, key=lambda place: found[place])


def test_the_centre_is_asked_apart_where_the_grid_lacks_it(trained_run, small_store):
    trained = load_trained(trained_run)
    four = trained.config | {"train": trained.config["train"] | {"grid": 4}}
    assert trained.config["train"]["grid"] == 5
    one = fit_scorer(trained, small_store)
    other = fit_scorer(dataclasses.replace(trained, config=four), small_store)
    for a, b in zip(one.calibrators["centre"], other.calibrators["centre"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_run_of_an_earlier_release(trained_run, small_store, rows, tmp_path, caplog):
    old = tmp_path / "old"
    shutil.copytree(trained_run, old)
    (old / LIST_SCORER).unlink()
    # Its data is there: the scorer is fitted as it is asked for, and is the same.
    expected = hyperrec_jax.load(trained_run).rank(rows, PREFERENCE)
    found = hyperrec_jax.load(old).rank(rows, PREFERENCE)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)
    # Its data is gone: predictions go on, lists are refused in one line.
    config = json.loads((old / "config.json").read_text())
    config["data"]["store"] = str(tmp_path / "gone")
    (old / "config.json").write_text(json.dumps(config))
    model = hyperrec_jax.load(old)
    assert model.predict(rows).shape == (300, 2)
    assert f"no score for lists: --workdir {old}: has no list_scorer.json" in caplog.text
    with pytest.raises(UserError, match="the model has no list scorer"):
        model.rank(rows)
    export(old, tmp_path / "model")
    served = hyperrec_jax.load(tmp_path / "model")
    with pytest.raises(UserError, match="the model has no list scorer"):
        served.rank(rows)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    arguments = ["--input", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "s.csv")]
    predict_command.main(["--workdir", str(tmp_path / "model"), *arguments])
    assert pl.read_csv(tmp_path / "s.csv").columns == ["session", "click", "buy"]
    (old / LIST_SCORER).write_text("{}")
    with pytest.raises(UserError, match=r"list_scorer\.json: damaged"):
        hyperrec_jax.load(old).list_scorer()


@pytest.mark.slow
def test_a_model_without_preference_has_lists_of_every_preference(small_store, rows, tmp_path):
    options = {"model__name": "sharedbottom", "train__epochs": 1, "train__calibrate": False}
    config = tiny_config(small_store, **options)
    train(config, tmp_path / "run", small_store)
    model = hyperrec_jax.load(tmp_path / "run")
    own = np.array([[0.9, 0.1], [0.2, 0.8]])
    front = model.evaluate(small_store, preferences=own)
    np.testing.assert_array_equal(front.lists.first.preferences, own)
    assert len(front.auc) == 1
    first, last = (model.rank(rows, weights).score for weights in own)
    assert np.corrcoef(first, last)[0, 1] < 0.9999
    chances = model.predict(rows).astype(np.float64)
    expected = model.list_scorer().score(np.log(chances / (1 - chances)), own[0])
    np.testing.assert_allclose(first, expected, rtol=1e-4)


@pytest.mark.slow
def test_data_without_groups_has_scores_and_no_lists(small_store, rows, tmp_path):
    store = copy.copy(small_store)
    store.schema = dataclasses.replace(small_store.schema, group=None)
    train(tiny_config(store, train__epochs=1), tmp_path / "run", store)
    model = hyperrec_jax.Model.load(tmp_path / "run", store)
    assert model.evaluate(store, preferences=3).lists is None
    scorer = model.list_scorer()
    assert scorer.validation == {}
    assert scorer.place() == "centre"
    ranked = model.rank(rows, PREFERENCE)
    np.testing.assert_array_equal(ranked.rank, ranks(ranked.score))


def test_a_model_that_was_trained_on_lists_has_their_score(trained_run, small_store):
    trained = load_trained(trained_run)
    config = trained.config | {"list": {"loss": "lambda_ndcg"}}
    trained = dataclasses.replace(trained, config=config)
    scorer = fit_scorer(trained, small_store)
    logits = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    train_rows = small_store.split("train")
    scales = np.array(train_rows.positives) / len(train_rows)
    for weights in np.array([[0.3, 0.7], [1.0, 0.0]]):
        assert scorer.place() == "preference"
        expected = structured_score(logits, weights, scales)
        np.testing.assert_allclose(np.log(scorer.score(logits, weights)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goals": (GoalField("click"), GoalField("buy", "count"))}, "'buy' is of kind count"),
        ({"label_dtype": "float32"}, "labels are missing in some rows"),
    ],
)
def test_goals_without_a_probability_of_every_row_have_no_list_score(
    trained_run, small_store, change, message
):
    trained = load_trained(trained_run)
    schema = dataclasses.replace(trained.schema, **change)
    trained = dataclasses.replace(trained, schema=schema)
    with pytest.raises(UserError, match=message):
        fit_scorer(trained, small_store)
