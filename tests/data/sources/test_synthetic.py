import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.synthetic import SyntheticOptions, synthetic_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError

ROWS, TEST_ROWS = 30_000, 20_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[float, Store]:
    folder = tmp_path_factory.mktemp("synthetic")
    return {
        conflict: prepare_store(
            synthetic_source(SyntheticOptions(ROWS, TEST_ROWS, conflict)), folder / str(conflict)
        )
        for conflict in (0.0, 1.0)
    }


def _test(store):
    split = store.split("test")
    return split.slice(0, TEST_ROWS), split.true_probabilities(0, TEST_ROWS)


def test_shape(stores):
    store = stores[0.0]
    assert len(store.split("train")) + len(store.split("validation")) == ROWS
    assert store.schema.tasks == ("click", "conversion")
    assert store.schema.num_numerical == 63
    # Rare values of the largest field may be missing from so few rows.
    most = np.array((11, 6, 21, 36, 11, 11, 36, 186, 41, 41, *[11] * 6))
    assert np.all(np.array(store.schema.field_sizes) <= most)
    assert np.all(np.array(store.schema.field_sizes) >= 0.95 * most)
    groups = store.split("test").groups(0, TEST_ROWS)
    assert 8 < np.bincount(groups - groups.min()).mean() < 12
    train = store.split("train")
    assert not set(groups) & set(train.groups(0, len(train)))


def test_users_are_shared_by_the_rows_of_a_search(stores):
    batch, _ = _test(stores[0.0])
    groups = stores[0.0].split("test").groups(0, TEST_ROWS)
    same = groups[1:] == groups[:-1]
    assert np.all(batch["categorical"][1:][same, :9] == batch["categorical"][:-1][same, :9])
    assert np.all(batch["numerical"][1:][same, :23] == batch["numerical"][:-1][same, :23])
    assert np.mean(batch["numerical"][1:][same, 23:] == batch["numerical"][:-1][same, 23:]) < 0.3


@pytest.mark.parametrize("conflict", [0.0, 1.0])
def test_labels_follow_the_probabilities(stores, conflict):
    batch, probability = _test(stores[conflict])
    labels = batch["labels"]
    assert np.all(labels[:, 1] <= labels[:, 0])
    assert np.all(probability[:, 1] < probability[:, 0])
    # Calibrated in every tenth of the rows, within 4.5 standard errors.
    for task in range(2):
        for tenth in np.array_split(np.argsort(probability[:, task]), 10):
            p = probability[tenth, task]
            error = (labels[tenth, task].sum() - p.sum()) / np.sqrt((p * (1 - p)).sum())
            assert abs(error) < 4.5
    np.testing.assert_allclose(probability.mean(0), [0.15, 0.03], rtol=0.1)


@pytest.mark.parametrize("conflict", [0.0, 1.0])
def test_best_auc_is_that_of_the_truth(stores, conflict):
    batch, probability = _test(stores[conflict])
    expected = [roc_auc_score(batch["labels"][:, i], probability[:, i]) for i in range(2)]
    np.testing.assert_allclose(stores[conflict].schema.best_auc, expected, rtol=1e-6)
    assert expected[0] > 0.7


def test_conflict_turns_the_tasks_against_each_other(stores):
    correlation = {}
    for conflict, store in stores.items():
        click, both = _test(store)[1].T
        correlation[conflict] = np.corrcoef(click, both / click)[0, 1]
    assert correlation[0.0] > 0.7
    assert correlation[1.0] < -0.7


def test_same_seed_same_rows(stores, tmp_path):
    options = SyntheticOptions(ROWS, TEST_ROWS, 0.0)
    again = prepare_store(synthetic_source(options), tmp_path / "again")
    assert again.fingerprint == stores[0.0].fingerprint
    other = SyntheticOptions(ROWS, TEST_ROWS, 0.0, seed=1)
    other_store = prepare_store(synthetic_source(other), tmp_path / "other")
    assert other_store.fingerprint != again.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "must be positive"),
        ({"conflict": 1.5}, "conflict 1.5 is not between 0 and 1"),
        ({"conversion_rate": 0.2}, "conversion rate"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        synthetic_source(SyntheticOptions(**options))
