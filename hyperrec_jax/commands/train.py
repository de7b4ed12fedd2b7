"""Trains one model for all preferences.

    hyperrec train --config configs/synthetic.py --workdir runs/synthetic

Prints a table of the validation front at the end. Run the same command again to go on after a
stop. `--init-from FOLDER` begins at the model of another run, on newer data. `--config.KEY=VALUE`
and `--set KEY=VALUE` override the config: `--config.train.epochs=3`,
`--set model.tower_widths=[16,8]`; `hyperrec options` lists the keys.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from hyperrec_jax.commands import cli
from hyperrec_jax.config.files import config_name, load_config
from hyperrec_jax.parallel import distributed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError, TrainingError, Preempted: see `training.loop.fit`.
    """
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config",
        None,
        "Config file, such as configs/aliexpress_us.py; by default the package's own defaults.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; default runs/<config name>.", flag_values=values
    )
    flags.DEFINE_string(
        "init-from",
        None,
        "Folder of another run whose selected model is the begin, on data with the same fields and "
        "goals; the same as --set train.init_from=FOLDER.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "init-optimizer",
        False,
        "Whether the optimizer, too, goes on from the run of --init-from; the same as --set "
        "train.init_optimizer=true.",
        flag_values=values,
    )
    distributed.define_flags(values)
    overrides = cli.parse_flags(values, argv, __doc__)
    if values["init-from"].value is not None:
        overrides["train.init_from"] = values["init-from"].value
    if values["init-optimizer"].value:
        overrides["train.init_optimizer"] = "true"
    config = load_config(values.config, overrides)
    workdir = Path(values.workdir or f"runs/{config_name(values.config)}")
    with distributed.joined(distributed.cluster_from_flags(values)):
        # Here and not at the top: --help and a bad flag answer before JAX is loaded.
        from hyperrec_jax.parallel import processes
        from hyperrec_jax.reports import tables as report
        from hyperrec_jax.training.train import train

        cli.import_parts(values)
        progress = train(config, workdir)
        if processes.is_first():
            print(report.training_summary(workdir, progress))
    return 0
