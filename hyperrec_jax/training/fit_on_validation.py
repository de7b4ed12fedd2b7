"""What is fitted on the validation rows once a model is selected, and kept in the run's folder."""

import dataclasses
import logging
from pathlib import Path

from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.outputs import ScoreFn
from hyperrec_jax.parallel import processes
from hyperrec_jax.training.fit_calibrator import CALIBRATOR, fit_calibrator, kept_calibrator
from hyperrec_jax.training.fit_scorer import (
    LIST_SCORER,
    describe_choice,
    fit_scorer,
    kept_scorer,
    score_validation,
)
from hyperrec_jax.training.trained import load_trained

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
    if kept_scorer(workdir, step) is not None and not calibrate:
        return
    trained = dataclasses.replace(load_trained(workdir), compiled=score)
    scored = score_validation(trained, store)
    try:
        scorer = fit_scorer(trained, store, scored)
    except UserError as error:
        if trained.schema.group:  # data without lists needs no score of them
            logger.warning("no score for lists: %s", error)
    else:
        processes.on_first(lambda: scorer.save(workdir / LIST_SCORER))
        logger.info(describe_choice(scorer))
    if calibrate:
        calibrator = fit_calibrator(trained, store, scored)
        processes.on_first(lambda: calibrator.save(workdir / CALIBRATOR))
        logger.info(calibrator.describe())
