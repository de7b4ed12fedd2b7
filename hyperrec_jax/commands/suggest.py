"""Picks the preference for a goal: `hyperrec suggest --workdir DIR --goal GOAL`.

Goals, over the preferences of a front that `hyperrec evaluate` wrote:

  best:buy               the best main metric of a goal: the highest AUC of a binary one
  best:buy,click=1%      the same, among those that lose at most 1 % of the best metric of the other
                         goals that are named (click=0.01 is the absolute difference)
  knee                   the point farthest from the line (plane) between the ends of the front,
                         both scaled to their ranges (Das 1999, doi 10.1007/s001580050111)
  ratio:click=2,buy=1    normalised losses in this ratio: what each goal loses of its best metric,
                         scaled so that its best is 0 and its worst 1
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.evaluation.choice import read_front, suggest_preference


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no front, or the goal is malformed or can't be met.
    """
    parser = cli.new_parser("suggest", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--goal", required=True, help="see above")
    parser.add_argument(
        "--split",
        default="validation",
        choices=("validation", "test"),
        help="the front to choose from; to choose on the test split and report on it as well "
        "flatters the choice (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    print(suggest_preference(read_front(arguments.workdir, arguments.split), arguments.goal))
    return 0
