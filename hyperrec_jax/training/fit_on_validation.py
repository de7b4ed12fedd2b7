"""What is fitted on the validation rows once a model is selected, and kept in the run's folder."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.outputs import ScoreFn, Scores
from hyperrec_jax.parallel import processes
from hyperrec_jax.training.fit_calibrator import CALIBRATOR, fit_calibrator, kept_calibrator
from hyperrec_jax.training.fit_scorer import (
    LIST_SCORER,
    describe_choice,
    fit_scorer,
    kept_scorer,
    score_validation,
)
from hyperrec_jax.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)


def keep_fitted(
    workdir: Path, store: Store, step: int | None, calibrate: bool, score: ScoreFn
) -> None:
    """Fits the list scorer and the calibrator of a run's selected state, where they are missing.

    Both are fitted by one pass over the validation rows. A goal without any positive has no scale
    in a list: the run then has no scorer, and a line of the log says so.

    Args:
      workdir: The run's folder.
      store: Its data.
      step: Step of the selected state.
      calibrate: Whether predictions are calibrated.
      score: What validation has scored with.
    """
    calibrate = calibrate and kept_calibrator(workdir, step) is None
    has_scorer = kept_scorer(workdir, step) is not None
    if has_scorer and not calibrate:
        return
    trained = dataclasses.replace(load_trained(workdir), compiled=score)
    # Without a calibrator the scorer scores the rows itself, if it needs them at all.
    scored = score_validation(trained, store) if calibrate else None
    if not has_scorer:
        _keep_scorer(trained, store, scored)
    if scored is not None:
        calibrator = fit_calibrator(trained, store, scored)
        processes.on_first(lambda: calibrator.save(workdir / CALIBRATOR))
        logger.info(calibrator.describe())


def _keep_scorer(trained: Trained, store: Store, scored: tuple[Scores, np.ndarray] | None) -> None:
    try:
        scorer = fit_scorer(trained, store, scored)
    except UserError as error:
        if trained.schema.group:  # data without lists needs no score of them
            logger.warning("no score for lists: %s", error)
        return
    processes.on_first(lambda: scorer.save(trained.folder / LIST_SCORER))
    logger.info(describe_choice(scorer))
