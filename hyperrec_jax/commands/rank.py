"""Orders raw rows within their lists: `hyperrec rank --workdir DIR --input FILE ...`.

Writes the rows list by list, best first, by one score for all goals under one preference: the list,
the columns of --keep, `row` (the number of the row in the input, from 1), one column for each goal,
`score` and `rank`. All rows are held in memory, but only these columns of them.
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.commands.preference_options import add_policy, chosen
from hyperrec_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: a file or a preference is not as it should be, or the model has no list scorer.
    """
    parser = cli.new_parser("rank", __doc__, imports=True)
    parser.add_argument(
        "--workdir",
        "--model",
        type=Path,
        required=True,
        help="folder of a run, or an exported model",
    )
    parser.add_argument(
        "--input", type=Path, required=True, help=".csv, .csv.gz or .parquet with raw rows"
    )
    parser.add_argument(
        "--preference", help="a weight for each goal, as 0.3,0.7 (default: equal weights)"
    )
    add_policy(parser)
    parser.add_argument("--output", type=Path, required=True, help=".parquet or .csv to write")
    parser.add_argument(
        "--group", help="the column that names a row's list (default: that of the training data)"
    )
    parser.add_argument(
        "--keep", default="", help="other columns of the input to copy, separated by commas"
    )
    parser.add_argument(
        "--fusion",
        help="how the score is made: expected_gain, log_odds, product, or marginal_gain where "
        "variety is a goal (default: marginal_gain there, else what the lists were trained by)",
    )
    cli.add_dialect(parser)
    arguments = parser.parse_args(argv)
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.api.load import load_predictor
    from hyperrec_jax.data.csv_reader import make_dialect
    from hyperrec_jax.evaluation.marginal_gain import list_fusion
    from hyperrec_jax.serving.scoring_files import rank_file

    dialect = make_dialect("--", arguments.separator, arguments.encoding, from_options=True)
    predictor = load_predictor(arguments.workdir)
    preferences, lines = chosen(arguments, predictor)
    if len(preferences) > 1:
        raise UserError(f"--preference {arguments.preference}: a list has one order; give one")
    rows = rank_file(
        predictor,
        arguments.input,
        arguments.output,
        preferences[0],
        arguments.group,
        [name for name in arguments.keep.split(",") if name],
        arguments.fusion,
        dialect,
    )
    fusion = list_fusion(predictor.preprocess.schema, predictor.scorer, arguments.fusion)
    print(f"{arguments.output}: {rows:,} rows, ordered within their lists by {fusion}")
    for line in lines:
        print(line)
    return 0
