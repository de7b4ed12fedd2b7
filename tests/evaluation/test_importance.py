"""Permutation importance, with scikit-learn's as the oracle."""

import dataclasses

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance as oracle
from sklearn.metrics import roc_auc_score

from hyperrec_jax.api.model import Model
from hyperrec_jax.commands.evaluate import main
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.schema import MultivaluedField, VectorField
from hyperrec_jax.evaluation.importance import permutation_importance
from hyperrec_jax.evaluation.outputs import make_score_fn
from hyperrec_jax.training.importance import places

pytestmark = pytest.mark.slow


class _Estimator(ClassifierMixin, BaseEstimator):
    """A trained model under one preference as scikit-learn sees it: ids, then numbers."""

    def __init__(self, score=None):
        self.score_rows = score

    def fit(self, rows, labels):
        return self


def test_importance_is_that_of_scikit_learn(trained_run, small_store):
    model = Model.load(trained_run, small_store)
    batch = small_store.split("test").slice(0, 256)
    preference = np.float32([[0.25, 0.75]])
    score = make_score_fn(model.network)

    def outputs(inputs):
        return np.asarray(score(model.variables, inputs, preference))

    def scorer(estimator, rows, labels):
        ids, numbers = rows[:, :2].astype(np.int32), rows[:, 2:].astype(np.float32)
        logits = outputs({"categorical": ids, "numerical": numbers})[0]
        return [roc_auc_score(labels[:, goal], logits[goal]) for goal in (0, 1)][scorer.goal]

    rows = np.concatenate([batch["categorical"], batch["numerical"]], axis=1).astype(float)
    # The order that scikit-learn shuffles by: a generator seeded by one of the given seed.
    seed = np.random.RandomState(3).randint(np.iinfo(np.int32).max + 1)
    order = np.arange(len(rows))
    np.random.RandomState(seed).shuffle(order)
    goals = create_goals(model.schema)
    ours = permutation_importance(
        outputs, batch, goals, places(model.schema), preference, order[None]
    )
    for goal in (0, 1):
        scorer.goal = goal
        theirs = oracle(
            _Estimator(), rows, batch["labels"], scoring=scorer, n_repeats=1, random_state=3
        )
        np.testing.assert_allclose(ours.mean[0, :, goal], theirs.importances_mean, atol=1e-6)
    assert ours.metrics == ("auc", "auc")


def test_the_command_writes_what_the_model_says(trained_run, small_store, tmp_path, capsys):
    main(
        [
            f"--workdir={trained_run}",
            "--grid=3",
            "--resamples=0",
            "--importance=200",
            f"--output={tmp_path / 'out'}",
        ]
    )
    found = Model.load(trained_run, small_store).importance(rows=200)
    assert found.rows == 200
    assert found.mean.shape == (3, 4, 2)
    assert (tmp_path / "out" / "importance.csv").read_text() == found.to_csv()
    assert "What the model reads" in (tmp_path / "out" / "report.html").read_text()
    assert "importance.csv" in capsys.readouterr().out
    # The first preference is that of clicks alone, which come from country and age above all.
    assert {record["field"] for record in found.records()[:2]} == {"country", "age"}


def test_every_kind_of_field_has_its_place(small_store):
    schema = dataclasses.replace(
        small_store.schema,
        multivalued=(
            MultivaluedField("tags", "set", 3, "mean", size=9),
            MultivaluedField("seen", "sequence", 5, "mean", size=9),
        ),
        vectors=(VectorField("picture", 4),),
    )
    found = places(schema)
    assert list(found) == ["country", "item", "price", "age", "tags", "seen", "picture"]
    assert found["item"] == ("categorical", slice(1, 2))
    assert found["seen"] == ("multivalued", slice(3, 8))
    assert found["picture"] == ("vectors", slice(0, 4))
