"""The list scorer of a run: fitted on the validation rows, kept in the run's folder."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.grid import place_of_centre
from hyperrec_jax.evaluation.list_scorer import (
    At,
    ListScorer,
    centre,
    fit_list_scorer,
    unfitted_scorer,
)
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.evaluation.varied import variety_rates
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training.kept import kept_fit

if TYPE_CHECKING:
    from hyperrec_jax.training.trained import Trained

LIST_SCORER = "list_scorer.json"

logger = logging.getLogger(__name__)


def kept_scorer(workdir: Path, step: int | None) -> ListScorer | None:
    """The scorer in a run's folder; None where there is none of the state of that step.

    Raises:
      UserError: the file is damaged.
    """
    return kept_fit(ListScorer.load, workdir / LIST_SCORER, step)


def score_validation(trained: "Trained", store: Store) -> tuple[Scores, np.ndarray]:
    """The validation rows under the preferences that list scorer and calibrator are fitted by.

    Returns:
      The outputs, and their preferences `[preference, goal]`: the validation grid, so that nothing
      is compiled anew, with equal weights at its end where it lacks them; equal weights alone for a
      model that takes none.

    Raises:
      UserError: the store has another schema or vocabulary.
    """
    num_goals = len(trained.schema.tasks)
    middle = centre(num_goals)[None]
    grid = evaluation_grid(num_goals, trained.config["train"]["grid"])
    if not trained.network.conditioned:
        grid = middle
    elif place_of_centre(grid) is None:
        grid = np.concatenate([grid, middle])
    return trained.score_rows(store, "validation", grid), grid


def fit_scorer(
    trained: "Trained", store: Store, scored: tuple[Scores, np.ndarray] | None = None
) -> ListScorer:
    """Fits the scorer of a model on the validation rows.

    A model that was trained on its lists (`list.loss`) was trained on the structured score, the
    logarithm of the expected gain of its predictions as they are, under the preference itself: that
    is its scorer, and nothing is fitted. Where variety is a goal that the score was not trained
    for, the model is asked under equal weights, whose gains the whole list is ordered by.

    Args:
      trained: The model.
      store: Its data.
      scored: From `score_validation`, if it is at hand.

    Raises:
      UserError: the store is not the model's, a goal has no positive or is not binary, or labels
        are missing.
    """
    _require_binary(trained, store)
    goals, conditioned = trained.schema.tasks, trained.network.conditioned
    step, train = trained.progress.best_step or 0, store.split("train")
    rates = np.array(train.positives) / max(len(train), 1)
    of_lists = variety_rates(trained.schema, train)
    for place, rate in of_lists.items():
        rates[place] = rate
    if trained.config.get("list", {}).get("loss", "none") != "none":
        trained.check_store(store)
        of_rows = bool(of_lists) and not trained.config["list"].get("variety_weight")
        at: At = "centre" if of_rows else "preference"
        fusion = trained.config["list"].get("score", "expected_gain")
        return unfitted_scorer(goals, rates, step, at, fusion)
    scores, asked = scored or score_validation(trained, store)
    grid = evaluation_grid(len(goals), trained.config["train"]["grid"])
    centre_at = place_of_centre(asked)
    assert centre_at is not None
    rows = store.split("validation")
    scorer = fit_list_scorer(
        goals,
        scores.labels,
        scores.logits[centre_at],
        scores.logits[: len(grid)] if conditioned else None,
        grid,
        rows.groups(0, len(rows)) if trained.schema.group else None,
        rates,
        step,
        of_lists,
    )
    if scorer.uncalibrated:
        logger.warning(
            "the validation split holds one class only of %s: lists take their predictions "
            "uncalibrated, and their scale from the training rows",
            ", ".join(scorer.uncalibrated),
        )
    return scorer


def _require_binary(trained: "Trained", store: Store) -> None:
    """Refuses data whose goals have no probability, or not of every row."""
    for goal in trained.schema.goals:
        if not goal.binary:
            raise UserError(
                f"store {store.path}: goal {goal.name!r} is of kind {goal.kind}, and the score of "
                "a list is made of binary goals; leave the lists out"
            )
    if trained.schema.label_dtype != "uint8":
        raise UserError(
            f"store {store.path}: labels are missing in some rows, and lists are measured where "
            "every row has all labels; leave the lists out"
        )


def describe_choice(scorer: ListScorer) -> str:
    """In one line, under which preference the model is asked and why."""
    place = scorer.place()
    other: At = "centre" if place == "preference" else "preference"
    told = {
        "centre": "predictions under equal weights, the preference acting in the sum alone",
        "preference": "predictions under the preference itself",
    }
    found = scorer.validation.get("expected_gain", {})
    if len(found) < 2:
        why = "one set of predictions, or no validation lists to choose by"
    else:
        why = f"scalarised NDCG of the validation lists {found[place]:.4f}"
        why += f" against {found[other]:.4f} at {other}"
    return f"list score: expected gain at {place} ({told[place]}; {why})"
