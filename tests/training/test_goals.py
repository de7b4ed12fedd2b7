"""Goals of every kind with a loss for each row: trained, measured, exported and served."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hyperrec_jax
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.measures import loss_of_rows
from hyperrec_jax.goals import Statistics
from hyperrec_jax.goals.losses import batch_losses, output_slices, predict_all, row_losses
from hyperrec_jax.preference.normalisation import constant_losses
from hyperrec_jax.reports.summary import front_summary
from hyperrec_jax.training.dispatch import make_step
from hyperrec_jax.training.measured import Measurer
from hyperrec_jax.training.state import first_state
from tests.conftest import TINY_MODEL, tiny_config
from tests.data.sources.test_goal_columns import GOALS, log

pytestmark = pytest.mark.slow

FIELDS = {"categorical": ["item"], "weight": "shown"}


def mixed_log(rows=3000):
    """A log whose labels follow from the item, so that there is something to learn."""
    rng = np.random.default_rng(1)
    table = log(rows)
    item = table["item"].to_numpy()
    table["click"] = rng.random(rows) < 0.2 + 0.07 * item
    table["watch"] = np.where(rng.random(rows) < 0.5, 0, np.exp(0.5 * item + rng.normal(size=rows)))
    table["rating"] += item
    table["visits"] = rng.poisson(0.5 + item / 3)
    return table


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return hyperrec_jax.prepare(
        mixed_log(), tmp_path_factory.mktemp("mixed") / "shop", goals=GOALS, **FIELDS
    )


@pytest.fixture(scope="module")
def model(store, tmp_path_factory):
    options = TINY_MODEL | {"train.epochs": 4, "model.num_experts": 2}
    options |= {"optimizer.learning_rate": 0.02}
    options |= {"train.select": "0.5*auc/click+0.5*gini/watch"}
    return hyperrec_jax.fit(store, tmp_path_factory.mktemp("run") / "run", options)


def resolved(store, **overrides):
    return resolve(tiny_config(store, **overrides), store.schema, store.split("train"))


def batch_of(store, rows=256):
    return {name: jnp.asarray(v) for name, v in store.split("train").slice(0, rows).items()}


def test_losses_are_those_of_each_goal_alone(store):
    goals, batch = create_goals(store.schema), batch_of(store)
    outputs = jax.random.normal(jax.random.key(0), (3, 256, sum(g.outputs for g in goals)))
    labels, weights = np.asarray(batch["labels"]), np.asarray(batch["weight"])[:, 0]
    losses = batch_losses(goals, outputs, batch["labels"], batch["weight"][:, 0])
    each = row_losses(goals, outputs[0], batch["labels"], batch["weight"][:, 0])
    np.testing.assert_allclose(each.mean(axis=0), losses[0], rtol=1e-5)
    for index, (goal, place) in enumerate(zip(goals, output_slices(goals), strict=True)):
        present = ~np.isnan(labels[:, index])
        for preference in range(3):
            rows = loss_of_rows(
                goal, labels[present, index], np.asarray(outputs)[preference][present][:, place]
            )
            expected = np.average(rows, weights=weights[present])
            assert losses[preference, index] == pytest.approx(expected, rel=1e-5)


def test_gaps_reach_no_gradient(store):
    goals, batch = create_goals(store.schema), batch_of(store)
    outputs = jax.random.normal(jax.random.key(0), (256, sum(goal.outputs for goal in goals)))
    slopes = jax.grad(lambda o: batch_losses(goals, o, batch["labels"], None).sum())(outputs)
    missing = np.isnan(np.asarray(batch["labels"]))
    assert np.isfinite(slopes).all()
    for index, place in enumerate(output_slices(goals)):
        assert (np.asarray(slopes)[missing[:, index]][:, place] == 0).all()
        assert (np.asarray(slopes)[~missing[:, index]][:, place] != 0).any()


@pytest.mark.parametrize("name", ["pomoe", "mmoe", "phn"])
def test_first_predictions_are_the_best_constants(store, name):
    run = resolved(store, model__name=name)
    variables = first_state(run).variables
    preference = jnp.full(5, 0.2)
    apply = jax.jit(run.model.apply, static_argnums=3)
    outputs = apply(variables, batch_of(store), preference, False)
    assert outputs.shape == (256, 7)
    if name != "phn":  # its towers are generated, and begin where they like
        batch = batch_of(store, 2048)
        outputs = apply(variables, batch, preference, False)
        losses = batch_losses(run.goals, outputs, batch["labels"], batch["weight"][:, 0])
        # Up to what the random weights add to the biases.
        constants = constant_losses(run.goals, store.split("train").statistics)
        np.testing.assert_allclose(losses / constants, 1, atol=0.35)


@pytest.mark.parametrize("per_row", [False, True])
def test_a_step(store, per_row):
    run = resolved(store, train__preference_per_row=per_row)
    step = make_step(run)
    _, metrics = jax.jit(step)(first_state(run), batch_of(store))
    assert np.isfinite(metrics.loss)
    assert metrics.goal_losses.shape == (5,)


def test_every_metric_of_every_kind_can_be_guarded(model, store):
    grid = np.array([[0.2, 0.2, 0.2, 0.2, 0.2], [0.6, 0.1, 0.1, 0.1, 0.1]])
    front = model.evaluate(store, "test", grid)
    opened = Measurer(model, store, "test", resamples=20)
    names = [name for name in front.measures if name in opened.known]
    assert set(front.measures) == set(names)
    found = opened.measure(grid, [opened.known[name] for name in names])
    for column, name in enumerate(names):
        np.testing.assert_allclose(found.values[:, column], front.measures[name], rtol=1e-5)
        spread = found.samples[..., column].std(axis=0)
        assert (spread < 5 * np.abs(found.values[:, column]) + 1).all(), name
        assert spread.any(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model__name": "esmm"}, "multiplies the steps of a funnel itself"),
        ({"model__name": "aitm"}, "computes with probabilities, and goal 'watch' is of kind value"),
        ({"model__name": "metaheac"}, "goal 'watch' is of kind value"),
        ({"train__select": "auc/watch"}, "train.select=auc/watch: no measure.*gini/watch"),
        ({"train__select": "2*"}, "'2\\*' is not a measure"),
        ({"train__select": "-1*auc/click"}, "is not a measure"),
        ({"train__select": "calibration/click"}, "no measure 'calibration/click'"),
    ],
)
def test_refusals(store, options, message):
    with pytest.raises(UserError, match=message):
        resolved(store, **options)


def test_front_of_mixed_kinds(model, store):
    front = model.evaluate(preferences=9, resamples=20)
    assert not front.by_metric  # RMSE and deviance: lower is better
    assert front.hypervolume == front.loss_hypervolume
    assert front.objective == "loss over that of the best constant"
    assert front.primary == ("auc", "auc", "gini", "rmse", "deviance")
    learnt = front.relative_loss.min(axis=0)
    assert (learnt[[0, 2, 3, 4]] < 1).all(), learnt
    assert (learnt[[3, 4]] < 0.95).all(), learnt
    assert front.best()["xauc/watch"] > 0.55
    record = front.records()[0]
    assert {"auc/click", "gini/watch", "loss/watch", "rmse/rating", "d2/visits"} <= set(record)
    test = store.split("test")
    batch = test.slice(0, len(test))
    present = ~np.isnan(batch["labels"])
    assert front.labelled == tuple(present.sum(axis=0))
    # A constant is worth exactly 1.
    watch, weights = batch["labels"][:, 2], batch["weight"][:, 0]
    goal = create_goals(store.schema)[2]
    known = Statistics.of(watch, weights, max_points=None)
    rows = loss_of_rows(goal, watch, np.tile(goal.prior(known), (len(watch), 1)).astype(np.float32))
    assert np.average(rows, weights=weights) == pytest.approx(goal.constant_loss(known), rel=1e-4)
    low, high = front.loss_interval
    inside = (low <= front.loss) & (front.loss <= high)
    assert inside.mean() > 0.7
    assert np.isnan(front.samples.auc).all()  # the rows have weights
    text = front_summary(front)
    assert "of loss over that of the best constant" in text
    assert "labels click" in text
    json.dumps(front.to_dict())
    assert "gini" in str(model.suggest("best:watch,click=10%", front))
    assert "rmse" in str(model.suggest("best:rating", front))
    best = model.suggest("best:rating", front)
    assert best.value[3] == front.measures["rmse/rating"].min()


def test_predictions_of_an_exported_model(model, store, tmp_path):
    rows = mixed_log(50)
    predictions = model.predict(rows, [0.2, 0.2, 0.2, 0.2, 0.2])
    served = hyperrec_jax.load(model.export(tmp_path / "model"))
    np.testing.assert_allclose(served.predict(rows, [0.2] * 5), predictions, rtol=1e-4)
    assert served.goals == create_goals(store.schema)
    assert ((predictions[:, :2] > 0) & (predictions[:, :2] < 1)).all()
    assert (predictions[:, [2, 4]] > 0).all()
    assert np.corrcoef(predictions[:, 3], rows["item"])[0, 1] > 0.5
    # The negatives of buy were thinned out tenfold: its odds are a tenth of those of the log.
    outputs = np.zeros((1, 7))
    assert predict_all(served.goals, outputs)[0, 1] == pytest.approx(0.1 / 1.1)


def test_selection_is_logged(model):
    records = [
        json.loads(line) for line in (model.folder / "metrics.jsonl").read_text().splitlines()
    ]
    for record in records:
        if record["kind"] == "validation":
            expected = 0.5 * record["auc/click"] + 0.5 * record["gini/watch"]
            assert record["value"] == pytest.approx(expected)
