"""The learned score of a list against the best that can be had."""

import numpy as np
import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.fusion import Fusion, fit_fusion
from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists
from hyperrec_jax.preference.grid import das_dennis

pytestmark = pytest.mark.slow

PREFERENCES = das_dennis(2, 4)


def _searches(seed, lists=400, size=12, spread=(1.0, 1.0), product=False):
    """Labels, log-odds and groups; the tasks' log-odds are independent within a search."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(2, lists * size))
    drive = hidden.copy()
    if product:  # the second task happens only where the first's log-odds are extreme
        drive[1] = 2 * np.abs(hidden[0]) - 2
    labels = (generator.random(hidden.shape) < 1 / (1 + np.exp(2 - 2 * drive))).astype(np.uint8)
    logits = hidden * np.array(spread)[:, None]
    return labels, logits, np.repeat(np.arange(lists), size)


def _list_loss(labels, score, groups):
    """Softmax cross-entropy of the lists with a positive and a negative, the plain way."""
    losses = []
    for group in np.unique(groups):
        here = groups == group
        hits = labels[here].astype(bool)
        if 0 < hits.sum() < hits.size:
            log_total = np.logaddexp.reduce(score[here])
            losses.append(np.mean(log_total - score[here][hits]))
    return np.mean(losses)


def _value(labels, score, groups, preference):
    return sum(
        weight * _list_loss(target, score, groups) / _list_loss(target, 0 * score, groups)
        for weight, target in zip(preference, labels, strict=True)
    )


@pytest.mark.slow
def test_it_is_as_good_as_the_best_weights_found_by_search():
    labels, logits, groups = _searches(0, spread=(1.0, 3.0))
    fusion = fit_fusion(labels, logits, groups, PREFERENCES)
    held, values, lists = _searches(1, 100, spread=(1.0, 3.0))
    for preference in PREFERENCES[[0, 2, 4]]:
        learned = _value(held, fusion.score(values, preference), lists, preference)
        searched = min(
            _value(held, scale * (part * values[0] + (1 - part) * values[1] / 3), lists, preference)
            for part in np.linspace(0, 1, 9)
            for scale in (0.7, 1.4, 2.0)
        )
        assert learned < searched * 1.01
        # By hand the task whose log-odds spread more takes the list over.
        by_hand = _value(held, preference @ values, lists, preference)
        assert learned < by_hand


def test_it_finds_what_no_weighted_sum_can():
    labels, logits, groups = _searches(0, product=True)
    fusion = fit_fusion(labels, logits, groups, PREFERENCES)
    held, values, lists = _searches(1, 100, product=True)
    preference = PREFERENCES[-1]
    angles = np.linspace(0, 2 * np.pi, 24)
    sums = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ values
    scores = np.concatenate([fusion.score(values, preference)[None], sums])
    result = list_metrics(scores, held[1:], lists, metrics=("ndcg",)).values["ndcg"]
    learned, *others = mean_over_lists(result)[:, 0]
    assert learned > max(others) + 0.1


def test_it_starts_as_the_sum_by_hand_and_is_kept_in_a_file(tmp_path):
    labels, logits, groups = _searches(0, 20)
    start = fit_fusion(labels, logits, groups, PREFERENCES, steps=0)
    standard = (logits - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)
    expected = PREFERENCES[1] @ standard
    np.testing.assert_allclose(start.score(logits, PREFERENCES[1]), expected, atol=1e-5)
    fusion = fit_fusion(labels, np.stack([logits] * 5), groups, PREFERENCES, steps=20)
    fusion.save(tmp_path / "fusion.npz")
    again = Fusion.load(tmp_path / "fusion.npz")
    both = [one.score(np.stack([logits] * 5), PREFERENCES) for one in (fusion, again)]
    np.testing.assert_array_equal(*both)
    assert both[0].shape == (5, 240)
    with pytest.raises(UserError, match="no fusion that"):
        Fusion.load(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match="for preferences"):
        fusion.score(logits, [1.0, 0.0, 0.0])


def test_what_has_no_list_to_learn_from_is_told():
    with pytest.raises(UserError, match="goal 1 has no list"):
        fit_fusion([[0, 1], [0, 0]], [[0.0, 1], [0, 1]], [0, 0], PREFERENCES)
    with pytest.raises(ValueError, match="5 preferences before"):
        fit_fusion([[0, 1]], np.zeros((3, 1, 2)), [0, 0], PREFERENCES)
