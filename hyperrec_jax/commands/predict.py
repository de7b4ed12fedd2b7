"""Scores raw rows of any number: `hyperrec predict --workdir DIR --input FILE ...`.

Rows stream from CSV or Parquet to Parquet or CSV a few megabytes at a time, under one preference or
several; memory does not grow with their number. The columns written are those of --keep, then one
for each goal and `score`, by which lists are ordered: `click`, or `click@0.3,0.7` for each of
several preferences.
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.commands.preference_options import add_policy, chosen
from hyperrec_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: a file or a preference is not as it should be.
    """
    parser = cli.new_parser("predict", __doc__, imports=True)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="folder of a run, or an exported model"
    )
    parser.add_argument(
        "--input", type=Path, required=True, help=".csv, .csv.gz or .parquet with raw rows"
    )
    parser.add_argument(
        "--preference",
        help="a weight for each goal, as 0.3,0.7; several with ; between them, or a CSV file with "
        "one per line (default: equal weights)",
    )
    add_policy(parser)
    parser.add_argument("--output", type=Path, required=True, help=".parquet or .csv to write")
    parser.add_argument(
        "--keep",
        help="columns of the input to copy, separated by commas (default: the column that the "
        "training data named as the list of a row, if the input has it)",
    )
    cli.add_dialect(parser)
    arguments = parser.parse_args(argv)
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.api.load import load_predictor as load
    from hyperrec_jax.data.csv_reader import make_dialect
    from hyperrec_jax.serving.scoring_files import predict_file

    dialect = make_dialect("--", arguments.separator, arguments.encoding, from_options=True)
    predictor = load(arguments.workdir)
    if arguments.preference and not predictor.conditioned:
        name = predictor.config["model"]["name"]
        raise UserError(f"--preference: the model ({name}) takes none; leave the option out")
    preferences, lines = chosen(arguments, predictor)
    keep = None if arguments.keep is None else [name for name in arguments.keep.split(",") if name]
    rows = predict_file(predictor, arguments.input, arguments.output, preferences, keep, dialect)
    under = "1 preference" if len(preferences) == 1 else f"{len(preferences)} preferences"
    print(f"{arguments.output}: {rows:,} rows" + f" under {under}" * predictor.conditioned)
    for line in lines:
        print(line)
    return 0
