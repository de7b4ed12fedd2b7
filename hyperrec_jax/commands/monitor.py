"""Tells drift from noise on a fresh log: `hyperrec monitor --workdir DIR --data FILE`.

Holds a fresh labelled log against the test rows of the training: the main metric of each goal over
preferences, calibration, values that training never saw, and the guards of the preference in use.
Exit code 0: all is as it was; 4: something has changed for the worse, beyond its limit and beyond
noise. `--json FILE` writes all of it, for a scheduler.

    hyperrec monitor --workdir runs/own --data logs/2026-03.csv --preference 0.3,0.7 \\
        --guard "click>=-1%" --json drift.json
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.drift import DriftLimits

DRIFTED = 4
"""The exit code where there is an alarm."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no model, or the log, a guard or a number is not as it should be.
    """
    default = DriftLimits()
    parser = cli.new_parser("monitor", __doc__, imports=True)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="the fresh log, as for `hyperrec evaluate --data`: .csv, .csv.gz, .parquet, or a "
        "description",
    )
    parser.add_argument("--preference", help="the preference in use, as 0.3,0.7")
    parser.add_argument(
        "--guard",
        action="append",
        default=[],
        help="what that preference is to keep, as click>=-1%%; may be given several times",
    )
    parser.add_argument("--baseline", help="what guards compare with (default: equal weights)")
    parser.add_argument(
        "--max-drop",
        type=float,
        default=default.drop,
        help="part of a metric that may be lost (default: %(default)s)",
    )
    parser.add_argument(
        "--max-calibration",
        type=float,
        default=default.calibration,
        help="distance of predicted over observed from 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-unseen",
        type=float,
        default=default.unseen,
        help="rise of the share of values that training never saw (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, help="of the bounds (default: %(default)s)"
    )
    parser.add_argument(
        "--resample-by", help="categorical field, such as the user, whose rows are drawn together"
    )
    parser.add_argument(
        "--resamples", type=int, default=1000, help="bootstrap resamples (default: %(default)s)"
    )
    parser.add_argument("--store", type=Path, help="data of the training, if it has moved")
    parser.add_argument("--json", type=Path, help="file to write all checks to")
    arguments = parser.parse_args(argv)
    limits = DriftLimits(
        **{f.name: getattr(arguments, f"max_{f.name}") for f in dataclasses.fields(DriftLimits)}
    )
    output = arguments.json
    if output and (output.suffix != ".json" or not output.parent.is_dir()):
        raise UserError(f"--json {output}: give a .json file in a folder that exists")
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.data.fresh import fresh_source
    from hyperrec_jax.training.fresh import fresh_store
    from hyperrec_jax.training.monitor import monitor
    from hyperrec_jax.training.trained import load_trained
    from hyperrec_jax.training.workdir import open_store, write_json

    trained = load_trained(arguments.workdir)
    reference = open_store(trained.config, arguments.store)
    source = fresh_source(arguments.data, trained.schema)
    with fresh_store(arguments.workdir, lambda _: source) as fresh:
        drift = monitor(
            trained,
            reference,
            fresh,
            guards=arguments.guard,
            preference=_one(arguments.preference, trained, "--preference"),
            baseline=_one(arguments.baseline, trained, "--baseline"),
            limits=limits,
            confidence=arguments.confidence,
            resample_by=arguments.resample_by,
            resamples=arguments.resamples,
        )
    if output:
        write_json(output, drift.to_dict())
    print(drift)
    return DRIFTED if drift.alarms else 0


def _one(text: str | None, trained: Any, option: str) -> Any:
    """One preference, `[goal]`."""
    from hyperrec_jax.preference.grid import parse_preferences

    if text is None:
        return None
    several = parse_preferences(text, trained.schema.num_tasks)
    if len(several) > 1:
        raise UserError(f"{option} {text}: give one preference")
    return several[0]
