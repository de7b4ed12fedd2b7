"""What `train.select` may name, and that the lists' measures are those of the evaluation."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_value import list_value
from hyperrec_jax.evaluation.outputs import make_score_fn
from hyperrec_jax.evaluation.selection import Selection
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training.train import make_validate
from hyperrec_jax.training.trained import load_trained
from hyperrec_jax.training.tune import Range, tune
from tests.conftest import tiny_config


def test_lists_can_be_named_where_there_are_lists(small_store):
    goals = create_goals(small_store.schema)
    chosen = Selection.parse("0.5*ndcg/buy + auc/click", goals, "train.select", lists=True)
    assert chosen.of_lists
    assert chosen.of({"ndcg/buy": 0.4, "auc/click": 0.7}) == pytest.approx(0.9)
    assert not Selection.parse("auc/click", goals, "train.select", lists=True).of_lists
    with pytest.raises(UserError, match=r"train\.select=ndcg/buy: no measure 'ndcg/buy'"):
        Selection.parse("ndcg/buy", goals, "train.select")


def test_data_without_groups_has_no_measures_of_lists(small_store):
    schema = dataclasses.replace(small_store.schema, group=None)
    config = tiny_config(small_store, train__select="scalarised_ndcg")
    with pytest.raises(UserError, match="no measure 'scalarised_ndcg'"):
        resolve(config, schema, small_store.split("train"))


def test_an_epoch_is_judged_by_the_lists_that_evaluation_measures(small_store, trained_run):
    config = tiny_config(small_store, train__select="ndcg/buy+scalarised_ndcg")
    run = resolve(config, small_store.schema, small_store.split("train"))
    trained = load_trained(trained_run)
    validate = make_validate(run, small_store.split("validation"), make_score_fn(run.model))
    record = validate(SimpleNamespace(variables=trained.variables))
    grid = evaluation_grid(2, config["train"]["grid"])
    _, scores = trained.score(small_store, "validation", grid)
    rows, rates = small_store.split("validation"), small_store.split("train")
    groups, scales = rows.groups(0, len(rows)), np.array(rates.positives) / len(rates)
    expected = list_value(scores.logits, scores.labels, groups, grid, scales, 10)
    assert record["ndcg/buy"] == pytest.approx(expected.ndcg[:, 1].max(), abs=1e-6)
    assert record["value"] == pytest.approx(record["ndcg/buy"] + expected.value, abs=1e-6)


def test_tune_judges_by_lists_only_what_a_trial_measures(small_store, tmp_path):
    config = tiny_config(small_store)
    ranges = [Range.parse("optimizer.l2=1e-8:1e-4:log")]
    with pytest.raises(UserError, match=r"add --set train\.select=ndcg/buy"):
        tune(config, tmp_path / "study", ranges, 1, ["ndcg/buy"])
    assert not (tmp_path / "study").exists()
