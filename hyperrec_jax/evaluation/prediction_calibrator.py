"""Predictions that mean what they say, under every preference.

A model that is asked for more of one goal predicts the others with less care: their probabilities
are too high or too low in a way that depends on the preference. The calibrator is Platt scaling
(Platt 1999) whose slope and intercept are smooth functions of the preference; `training.
fit_calibrator` fits it. The order of the rows under one preference, and so the AUC, stays.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.data.records import read_checked, write_checked
from hyperrec_jax.evaluation.calibration import Calibrator


@dataclasses.dataclass(frozen=True)
class PredictionCalibrator:
    """Calibrates the outputs of binary goals under any preference.

    Attributes:
      outputs: Slopes and intercepts by output of the model; one and zero where it stays as it is.
      gains: Goals that are calibrated, with the log loss of held-out validation rows before and
        after, mean over the preferences.
      step: Training step of the model that it was fitted to.
    """

    outputs: Calibrator
    gains: Mapping[str, tuple[float, float]]
    step: int = 0

    def apply(self, outputs: np.ndarray, preferences: np.ndarray) -> np.ndarray:
        """Calibrated outputs.

        Args:
          outputs: float32 `[..., row, output]`.
          preferences: `[..., goal]`, in a form whose leading axes broadcast to those of `outputs`,
            such as `[preference, 1, goal]` or `[row, goal]`.

        Returns:
          float32 `[..., row, output]`.
        """
        slope, intercept = (each.astype(np.float32) for each in self.outputs.at(preferences))
        with np.errstate(over="ignore", invalid="ignore"):  # the caller tells of what is not finite
            return outputs * slope + intercept

    def apply_by_output(self, outputs: np.ndarray, preferences: np.ndarray) -> np.ndarray:
        """Calibrated outputs where rows come last: float32 `[preference, output, row]`.

        Args:
          outputs: float32 `[preference, output, row]`.
          preferences: `[preference, goal]`.
        """
        slope, intercept = (each.astype(np.float32) for each in self.outputs.at(preferences))
        with np.errstate(over="ignore", invalid="ignore"):
            return outputs * slope[..., None] + intercept[..., None]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; inverse of `from_dict`."""
        return {
            "slope": self.outputs.slope.tolist(),
            "intercept": self.outputs.intercept.tolist(),
            "gains": {goal: list(values) for goal, values in self.gains.items()},
            "step": self.step,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PredictionCalibrator":
        """Inverse of `to_dict`.

        Raises:
          KeyError, TypeError, ValueError: the values are no calibrator.
        """
        slope, intercept = (np.array(values[name], float) for name in ("slope", "intercept"))
        if slope.ndim != 2 or slope.shape != intercept.shape or not np.isfinite(slope).all():
            raise ValueError("slope and intercept must be [feature, output]")
        gains = {goal: (float(old), float(new)) for goal, (old, new) in values["gains"].items()}
        return cls(Calibrator(slope, intercept), gains, int(values["step"]))

    def save(self, path: Path) -> None:
        """Writes JSON with a checksum over itself.

        Raises:
          UserError: the file can't be written.
        """
        write_checked(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> "PredictionCalibrator":
        """Reads what `save` wrote.

        Raises:
          FileNotFoundError: there is no such file.
          UserError: it is damaged.
        """
        remedy = "delete it, and train on to have it fitted anew"
        return read_checked(path, cls.from_dict, remedy)

    def describe(self) -> str:
        """What it does, in one line."""
        if not self.gains:
            return "predictions left as they are: no calibration helps on held-out validation rows"
        told = ", ".join(
            f"{goal} {old:.5f} to {new:.5f}" for goal, (old, new) in self.gains.items()
        )
        return f"predictions calibrated on validation rows; log loss of held-out rows: {told}"
