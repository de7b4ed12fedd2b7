"""Picks the preference for a goal: `hyperrec suggest --workdir DIR --goal GOAL`.

Goals, over the preferences of a front that `hyperrec evaluate` wrote:

  best:buy               the best main metric of a goal: the highest AUC of a binary one
  best:buy,click=1%      the same, among those that lose at most 1 % of the best metric of the other
                         goals that are named (click=0.01 is the absolute difference)
  knee                   the point farthest from the line (plane) between the ends of the front,
                         both scaled to their ranges (Das 1999, doi 10.1007/s001580050111)
  ratio:click=2,buy=1    normalised losses in this ratio: what each goal loses of its best metric,
                         scaled so that its best is 0 and its worst 1

Goals under guards, for which the model is asked anew, between the points of the grid, too:

  max:buy                the highest main metric: NDCG@10 of the lists where the data has lists
  max:buy+0.3*click      a sum, where one point of buy is worth 0.3 of click
  min:log_loss/buy       of metrics of which less is better
  --guard "click>=-1%"   what a metric may lose against --baseline: the bound of a bootstrap holds,
                         for all guards at once, with --confidence
  --guard "log_loss/click<=+0.002"

The choice is made on the validation rows and reported on the test rows. Then come the exchange
rates: what one more point of a goal costs the others there. --rates gives them for other goals.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.choice import read_front, suggest_preference

GUARDED = ("max:", "min:")
_ANEW: dict[str, Any] = {
    "guard": [],
    "confidence": None,
    "baseline": None,
    "baseline_run": None,
    "resample_by": None,
    "resamples": None,
    "output": None,
}
"""Options of what is asked anew, with their values where they are not given."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no front or model, or the goal is malformed or can't be met.
    """
    parser = cli.new_parser("suggest", __doc__, imports=True)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--goal", required=True, help="see above")
    parser.add_argument(
        "--split",
        default="validation",
        choices=("validation", "test"),
        help="the front to choose from; to choose on the test split and report on it as well "
        "flatters the choice (default: %(default)s)",
    )
    parser.add_argument(
        "--guard", action="append", default=[], help="see above; may be given several times"
    )
    parser.add_argument(
        "--confidence", type=float, help="that all guards hold, 0.5 to 1 (default: 0.95)"
    )
    parser.add_argument(
        "--baseline", help="preference that guards compare with (default: equal weights)"
    )
    parser.add_argument(
        "--baseline-run",
        type=Path,
        help="folder of another run on the same data, which is asked under the baseline",
    )
    parser.add_argument(
        "--resample-by",
        help="categorical field, such as the user, whose rows are drawn together (default: the "
        "list of a row where there are lists, else single rows)",
    )
    parser.add_argument("--resamples", type=int, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--rates", action="store_true", help="exchange rates, for any goal")
    parser.add_argument("--store", type=Path, help="data, if it has moved since training")
    parser.add_argument("--output", type=Path, help="JSON file to write a guarded choice to")
    arguments = parser.parse_args(argv)
    if arguments.goal.startswith(GUARDED):
        _guarded(arguments)
        return 0
    for name, default in _ANEW.items():
        if getattr(arguments, name) != default and not (
            arguments.rates and name in ("confidence", "resample_by", "resamples")
        ):
            raise UserError(
                f"--{name.replace('_', '-')}: goes with goals that begin with max: or min:, not "
                f"with {arguments.goal}"
            )
    chosen = suggest_preference(read_front(arguments.workdir, arguments.split), arguments.goal)
    print(chosen)
    if arguments.rates:
        from hyperrec_jax.training.guarded import exchange

        trained, store = _opened(arguments)
        print("exchange rates here")
        for rate in exchange(
            trained, store, chosen.preference, split=arguments.split, **_numbers(arguments)
        ):
            print(f"  {rate}")
    return 0


def _guarded(arguments: Any) -> None:
    # Here and not at the top: the other goals need no model.
    from hyperrec_jax.preference.grid import parse_preferences
    from hyperrec_jax.training.guarded import suggest_guarded
    from hyperrec_jax.training.trained import load_trained
    from hyperrec_jax.training.workdir import write_json

    output = arguments.output
    if output and (output.suffix != ".json" or not output.parent.is_dir()):
        raise UserError(f"--output {output}: give a .json file in a folder that exists")
    trained, store = _opened(arguments)
    baseline = None
    if arguments.baseline:
        several = parse_preferences(arguments.baseline, trained.schema.num_tasks)
        if len(several) > 1:
            raise UserError(f"--baseline {arguments.baseline}: give one preference")
        baseline = several[0]
    found = suggest_guarded(
        trained,
        store,
        arguments.goal,
        arguments.guard,
        baseline=baseline,
        baseline_run=load_trained(arguments.baseline_run) if arguments.baseline_run else None,
        split=arguments.split,
        **_numbers(arguments),
    )
    if output:
        write_json(output, found.to_dict())
    print(found)


def _opened(arguments: Any) -> tuple[Any, Any]:
    from hyperrec_jax.training.trained import load_trained
    from hyperrec_jax.training.workdir import open_store

    trained = load_trained(arguments.workdir)
    return trained, open_store(trained.config, arguments.store)


def _numbers(arguments: Any) -> dict[str, Any]:
    """What was given of the options that have defaults elsewhere."""
    names = ("confidence", "resample_by", "resamples")
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
