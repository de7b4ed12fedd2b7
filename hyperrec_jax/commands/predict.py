"""Scores raw rows of any number: `hyperrec predict --workdir DIR --input FILE ...`.

Rows stream from CSV or Parquet to Parquet or CSV a few megabytes at a time, under one preference or
several; memory does not grow with their number. The columns written are those of --keep, then one
for each goal and `score`, by which lists are ordered: `click`, or `click@0.3,0.7` for each of
several preferences.
"""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
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
    parser.add_argument(
        "--policy",
        type=Path,
        help="policy.yaml that chooses the preference; --preference may then be one of its names",
    )
    parser.add_argument("--segment", help="whom the rows are for, to the policy")
    parser.add_argument("--output", type=Path, required=True, help=".parquet or .csv to write")
    parser.add_argument(
        "--keep",
        help="columns of the input to copy, separated by commas (default: the column that the "
        "training data named as the list of a row, if the input has it)",
    )
    cli.add_dialect(parser)
    arguments = parser.parse_args(argv)
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    import numpy as np

    from hyperrec_jax.api.load import load_predictor as load
    from hyperrec_jax.data.csv_reader import make_dialect
    from hyperrec_jax.preference.grid import parse_preferences
    from hyperrec_jax.serving.policy_file import read_policy
    from hyperrec_jax.serving.scoring_files import predict_file

    dialect = make_dialect("--", arguments.separator, arguments.encoding, from_options=True)
    predictor = load(arguments.workdir)
    if arguments.preference and not predictor.conditioned:
        name = predictor.config["model"]["name"]
        raise UserError(f"--preference: the model ({name}) takes none; leave the option out")
    policy, wish = None, arguments.preference
    if arguments.policy:
        predictor.require_preference("--policy")
        policy = read_policy(arguments.policy, predictor.tasks)
    elif arguments.segment:
        raise UserError("--segment: goes with --policy, which tells segments apart")
    asked = None
    if wish and (policy is None or wish not in policy.preferences):
        asked = parse_preferences(wish, len(predictor.tasks))
    if policy is None:
        preferences = predictor.weights(None)[None] if asked is None else asked
    else:
        wishes = [wish] if asked is None else list(asked)
        decisions = [policy.decide(each, arguments.segment) for each in wishes]
        preferences = np.stack([decision.weights for decision in decisions])
    keep = None if arguments.keep is None else [name for name in arguments.keep.split(",") if name]
    rows = predict_file(
        predictor, arguments.input, arguments.output, preferences.astype(np.float32), keep, dialect
    )
    under = "1 preference" if len(preferences) == 1 else f"{len(preferences)} preferences"
    print(f"{arguments.output}: {rows:,} rows" + f" under {under}" * predictor.conditioned)
    if policy is not None:
        for decision in decisions:
            told = policy.told(decision, predictor.identity)
            weights = ",".join(f"{weight:.4g}" for weight in decision.weights)
            print(
                f"policy {told['name']} {told['version']}: {decision.name or 'own'} {weights} "
                f"({decision.reason}), model {told['model']}"
            )
    return 0
