"""A goal of fairness beside a goal that it reads: traded off, measured, guarded and served."""

import json

import numpy as np
import pandas as pd
import pytest

import hyperrec_jax
from benchmarks.server_bodies import RunningApp
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.http import create_app
from tests.conftest import TINY_MODEL, tiny_config

pytestmark = pytest.mark.slow

ROWS = 6000
GOALS = [
    {"name": "income", "kind": "binary"},
    {"name": "equal", "kind": "fairness", "of": "income", "column": "sex", "value": "female"},
]


def people():
    """Of two groups, one of which a feature tells, and which earns less for the same skill."""
    rng = np.random.default_rng(0)
    female, skill = rng.random(ROWS) < 0.4, rng.normal(size=ROWS)
    hint = np.where(rng.random(ROWS) < 0.95, female, ~female)
    income = rng.random(ROWS) < 1 / (1 + np.exp(-(2 * skill - 2.5 * female + 1)))
    return pd.DataFrame(
        {
            "skill": skill,
            "hint": hint.astype(int),
            "sex": np.where(female, "female", "male"),
            "income": income.astype(int),
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people") / "store"
    return hyperrec_jax.prepare(
        people(), folder, categorical=["hint"], numerical=["skill"], goals=GOALS
    )


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    options = {
        "model.name": "film",
        "model.norm": "layer",
        "model.dropout": 0.0,
        "model.bottom_widths": (16,),
        "train.batch_size": 512,
        "train.epochs": 40,
        "train.patience": 0,
        "train.preferences": 4,
        "sampler.corners": 0.3,
        "optimizer.learning_rate": 0.01,
    }
    hyperrec_jax.fit(store, folder, TINY_MODEL | options)
    return folder


def difference(frame, predicted):
    """The hard measure, from what a user has: predictions and a column."""
    positive = frame["income"] == 1
    yes = predicted > 0.5
    rates = [yes[positive & (frame["sex"] == sex)].mean() for sex in ("female", "male")]
    return abs(rates[0] - rates[1])


def test_the_preference_buys_fairness(run):
    frame, model = people(), hyperrec_jax.load(run)
    for_income, fair = (model.predict(frame, np.float32(r)) for r in ([1, 0], [0.1, 0.9]))
    unequal, equal = difference(frame, for_income[:, 0]), difference(frame, fair[:, 0])
    assert unequal > 0.08
    assert equal < 0.5 * unequal
    # What stands in the place of a prediction is the decision that the goal compares.
    np.testing.assert_array_equal(fair[:, 1], fair[:, 0] > 0.5)


def test_the_front_has_the_hard_measure(run):
    frame = people().head(2000)
    frame["equal"] = frame["sex"]  # a frame names its columns as the goals
    preferences = np.float32([[0.9, 0.1], [0.3, 0.7]])
    model = hyperrec_jax.load(run)
    front = model.evaluate(frame, preferences=preferences)
    assert front.primary == ("auc", "rate_difference")
    measured = front.measures["rate_difference/equal"]
    for weights, value in zip(preferences, measured, strict=True):
        expected = difference(frame, model.predict(frame, weights)[:, 0])
        assert value == pytest.approx(expected, abs=0.01)
    assert measured[1] < measured[0]
    assert front.loss[0, 1] == pytest.approx(measured[0], abs=0.1)  # a sharp stand-in
    assert front.labelled[1] == (frame["income"] == 1).sum()
    assert np.isfinite(front.hypervolume)


def test_it_is_suggested_by_its_name(run):
    found = hyperrec_jax.load(run).suggest(
        "max:income", guard="rate_difference/equal<=+0.05", baseline=[0.1, 0.9]
    )
    assert "rate_difference/equal" in str(found)


def test_it_is_exported_and_served(run, tmp_path):
    hyperrec_jax.load(run).export(tmp_path / "model")
    exported = hyperrec_jax.load(tmp_path / "model")
    rows = people().head(4).drop(columns=["income", "sex"])
    expected = exported.predict(rows, np.float32([0.2, 0.8]))
    app = RunningApp(create_app(exported))
    try:
        records = json.loads(rows.to_json(orient="records"))
        body = {"rows": records, "preference": {"income": 0.2, "equal": 0.8}}
        status, answer = app.post("/predict", [json.dumps(body).encode()])
        assert status == 200, answer
        np.testing.assert_allclose(json.loads(answer)["scores"], expected, atol=1e-5)
    finally:
        app.close()


def test_models_of_funnels_and_probabilities_leave_it_alone(store):
    for name in ("esmm", "aitm", "metaheac", "ple", "phn", "singletask"):
        run = resolve(tiny_config(store, model__name=name), store.schema, store.split("train"))
        assert run.model.num_towers == 1
        assert run.goals[1].outputs == 0


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        ([GOALS[1] | {"of": "incom"}, GOALS[0]], "of: no goal 'incom' of kind binary; did you"),
        ([GOALS[0], GOALS[1] | {"where": "income"}], "measure deo counts the rows where income"),
        ([GOALS[0] | {"sampling_rate": 0.5}, GOALS[1]], "income has a sampling_rate"),
        ([GOALS[0], GOALS[1] | {"value": "diverse"}], "are of one group"),
        ([GOALS[0], {k: v for k, v in GOALS[1].items() if k != "value"}], "is not a label"),
    ],
)
def test_refusals(goals, message, tmp_path):
    with pytest.raises(UserError, match=message) as told:
        hyperrec_jax.prepare(people().head(500), tmp_path / "s", numerical=["skill"], goals=goals)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "s").exists()


def test_a_vector_for_each_goal_is_refused(store):
    config = tiny_config(store, model__name="two_tower")
    with pytest.raises(UserError, match="goal 'equal' of fairness is none of single rows"):
        resolve(config, store.schema, store.split("train"))


def test_rows_with_preferences_of_their_own_are_refused(store):
    config = tiny_config(store, train__preference_per_row=True)
    with pytest.raises(UserError, match="goal 'equal' of fairness compares the rows"):
        resolve(config, store.schema, store.split("train"))
