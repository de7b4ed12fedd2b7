"""Any metric on the same resamples of the same units, whatever is measured, and by which model.

A unit is what is drawn: a list, a household with all its lists, or a row. Every metric here is, at
least to first order, a sum of ratios of sums over units,

    value = finish(offset + sum_k  sum_u num_ku / sum_u den_ku)

so that a resample is one row of a matrix product. A resample weights each unit by a Poisson(1) draw
(Chamandy et al. 2012), drawn from the number of the unit alone: calls for other preferences, other
metrics or another model on the same rows see the same resamples, and differences are paired.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.evaluation.bootstrap import placements_of, poisson_table
from hyperrec_jax.evaluation.measures import Labelled, loss_of_rows
from hyperrec_jax.evaluation.metrics import validated
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary

Floats = NDArray[np.float64]

_UNITS_AT_ONCE = 1 << 14


class Terms(NamedTuple):
    """A metric as a sum of ratios of sums over rows or lists; see the module.

    Attributes:
      numerators: `[term, row]`.
      denominators: `[term, row]`, at least 0.
      offset: Added to the ratios.
      finish: From their sum to the metric.
    """

    numerators: Floats
    denominators: Floats
    offset: float = 0.0
    finish: Callable[[Floats], Floats] = lambda total: total


class Measured(NamedTuple):
    """Metrics of some preferences, and the same on each resample.

    Attributes:
      values: `[preference, metric]`; NaN where the labels leave one undefined.
      samples: `[resample, preference, metric]`; NaN where a resample does.
    """

    values: Floats
    samples: Floats

    def columns(self, part: slice) -> "Measured":
        """Some of the metrics."""
        return Measured(self.values[:, part], self.samples[..., part])


def row_terms(goal: RowGoal, metric: str, rows: Labelled, outputs: np.ndarray) -> Terms | None:
    """A metric of a goal as sums over rows.

    The AUC is taken to first order by DeLong's placements, as in `bootstrap.bootstrap`.

    Args:
      goal: The goal.
      metric: A name among its metrics, or `loss`.
      rows: The rows that have the label.
      outputs: The model's outputs for the goal in those rows, `[row, output]`.

    Returns:
      None where the metric is no such sum: it is then to be computed on each resample.
    """
    labels = rows.labels.astype(np.float64)
    mass = np.ones(len(labels)) if rows.weights is None else rows.weights.astype(np.float64)
    if metric in ("loss", "log_loss"):
        return _ratio(mass * loss_of_rows(goal, rows.labels, outputs, rows.weights), mass)
    if metric == "rate_difference":
        yes = goal.predict(outputs)
        members = np.stack([mass * (labels == 1), mass * (labels == 0)])
        return Terms(np.stack([yes, -yes]) * members, members, finish=np.abs)
    if metric in ("auc", "auc_any") and rows.weights is None:
        return _auc(labels > 0, outputs[:, 0])
    if metric in ("calibration", "total_error"):
        if isinstance(goal, Binary):  # each negative that was kept stands for several
            mass = mass * np.where(labels > 0, 1, 1 / goal.sampling_rate)
        terms = _ratio(mass * goal.predict(outputs), mass * labels)
        if metric == "calibration":
            return terms
        return terms._replace(finish=lambda total: np.abs(total - 1))
    if metric == "deviance":
        return _ratio(2 * mass * loss_of_rows(goal, rows.labels, outputs), mass)
    if metric == "mae":
        return _ratio(mass * np.abs(goal.predict(outputs) - labels), mass)
    if metric == "rmse":
        return _ratio(mass * np.square(goal.predict(outputs) - labels), mass)._replace(
            finish=np.sqrt
        )
    return None


def list_terms(values: Floats, weights: NDArray[np.int64] | None = None) -> Terms:
    """The mean of a metric over lists.

    Args:
      values: `[list]`, NaN for lists that do not count.
      weights: `[list]`; all alike if None.
    """
    counted = ~np.isnan(values)
    mass = np.where(counted, 1.0 if weights is None else weights, 0.0)
    return _ratio(np.where(counted, values, 0) * mass, mass)


def _ratio(numerator: Floats, denominator: Floats) -> Terms:
    return Terms(numerator[None], denominator[None])


def _auc(truth: NDArray[np.bool_], scores: np.ndarray) -> Terms:
    if not 0 < truth.sum() < len(truth):
        return _ratio(np.zeros(len(truth)), np.zeros(len(truth)))
    placements = placements_of(*validated(truth, scores))
    influence = np.zeros((2, len(truth)))
    influence[0, truth], influence[1, ~truth] = placements
    area = placements.positives.mean()
    return Terms(influence, np.stack([truth, ~truth]).astype(np.float64), -float(area))


class Resampler:
    """Draws units, the same ones in every call.

    Attributes:
      unit_of_row: Number of the unit of each row, from 0, `[row]`.
      units: Number of units.
      resamples: Number of resamples.
    """

    def __init__(self, unit_of_row: np.ndarray, resamples: int, seed: int = 0) -> None:
        """What is drawn, and how often.

        Args:
          unit_of_row: Any ids, `[row]`.
          resamples: Number of resamples, at least 2.
          seed: Seed of the draws.
        """
        self.ids, self.unit_of_row = np.unique(unit_of_row, return_inverse=True)
        self.units = len(self.ids)
        self.resamples = resamples
        self._seed = seed

    def draws(self, chunk: int) -> NDArray[np.float32]:
        """How often each unit of a chunk is in each resample, `[resample, unit]`."""
        size = min(_UNITS_AT_ONCE, self.units - chunk * _UNITS_AT_ONCE)
        generator = np.random.default_rng([self._seed, chunk])
        uniform = generator.integers(0, 1 << 16, (self.resamples, size), np.uint16)
        return poisson_table()[uniform]

    def unit_weights(self) -> NDArray[np.uint8]:
        """How often each unit is in each resample, `[resample, unit]`."""
        chunks = range(-(-self.units // _UNITS_AT_ONCE))
        return np.concatenate([self.draws(chunk).astype(np.uint8) for chunk in chunks], axis=1)

    def measure(self, terms: Sequence[Terms], units: Sequence[np.ndarray]) -> Measured:
        """The metrics of some terms.

        Args:
          terms: One for each metric.
          units: For each of them the number of the unit of each of its rows or lists.

        Returns:
          Values `[metric]` and samples `[resample, metric]`.
        """
        centred, sizes, owners, ratios = [], [], [], []
        for place, (each, of_row) in enumerate(zip(terms, units, strict=True)):
            for numerator, denominator in zip(each.numerators, each.denominators, strict=True):
                total = denominator.sum()
                ratio = numerator.sum() / total if total > 0 else np.nan
                ratios.append(ratio)
                owners.append(place)
                # Centred, so that what little differs between preferences keeps its digits.
                rest = numerator - (ratio if total > 0 else 0) * denominator
                centred.append(self._by_unit(rest, of_row))
                sizes.append(self._by_unit(denominator, of_row))
        above, below = np.array(centred).T, np.array(sizes).T
        sums = np.zeros((2, self.resamples, len(ratios)))
        for chunk in range(-(-self.units // _UNITS_AT_ONCE)):
            part = slice(chunk * _UNITS_AT_ONCE, (chunk + 1) * _UNITS_AT_ONCE)
            drawn = self.draws(chunk)
            sums[0] += drawn @ above[part]
            sums[1] += drawn @ below[part]
        nothing = np.full_like(sums[0], np.nan)
        moved = np.divide(sums[0], sums[1], out=nothing, where=sums[1] > 0) + ratios
        return Measured(
            np.array([_finished(terms, owners, np.array(ratios), i) for i in range(len(terms))]),
            np.stack([_finished(terms, owners, moved, i) for i in range(len(terms))], axis=-1),
        )

    def _by_unit(self, values: Floats, of_row: np.ndarray) -> NDArray[np.float32]:
        return np.bincount(of_row, values, self.units).astype(np.float32)


def _finished(terms: Sequence[Terms], owners: Sequence[int], ratios: Floats, place: int) -> Floats:
    own = np.asarray(owners) == place
    return terms[place].finish(terms[place].offset + ratios[..., own].sum(-1))
