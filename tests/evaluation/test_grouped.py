"""Metrics within groups against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.grouped import GroupRanking
from tests.support.scored import scored

quick = settings(deadline=None, max_examples=60)


@quick
@given(data=scored(both_classes=False), seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_grouped_metrics_are_scikit_learns_group_by_group(
    data: tuple[np.ndarray, np.ndarray], seed: int, k: int
) -> None:
    labels, scores = data
    groups = np.random.default_rng(seed).integers(-3, 3, len(labels)) * 10**12
    members = [groups == group for group in np.unique(groups)]
    mixed = [rows for rows in members if 0 < labels[rows].sum() < rows.sum()]
    skipped = len(members) - len(mixed)
    pairs = [(labels[rows], scores[rows]) for rows in mixed]

    def mean(values: list[float], weights: list[int] | None = None) -> float:
        return float(np.average(values, weights=weights)) if values else math.nan

    expected = {
        "auc": mean(
            [oracle.roc_auc_score(*pair) for pair in pairs], [int(rows.sum()) for rows in mixed]
        ),
        "ndcg": mean([oracle.ndcg_score([truth], [score], k=k) for truth, score in pairs]),
        "map": mean([oracle.average_precision_score(*pair) for pair in pairs]),
    }
    ranking = GroupRanking(scores, groups)
    computed = {
        "auc": ranking.auc(labels),
        "ndcg": ranking.ndcg(labels, k),
        "map": ranking.average_precision(labels),
    }
    for name, result in computed.items():
        assert result.groups == len(mixed)
        assert result.skipped == skipped
        assert result.value == pytest.approx(expected[name], nan_ok=True), name
    uniform = ranking.auc(labels, "uniform")
    assert uniform.value == pytest.approx(
        mean([oracle.roc_auc_score(*pair) for pair in pairs]), nan_ok=True
    )


def test_grouped_metrics_treat_signed_zeros_and_infinities_as_numbers() -> None:
    ranking = GroupRanking([-0.0, 0.0, -np.inf, np.inf], [1, 1, 1, 1])
    assert ranking.auc([1, 0, 0, 0]).value == pytest.approx(1.5 / 3)
    assert ranking.auc([0, 0, 0, 1]).value == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GroupRanking([np.nan, 1], [0, 0]), UserError, "NaN"),
        (lambda: GroupRanking([0, 1], [0]), ValueError, "alike"),
        (lambda: GroupRanking([0, 1], [0, 0]).auc([0]), ValueError, "as the scores"),
        (lambda: GroupRanking([0, 1], [0, 0]).ndcg([0, 1], 0), ValueError, "at least one"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
