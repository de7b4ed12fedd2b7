"""Trains one model for all preferences.

    python train.py --config configs/synthetic.py --workdir runs/synthetic

Prints a table of the validation front at the end. Run the same command again to go on after a
stop; `--config.train.epochs=3` and the like override the config.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from hyperrec_jax.commands import cli
from hyperrec_jax.parallel import distributed

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, such as configs/aliexpress_us.py.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
distributed.define_flags()


def main() -> int:
    config = cli.load_config(flags.FLAGS["config"])
    workdir = Path(_WORKDIR.value or f"runs/{cli.config_name(flags.FLAGS['config'])}")
    with distributed.joined(distributed.cluster_from_flags()):
        # Here and not at the top: --help and a bad flag answer before JAX is loaded.
        from hyperrec_jax.parallel import processes
        from hyperrec_jax.reports import tables as report
        from hyperrec_jax.training.train import train

        progress = train(config, workdir)
        if processes.is_first():
            print(report.training_summary(workdir, progress))
    return 0


if __name__ == "__main__":
    cli.run_absl(main)
