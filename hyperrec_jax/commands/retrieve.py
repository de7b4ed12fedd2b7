"""Finds the best items of a catalogue: `hyperrec retrieve --workdir DIR --users FILE --items FILE`.

For runs of model `two_tower`. Writes one row for each user and rank: the columns of --keep-user and
--keep-item, `user_row` and `item_row` (their numbers in the files, from 1), `rank` and `score`. The
search is exact; with --index it asks an index of the package `usearch`, and says what that missed
for the first users.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError

MEASURED_USERS = 1000
"""Users whose exact items an index is compared with."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: a file or a preference is not as it should be, or the model has no vectors.
    """
    parser = cli.new_parser("retrieve", __doc__, imports=True)
    parser.add_argument(
        "--workdir",
        "--model",
        type=Path,
        required=True,
        help="folder of a run, or an exported model",
    )
    parser.add_argument("--users", type=Path, required=True, help="a .parquet file of users")
    parser.add_argument("--items", type=Path, required=True, help="a .parquet file of items")
    parser.add_argument(
        "--preference", help="a weight for each goal, as 0.3,0.7 (default: equal weights)"
    )
    parser.add_argument("--k", type=int, default=10, help="items for each user (default: 10)")
    parser.add_argument("--index", action="store_true", help="approximate search by usearch")
    parser.add_argument("--keep-user", default="", help="columns of the users to copy, by commas")
    parser.add_argument("--keep-item", default="", help="columns of the items to copy, by commas")
    parser.add_argument("--output", type=Path, required=True, help=".parquet file to write")
    arguments = parser.parse_args(argv)
    if arguments.k < 1:
        raise UserError(f"--k {arguments.k}: must be at least 1")
    if arguments.output.suffix != ".parquet" or not arguments.output.parent.is_dir():
        raise UserError(
            f"--output {arguments.output}: give a .parquet file in a folder that exists"
        )
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hyperrec_jax.api.load import load_predictor
    from hyperrec_jax.data.files import explain_write_errors, written_whole
    from hyperrec_jax.preference.grid import parse_preferences
    from hyperrec_jax.serving.retrieval import Index, Retriever, recall, top_items

    retriever = Retriever.of(load_predictor(arguments.workdir))
    preference = None
    if arguments.preference:
        several = parse_preferences(arguments.preference, len(retriever.predictor.tasks))
        if len(several) > 1:
            raise UserError(f"--preference {arguments.preference}: give one")
        preference = several[0]
    tables = {name: _read(getattr(arguments, name), f"--{name}") for name in ("users", "items")}
    kept = {
        name: [column for column in getattr(arguments, f"keep_{name[:-1]}").split(",") if column]
        for name in tables
    }
    for name, columns in kept.items():
        for column in columns:
            if column not in tables[name].column_names:
                raise UserError(f"--keep-{name[:-1]}: {name} have no column {column!r}")
    items = retriever.item_vectors(tables["items"], str(arguments.items))
    users = retriever.user_vectors(tables["users"], preference, str(arguments.users))
    if arguments.index:
        found = Index(items).search(users, arguments.k)
        exact = top_items(users[:MEASURED_USERS], items, arguments.k)
        share = recall(found.items[:MEASURED_USERS], exact.items)
        print(f"the index found {share:.2%} of the exact items of {len(exact.items):,} users")
    else:
        found = top_items(users, items, arguments.k)
    user = np.repeat(np.arange(len(users)), found.items.shape[1])
    item = found.items.ravel()
    written = {name: tables["users"][name].take(pa.array(user)) for name in kept["users"]}
    written |= {name: tables["items"][name].take(pa.array(item)) for name in kept["items"]}
    rank = np.tile(np.arange(1, found.items.shape[1] + 1), len(users))
    written |= {
        "user_row": user + 1,
        "item_row": item + 1,
        "rank": rank,
        "score": found.scores.ravel(),
    }
    with explain_write_errors(arguments.output), written_whole(arguments.output) as file:
        pq.write_table(pa.table(written), file)
    print(f"{arguments.output}: {found.items.shape[1]} items for each of {len(users):,} users")
    return 0


def _read(path: Path, option: str) -> Any:
    """The rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{option} {path}: no readable Parquet file ({error})") from error
    if not len(table):
        raise UserError(f"{option} {path}: has no rows")
    return table
