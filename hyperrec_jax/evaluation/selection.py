"""One number for how good a front is: what picks an epoch, stops a run, and judges a trial.

    hypervolume                          of the main metrics, or else of the losses
    auc/purchase, rmse/rating, ...       the best value of a metric over the preferences
    loss/purchase                        the lowest loss over the preferences
    ndcg/purchase, coverage/variety      the best NDCG of the lists, where the data has groups, and
                                         the best measure of a goal of whole lists
    scalarised_ndcg                      what the preferences get of what they ask of the lists
    0.7*auc/click+0.3*auc/buy            a weighted sum of any of these

Higher is better in the number: measures of which less is better count negatively.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.goals import RowGoal

VOLUMES = ("hypervolume", "loss_hypervolume")
SCALARISED_NDCG = "scalarised_ndcg"


@dataclasses.dataclass(frozen=True)
class Selection:
    """A weighted sum of measures of a front.

    Attributes:
      text: As it was written.
      terms: Weight and name of each measure; the weight is negative where less is better.
      list_names: The measures of lists that it may name.
    """

    text: str
    terms: tuple[tuple[float, str], ...]
    list_names: frozenset[str] = frozenset()

    @property
    def of_lists(self) -> bool:
        """Whether it names a measure of the lists."""
        return any(name == SCALARISED_NDCG or name in self.list_names for _, name in self.terms)

    @classmethod
    def parse(
        cls, text: str, goals: Sequence[RowGoal], option: str, *, lists: bool = False
    ) -> "Selection":
        """Reads a sum such as `0.7*auc/click+0.3*auc/buy`.

        Args:
          text: The sum.
          goals: The goals that it may name.
          option: Where it was given, for messages.
          lists: Whether the data allows for lists, which it may then name measures of.

        Raises:
          UserError: it is not of that form, or names a measure that there is not.
        """
        signs, terms = measure_signs(goals), []
        of_lists = frozenset(f"{goal.list_measure}/{goal.name}" for goal in goals if lists)
        if lists:
            signs |= dict.fromkeys(of_lists, 1.0)
            signs[SCALARISED_NDCG] = 1.0
        for term in text.split("+"):
            before, star, after = term.rpartition("*")
            weight, name = _number(before) if star else 1.0, after.strip()
            if not (name and 0 < weight < math.inf):
                raise UserError(
                    f"{option}={text}: {term.strip()!r} is not a measure, such as hypervolume or "
                    "auc/click, or a weight above 0 times one, such as 0.7*auc/click"
                )
            if name not in signs:
                raise UserError(f"{option}={text}: no measure {name!r}; {_near(name, signs)}")
            terms.append((weight * signs[name], name))
        return cls(text, tuple(terms), of_lists)

    def of(self, record: Mapping[str, float | None]) -> float:
        """The number of a front; higher is better, NaN where a measure is undefined.

        Args:
          record: `Front.best()` with the hypervolumes, or what a log kept of it.
        """
        return sum(weight * _measure(record, name) for weight, name in self.terms)


def _measure(record: Mapping[str, float | None], name: str) -> float:
    """A measure of a record; the loss of a binary goal is its log loss."""
    value = record.get(name, record.get(f"log_{name}"))
    return math.nan if value is None else value


def measure_signs(goals: Sequence[RowGoal]) -> dict[str, float]:
    """1 where higher is better and -1 where lower is, by the names of all measures of some goals.

    Metrics that are best at 1 from either side, such as calibration, are left out.
    """
    signs = dict.fromkeys(VOLUMES, 1.0)
    for goal in goals:
        for name, metric in goal.metrics.items():
            if metric.better != "one":
                signs[f"{name}/{goal.name}"] = 1.0 if metric.better == "higher" else -1.0
    return signs | {f"loss/{goal.name}": -1.0 for goal in goals}


def _near(name: str, known: Mapping[str, float]) -> str:
    told, names = suggestion(name, known), ", ".join(sorted(known))
    return told if names in told else f"{told} There are {names}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
