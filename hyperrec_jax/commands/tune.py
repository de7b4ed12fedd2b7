"""Searches options by Optuna: `hyperrec tune --config FILE --study DIR --trials 20`.

    --range optimizer.learning_rate=1e-4:1e-2:log   a number between two, on a logarithmic scale
    --range model.num_experts=2:8                   whole where both ends are
    --range sampler.name=dirichlet,stratified       one of some

Every trial trains in a folder of its own under the study and is judged on the validation split:
by the hypervolume, or by several metrics of `--metrics` at once, which gives a front of trials.
The same command goes on with a study that was stopped, the stopped trial included, until it has
`--trials` trials.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from hyperrec_jax.commands import cli
from hyperrec_jax.config.files import load_config
from hyperrec_jax.errors import UserError
from hyperrec_jax.training.tune import DEFAULT_RANGES, Range, summary, tune


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: see `hyperrec_jax.training.tune.tune`.
    """
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config",
        None,
        "Config file that the trials start from; by default the package's own defaults.",
        flag_values=values,
    )
    flags.DEFINE_string("study", None, "Folder of the study.", flag_values=values)
    flags.DEFINE_integer("trials", 20, "Trials in all.", lower_bound=1, flag_values=values)
    flags.DEFINE_multi_string(
        "range", DEFAULT_RANGES, "What to search; see above.", flag_values=values
    )
    flags.DEFINE_list(
        "metrics",
        ["hypervolume"],
        "What is good: hypervolume, auc/GOAL, loss/GOAL or a sum such as "
        "0.7*auc/click+0.3*auc/buy; several with commas.",
        flag_values=values,
    )
    overrides = cli.parse_flags(values, argv, __doc__)
    if not values.study:
        raise UserError("--study is missing: a folder for the trials")
    config = load_config(values.config, overrides)
    cli.import_parts(values)
    ranges = [Range.parse(text) for text in values.range]
    study = tune(config, Path(values.study), ranges, values.trials, values.metrics)
    print(summary(study, values.metrics))
    print(f"{len(study.trials)} trials in {values.study}/; above the best on the validation split")
    return 0
