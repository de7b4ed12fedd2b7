"""A trained run that was evaluated, with and without lists."""

import dataclasses

import pytest

from hyperrec_jax.reports.details import details
from hyperrec_jax.training.trained import load_trained


@pytest.fixture(scope="session")
def evaluated_with_lists(trained_run, small_store):
    """A front with lists under five preferences, and what the page shows beside it."""
    trained = load_trained(trained_run)
    front, scores = trained.score(small_store, "test", 5, resamples=30)
    lists, _ = trained.lists(
        small_store, scores, "test", front.preferences, resamples=30, keep_scores=True
    )
    front = dataclasses.replace(front, lists=lists)
    return front, details(trained_run, trained, small_store.split("test"), scores, front)


@pytest.fixture(scope="session")
def evaluated(evaluated_with_lists):
    """The same without lists."""
    front, extra = evaluated_with_lists
    extra = dataclasses.replace(extra, examples=None, grouped=False)
    return dataclasses.replace(front, lists=None), extra
