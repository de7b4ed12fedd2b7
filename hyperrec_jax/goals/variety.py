"""A goal of whole lists: that their first rows are of many categories."""

from dataclasses import dataclass

from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.kinds import GOALS

MEASURES = ("coverage", "distinct_pairs")


@GOALS.register("variety")
@dataclass(frozen=True, kw_only=True)
class Variety(Binary):
    """How many categories the first rows of a list have.

    What a row adds to it depends on the rows beside it, so that it is no label of a row. Its column
    says which rows are worth a place, such as those that were bought: single rows are trained and
    measured as those of a binary goal, and lists by the measure (`preference.list_goals`,
    `evaluation.list_goals`).

    Attributes:
      sampling_rate: As of a binary goal.
      of: The categorical field whose ids are the categories.
      measure: `coverage`: the number of categories over the largest that there could be (Agrawal
        et al. 2009). `distinct_pairs`: the share of the pairs of rows that are of two categories
        (Ziegler et al. 2005).
    """

    of: str
    measure: str = "coverage"

    kind = "variety"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.of, str) and self.of):
            raise self._bad_option("of", "the name of a categorical field")
        self._check_choice("measure", MEASURES)

    @property
    def list_measure(self) -> str:
        """Its measure."""
        return self.measure
