"""One score for each row, for all goals: what a list is ordered by, under any preference.

The default is the expected gain, `sum_i r_i E_i / scale_i` over calibrated probabilities, which is
the best order for gains that add up (`preference.expected_gain` says why). A sum of log-odds and a
weighted product are kept as named choices: they are what ranking teams tune by hand.

A model that takes a preference can be asked in two ways. At `preference`, its predictions are those
under the request's preference; at `centre`, they are those under equal weights, and the preference
acts in the sum alone. Asked under its preference, a model may give a goal of little weight up, and
then the sum weighs a goal twice. Neither is better always: lists of the validation rows decide.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.data.records import read_checked, write_checked
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.calibration import Calibrator, fit_calibrator, identity_calibrator
from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists

Floats = NDArray[np.float64]
At = Literal["centre", "preference"]

FUSIONS = ("expected_gain", "log_odds", "product")
"""How a list's score is made of the goals' predictions; the first is the default."""
PLACES: tuple[At, ...] = ("centre", "preference")
"""The preferences that a model may be asked under."""
NDCG_RANKS = 10


def centre(num_goals: int) -> NDArray[np.float32]:
    """Equal weights, `[goal]`."""
    return np.full(num_goals, 1 / num_goals, np.float32)


@dataclasses.dataclass(frozen=True)
class ListScorer:
    """Scores rows for lists, fitted on the validation rows by `fit_list_scorer`.

    Attributes:
      goals: Names of the goals.
      scales: Mean label of each goal over the validation rows, `[goal]`: what a row of average
        gain is worth.
      calibrators: For predictions at each of `PLACES`.
      at: Under which preference the model is asked, for each of `FUSIONS`.
      validation: For each fusion and place the mean over preferences of `sum_i r_i NDCG_i` of the
        validation lists; empty where there was nothing to compare.
      uncalibrated: Goals with labels of one class only among the validation rows, whose predictions
        are taken as they are, and whose scale is the mean label of the training rows.
      step: Training step of the model that it was fitted to.
      fusion: The one of `FUSIONS` that the model's lists were trained by.
    """

    goals: tuple[str, ...]
    scales: Floats
    calibrators: Mapping[At, Calibrator]
    at: Mapping[str, At]
    validation: Mapping[str, Mapping[At, float]] = dataclasses.field(default_factory=dict)
    uncalibrated: tuple[str, ...] = ()
    step: int = 0
    fusion: str = FUSIONS[0]

    def place(self, fusion: str = FUSIONS[0]) -> At:
        """Under which preference the model is to be asked.

        Raises:
          UserError: there is no such fusion.
        """
        if fusion not in FUSIONS:
            raise UserError(f"fusion {fusion!r}: there are {', '.join(FUSIONS)}")
        return self.at[fusion]

    def asked(self, preferences: ArrayLike, fusion: str = FUSIONS[0]) -> NDArray[np.float32]:
        """The preferences that the model is to be asked under, for lists under some preferences.

        Args:
          preferences: `[..., goal]`.
          fusion: One of `FUSIONS`.

        Returns:
          `[..., goal]`.
        """
        weights = np.asarray(preferences, np.float32)
        if self.place(fusion) == "preference":
            return weights
        return np.broadcast_to(centre(len(self.goals)), weights.shape)

    def score(
        self,
        logits: ArrayLike,
        preferences: ArrayLike,
        fusion: str = FUSIONS[0],
        at: At | None = None,
        left_out: Sequence[int] = (),
    ) -> NDArray[np.float32]:
        """Scores rows; a higher score is earlier in the list.

        Args:
          logits: The model's log-odds under the preferences of `asked`, `[..., row, goal]`.
          preferences: Weights of the goals that sum to one, in a form that broadcasts to `logits`,
            such as `[goal]` or one for each row.
          fusion: `expected_gain`: 1 is what a row of average gain is worth. `log_odds`: the
            weighted sum of the log-odds. `product`: the logarithm of the product of the
            probabilities, with the weights as exponents.
          at: Under which preference the model was asked, where that is not the fitted choice.
          left_out: Places of goals whose weights count as 0 in the score.

        Returns:
          `[..., row]`, finite for finite logits.
        """
        place = at or self.place(fusion)
        weights = np.asarray(preferences, np.float64)
        # What is not finite stays so, for the caller to tell where it came from.
        with np.errstate(over="ignore", invalid="ignore"):
            calibrated = self.calibrators[place].apply(logits, weights)
            if left_out:
                weights = weights * ~np.isin(np.arange(len(self.goals)), left_out)
            if fusion == "log_odds":
                terms = calibrated
            elif fusion == "product":
                terms = -np.logaddexp(0, -calibrated)
            else:
                terms = np.exp(-np.logaddexp(0, -calibrated)) / self.scales
            return (weights * terms).sum(-1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; inverse of `from_dict`."""
        return {
            "goals": list(self.goals),
            "scales": self.scales.tolist(),
            "calibrators": {
                place: {"slope": one.slope.tolist(), "intercept": one.intercept.tolist()}
                for place, one in self.calibrators.items()
            },
            "at": dict(self.at),
            "validation": {fusion: dict(values) for fusion, values in self.validation.items()},
            "uncalibrated": list(self.uncalibrated),
            "step": self.step,
        } | ({} if self.fusion == FUSIONS[0] else {"fusion": self.fusion})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ListScorer":
        """Inverse of `to_dict`.

        Raises:
          KeyError, TypeError, ValueError: the values are not those of a scorer.
        """
        goals = tuple(values["goals"])
        scorer = cls(
            goals=goals,
            scales=np.array(values["scales"], np.float64),
            calibrators={
                place: Calibrator(
                    np.array(values["calibrators"][place]["slope"], np.float64),
                    np.array(values["calibrators"][place]["intercept"], np.float64),
                )
                for place in PLACES
            },
            at={fusion: values["at"][fusion] for fusion in FUSIONS},
            validation=values["validation"],
            uncalibrated=tuple(values["uncalibrated"]),
            step=int(values["step"]),
            fusion=values.get("fusion", FUSIONS[0]),
        )
        square = (len(goals), len(goals))
        shapes = {array.shape for one in scorer.calibrators.values() for array in one}
        if scorer.scales.shape != square[:1] or shapes != {square}:
            raise ValueError(f"scales and calibrators are not those of {len(goals)} goals")
        if not ((scorer.scales > 0).all() and set(scorer.at.values()) <= set(PLACES)):
            raise ValueError("scales must be above 0, and places " + " or ".join(PLACES))
        return scorer

    def save(self, path: Path) -> None:
        """Writes JSON with a checksum over itself.

        Raises:
          UserError: the file can't be written.
        """
        write_checked(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> "ListScorer":
        """Reads what `save` wrote.

        Raises:
          FileNotFoundError: the file is not there.
          UserError: it is damaged.
        """
        remedy = "delete it, and it is fitted anew where the run's data is"
        return read_checked(path, cls.from_dict, remedy)


def fit_list_scorer(
    goals: tuple[str, ...],
    labels: ArrayLike,
    at_centre: ArrayLike,
    at_preference: ArrayLike | None,
    preferences: ArrayLike,
    groups: ArrayLike | None,
    training_rates: ArrayLike,
    step: int = 0,
    scales_of_lists: Mapping[int, float] | None = None,
) -> ListScorer:
    """Fits calibrators and scales on the validation rows, and chooses how to ask the model.

    Args:
      goals: Their names.
      labels: 0 or 1, `[goal, row]`.
      at_centre: Log-odds under equal weights, `[goal, row]`.
      at_preference: Log-odds under each preference, `[preference, goal, row]`; None for a model
        that takes no preference.
      preferences: `[preference, goal]`.
      groups: Ids of the lists, `[row]`; None where rows have no list. The model is then asked at
        the centre.
      training_rates: Mean label of the training rows, `[goal]`, for goals of which the validation
        rows hold one class only.
      step: Training step of the model.
      scales_of_lists: Scales of goals of whole lists, by their place.

    Raises:
      UserError: a goal has no positive at all, so that it has no scale.
    """
    truth, middle = np.asarray(labels), np.asarray(at_centre)
    weights = np.asarray(preferences, np.float64)
    shared, left = fit_calibrator(truth, middle[None], centre(len(goals))[None])
    own = shared if at_preference is None else fit_calibrator(truth, at_preference, weights)[0]
    scales = truth.mean(axis=1, dtype=np.float64)
    scales[list(left)] = np.asarray(training_rates, np.float64)[list(left)]
    for of_lists, known in (scales_of_lists or {}).items():
        scales[of_lists] = known
    for goal, scale in zip(goals, scales, strict=True):
        if not scale > 0:
            raise UserError(
                f"goal {goal} has no positive among the training and validation rows, so that it "
                "has no scale in a list; prepare the data with more rows"
            )
    scorer = ListScorer(
        goals=goals,
        scales=scales,
        calibrators={"centre": shared, "preference": own},
        at=dict.fromkeys(FUSIONS, "centre"),
        uncalibrated=tuple(goals[goal] for goal in left),
        step=step,
    )
    if at_preference is None or groups is None:
        return scorer
    logits = {"centre": np.broadcast_to(middle, (len(weights), *middle.shape))}
    logits["preference"] = np.asarray(at_preference)
    validation: dict[str, dict[At, float]] = {}
    for fusion in FUSIONS:
        validation[fusion] = {}
        for place in PLACES:
            scores = scorer_scores(scorer, logits[place], weights, fusion, place)
            per_list = list_metrics(scores, truth, groups, NDCG_RANKS, ("ndcg",))
            quality = scalarised(mean_over_lists(per_list.values["ndcg"]), weights)
            if np.isfinite(quality):
                validation[fusion][place] = quality
    if not all(validation.values()):  # no validation list has a positive
        return scorer
    at = {fusion: max(PLACES, key=lambda at: of[at]) for fusion, of in validation.items()}
    return dataclasses.replace(scorer, at=at, validation=validation)


def unfitted_scorer(
    goals: tuple[str, ...],
    scales: ArrayLike,
    step: int = 0,
    at: At = "preference",
    fusion: str = FUSIONS[0],
) -> ListScorer:
    """The scorer of a model that was trained on its lists: predictions as they are.

    The order is that of `preference.expected_gain.structured_score`.

    Args:
      goals: Their names.
      scales: Those of the training, above 0, `[goal]`.
      step: Training step of the model.
      at: Under which preference it is asked.
      fusion: What its lists were trained by.
    """
    same = identity_calibrator(len(goals))
    return ListScorer(
        goals=goals,
        scales=np.asarray(scales, np.float64),
        calibrators=dict.fromkeys(PLACES, same),
        at=dict.fromkeys(FUSIONS, at),
        step=step,
        fusion=fusion,
    )


def scorer_scores(
    scorer: ListScorer, logits: np.ndarray, preferences: Floats, fusion: str, at: At
) -> NDArray[np.float32]:
    """Scores of a split under each preference: logits `[preference, goal, row]` to
    `[preference, row]`, one preference at a time to keep memory small."""
    return np.stack(
        [
            scorer.score(values.T, weights, fusion, at)
            for values, weights in zip(logits, preferences, strict=True)
        ]
    )


def scalarised(values: Floats, preferences: Floats) -> float:
    """Mean over preferences of `sum_i r_i values_i`, over the goals that have values.

    Args:
      values: `[preference, goal]`, NaN for goals without a list that counts.
      preferences: `[preference, goal]`.

    Returns:
      NaN where no goal has values.
    """
    counted = ~np.isnan(values).any(axis=0)
    if not counted.any():
        return float("nan")
    return float((preferences[:, counted] * values[:, counted]).sum(axis=1).mean())
