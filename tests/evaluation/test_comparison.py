"""One model against those that it is to replace."""

import dataclasses

import numpy as np
import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import comparison
from hyperrec_jax.evaluation import front as evaluation
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.reports import tables as report

TASKS = ("click", "buy")


def _front(qualities, preferences=None, rows=4000, labels_seed=0):
    """The front of logits that say more of the labels the higher a quality of a task is."""
    generator = np.random.default_rng(labels_seed)
    labels = (generator.random((2, rows)) < 0.3).astype(np.uint8)
    noise = generator.normal(size=labels.shape)
    logits = np.array(qualities, float)[..., None] * labels - 2 + noise
    scores = Scores(logits.astype(np.float32), labels)
    return evaluation.evaluate_front(scores, "test", TASKS, preferences, resamples=100)


def test_a_front_is_held_against_models_apart():
    front = _front([(2.0, 0.5), (1.5, 1.5), (0.5, 2.0)], evaluation_grid(2, 3))
    others = {"click": _front([(2.0, 0.3)]), "buy": _front([(0.3, 2.2)])}
    result = comparison.compare(front, others)
    assert result.regret[0] == pytest.approx(0)
    expected = front.log_loss[2, 1] - others["buy"].log_loss[0, 1]
    assert result.regret[1] == pytest.approx(expected)
    assert expected > 0
    assert result.deviation[0] < 1e-6  # the same logits, on paired resamples
    assert 0 < result.deviation[1] < 0.01
    way = others["buy"].log_loss[0, 0] - others["click"].log_loss[0, 0]
    assert result.covered[0] == pytest.approx(np.ptp(front.log_loss[:, 0]) / way)
    assert ((result.covered > 0.7) & (result.covered < 1)).all()
    text = report.comparison_summary(result)
    assert "click +0.00000 ± 0.00000" in text
    assert "between the other models' ends" in text
    record = result.to_dict()
    assert [row["model"] for row in record["models"]] == ["this model", "click", "buy"]
    assert (
        record["models"][0]["hypervolume"] == front.hypervolume > record["models"][1]["hypervolume"]
    )


def test_one_other_model_has_no_range_and_no_bootstrap_no_deviation():
    front = dataclasses.replace(_front([(1.0, 1.0)]), samples=None)
    result = comparison.compare(front, {"plain": _front([(1.0, 1.2)])})
    assert result.deviation is None
    assert np.isnan(result.covered).all()
    assert "ends" not in report.comparison_summary(result)
    assert result.to_dict()["end_point_regret_deviation"] is None


def test_other_rows_are_refused():
    with pytest.raises(UserError, match="runs/b: was scored on other rows"):
        comparison.compare(_front([(1, 1)]), {"runs/b": _front([(1, 1)], labels_seed=1)})
