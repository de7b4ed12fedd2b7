"""The replay of guards: what it counts, on a small run."""

import numpy as np
import pytest

from benchmarks.guarded_replay import Replay, replay, report
from hyperrec_jax import Model


def test_a_period_beyond_the_limit_is_a_violation():
    changes = np.array([0.01, -0.005, -0.02])
    found = [
        Replay("buy", "click", "bound", 0.6, 0.01, -0.004, changes, changes + 0.015),
        Replay("buy", "click", "estimate", 0.7, 0.02, -0.012, changes - 0.01, changes),
    ]
    text = report(found, 0.01)
    assert "over all periods 0 of 1" in text
    assert "over all periods 1 of 1" in text
    assert "By the bound: 1 of 3 periods lose more than 1.0% (33.3%), 0 of them beyond" in text
    assert "By the estimate: 2 of 3 periods lose more than 1.0% (66.7%), 1 of them beyond" in text


@pytest.mark.slow
def test_changes_are_those_of_the_lists(trained_run, small_store):
    model = Model.load(trained_run, small_store)
    rows = small_store.split("test")
    groups = rows.groups(0, len(rows))
    periods = np.where(groups < np.median(groups), 1, 2)
    found = replay(model, small_store, periods, 0.02, resamples=100, grid=3)
    assert [(one.goal, one.guarded, one.way) for one in found] == [
        ("click", "buy", "bound"),
        ("click", "buy", "estimate"),
        ("buy", "click", "bound"),
        ("buy", "click", "estimate"),
    ]
    first = found[0]
    grid = np.array([[first.weight, 1 - first.weight], [0.5, 0.5]])
    ndcg = model.evaluate(split="test", preferences=grid).lists.first.ndcg
    assert first.change == pytest.approx(ndcg[0, 1] / ndcg[1, 1] - 1, abs=1e-6)
    assert first.gain == pytest.approx(ndcg[0, 0] / ndcg[1, 0] - 1, abs=1e-6)
    assert len(first.changes) == 2
    assert (first.highest >= first.changes).all()
    assert first.changes.min() <= first.change <= first.changes.max()
