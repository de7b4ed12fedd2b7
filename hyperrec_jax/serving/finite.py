"""Answers of a model that are no numbers, told by their row."""

import numpy as np

from hyperrec_jax.errors import UserError


def require_finite(predictions: np.ndarray, where: str, first: int = 0) -> None:
    """Refuses predictions that are no numbers.

    Args:
      predictions: `[..., row, task]`.
      where: What the rows are, for the message.
      first: Number of the first row, for the message.

    Raises:
      UserError: a prediction is NaN or infinite.
    """
    fine = np.isfinite(predictions).all(axis=-1)
    fine = fine.reshape(-1, fine.shape[-1]).all(axis=0)
    if not fine.all():
        raise UserError(
            f"{where}: row {first + int(np.argmin(fine)) + 1}: the model's answer is not a finite "
            "number; numbers of this row are too far from those of training"
        )
