"""A grid in chunks against one preference at a time, and the front's metrics against oracles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from hyperrec_jax.config.resolve import create_model
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import front as evaluation
from hyperrec_jax.evaluation import outputs, pareto
from hyperrec_jax.evaluation.bootstrap import Bootstrap
from hyperrec_jax.evaluation.list_metrics import list_metrics
from hyperrec_jax.evaluation.list_scorer import FUSIONS, scorer_scores
from hyperrec_jax.parallel.mesh import make_mesh
from hyperrec_jax.reports import summary as report
from hyperrec_jax.training.trained import load_trained
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow

PREFERENCES = np.stack([np.linspace(0.05, 0.95, 11), 1 - np.linspace(0.05, 0.95, 11)], axis=1)


def _scored(store, name, preferences):
    config = tiny_config(store, model__name=name)
    model = create_model(config, store.schema)
    batch = store.split("test").slice(0, len(store.split("test")))
    init = jax.jit(model.init, static_argnums=3)
    variables = init(jax.random.key(3), batch, jnp.array([0.5, 0.5]), False)
    score = outputs.make_score_fn(model)
    scores = outputs.score_split(
        score, variables, store.split("test"), preferences, make_mesh(), batch_size=300
    )
    return model, variables, batch, scores


def test_a_grid_in_chunks_is_one_preference_at_a_time(small_store):
    assert len(PREFERENCES) % outputs.PREFERENCES_AT_ONCE
    model, variables, batch, scores = _scored(small_store, "pomoe", PREFERENCES)
    assert scores.logits.shape == (11, 2, len(small_store.split("test")))
    np.testing.assert_array_equal(scores.labels.T, batch["labels"])
    apply = jax.jit(model.apply, static_argnums=3)
    for preference in (0, 7, 10):
        logits = apply(variables, batch, PREFERENCES[preference].astype(np.float32), False)
        np.testing.assert_allclose(scores.logits[preference].T, logits, atol=1e-5)


def test_a_model_without_preference_is_scored_once(small_store):
    model, variables, batch, scores = _scored(small_store, "sharedbottom", PREFERENCES)
    apply = jax.jit(model.apply, static_argnums=3)
    logits = apply(variables, batch, jnp.array([0.5, 0.5]), False)
    assert len(scores.logits) == 1
    np.testing.assert_allclose(scores.logits[0].T, logits, atol=1e-5)
    front = evaluation.evaluate_front(scores, "test", ("click", "buy"), None)
    assert "preference/click" not in front.records()[0]
    assert "correlation" not in report.front_summary(front)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    labels = (rng.random((2, 500)) < [[0.3], [0.1]]).astype(np.uint8)
    return outputs.Scores(
        logits=(rng.normal(size=(3, 2, 500)) + labels).astype(np.float32), labels=labels
    )


def test_the_front_has_the_metrics_of_other_libraries(scores):
    front = evaluation.evaluate_front(scores, "test", ("click", "buy"), PREFERENCES[:3])
    for preference in range(3):
        for task in range(2):
            labels, logits = scores.labels[task], scores.logits[preference, task]
            probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
            np.testing.assert_allclose(front.auc[preference, task], roc_auc_score(labels, logits))
            np.testing.assert_allclose(
                front.log_loss[preference, task], log_loss(labels, probabilities), rtol=1e-6
            )
            ratio = probabilities.sum() / labels.sum()
            np.testing.assert_allclose(front.calibration[preference, task], ratio, rtol=1e-6)
    dominated = [
        any(
            (front.auc[o] >= front.auc[r]).all() and (front.auc[o] != front.auc[r]).any()
            for o in range(3)
        )
        for r in range(3)
    ]
    np.testing.assert_array_equal(front.non_dominated, np.logical_not(dominated))
    assert max(front.auc.prod(axis=1)) <= front.hypervolume <= 1
    text = front.to_csv().splitlines()
    assert len(text) == 4
    assert text[0].startswith("preference/click,preference/buy,auc/click")


def test_relative_losses_are_over_the_entropy_of_the_base_rate(scores):
    front = evaluation.evaluate_front(scores, "test", ("click", "buy"), PREFERENCES[:3])
    rates = scores.labels.mean(axis=1)
    constant = [log_loss(y, np.full(500, p)) for y, p in zip(scores.labels, rates, strict=True)]
    np.testing.assert_allclose(front.relative_loss, front.log_loss / constant, rtol=1e-6)
    expected = pareto.hypervolume(front.relative_loss, 1.0)
    record = front.to_dict()["relative_loss"]
    assert record["hypervolume"] == pytest.approx(expected)
    assert record["span"] == pytest.approx(np.ptp(front.relative_loss, axis=0).min())
    assert 0 < record["angle_to_preference"] < np.pi


def test_the_summary_tells_a_trade_off_from_noise(scores):
    front = evaluation.evaluate_front(scores, "test", ("click", "buy"), PREFERENCES[:3])
    assert "trade" not in report.front_summary(front)
    noise = np.random.default_rng(0).normal(size=(50, 3, 2))
    line = np.linspace(0, 1, 3)
    order = np.argsort(PREFERENCES[:3, 0])
    losses = np.empty((3, 2))
    losses[order] = np.stack([1 - line, line], axis=1)  # obeys its weights
    for size, found, message in (
        (0.01, True, "the preference trades off"),
        (9.0, False, "no trade-off beyond noise"),
    ):
        samples = Bootstrap(noise, losses + size * noise)
        told = dataclasses.replace(front, samples=samples)
        gain = pareto.trade_off(PREFERENCES[:3], samples.loss).gain
        text = " ".join(report.front_summary(told).split())
        assert message in text
        assert f"click {gain[0]:+.5f} ± " in text
        assert told.to_dict()["trade_off"]["found"] is found
        assert told.to_dict()["non_dominated_fraction_beyond_noise"] > 0


def test_lists_of_every_fusion_come_from_one_run_of_the_model(trained_run, small_store):
    trained = load_trained(trained_run)
    front, scores = trained.score(small_store, "test", PREFERENCES[::5])
    lists, fused = trained.lists(small_store, scores, "test", front.preferences, ["all"])
    scorer = trained.list_scorer(small_store)
    assert [one.fusion for one in lists.fronts] == [*np.repeat(FUSIONS, 2), "learned"]
    assert [lists.fronts[i].at for i in (0, 2, 4)] == [scorer.place(name) for name in FUSIONS]
    assert fused.score(scores.logits[0], [0.5, 0.5]).shape == scores.labels[0].shape
    test = small_store.split("test")
    groups = test.groups(0, len(test))
    central = trained.score_rows(small_store, "test", np.array([[0.5, 0.5]])).logits
    for one in lists.fronts[:-1]:
        logits = scores.logits if one.at == "preference" else np.repeat(central, 3, axis=0)
        score = scorer_scores(scorer, logits, PREFERENCES[::5], one.fusion, one.at)
        expected = list_metrics(score, scores.labels, groups, metrics=("ndcg",)).values["ndcg"]
        np.testing.assert_allclose(one.ndcg, np.nanmean(expected, axis=2), atol=1e-6)
    # Of two lists by the same scorer the one that was asked for stands alone.
    only, _ = trained.lists(small_store, scores, "test", front.preferences, ["log_odds"])
    np.testing.assert_array_equal(only.first.ndcg, lists.fronts[2].ndcg)


def test_data_without_groups_cannot_be_ranked(trained_run, small_store):
    trained = load_trained(trained_run)
    trained = dataclasses.replace(trained, schema=dataclasses.replace(trained.schema, group=None))
    with pytest.raises(UserError, match="no group column tells which rows are ranked together"):
        trained.lists(small_store, None, "test", PREFERENCES)


def test_a_task_of_one_class_stays_out_and_is_named(scores):
    scores.labels[1] = 0
    front = evaluation.evaluate_front(scores, "test", ("click", "buy"), PREFERENCES[:3])
    assert front.undefined_tasks == ("buy",)
    assert np.isnan(front.auc[:, 1]).all()
    np.testing.assert_allclose(front.hypervolume, front.auc[:, 0].max())
    assert "AUC of buy is undefined" in report.front_summary(front)
    scores.labels[0] = 1
    front = evaluation.evaluate_front(scores, "test", ("click", "buy"), PREFERENCES[:3])
    assert np.isnan(front.hypervolume)
    assert front.to_dict()["undefined_tasks"] == ("click", "buy")


def test_an_empty_split_is_told(small_store):
    class Empty:
        path = "store/validation.arrow"

        def __len__(self):
            return 0

    with pytest.raises(UserError, match="no rows to score"):
        outputs.score_split(None, None, Empty(), PREFERENCES, make_mesh(), batch_size=300)
