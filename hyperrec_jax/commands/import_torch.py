"""Makes a workdir of a PyTorch checkpoint: `hyperrec import ...`.

The workdir is for `hyperrec evaluate`, and for further training with `hyperrec train`. The
checkpoint is a `state_dict` of the original, MTReclib with its PO-MoE fork, whose keys are such as
`expert.0.mlp.0.weight`; its mmoe, whose gate draws unseeded preferences, is taken as MTReclib has
it. `--set KEY=VALUE` and `--config.KEY=VALUE` name the options that the checkpoint was trained with
where they differ: `--set model.num_experts=8`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.config.files import load_config
from hyperrec_jax.config.overrides import split_overrides
from hyperrec_jax.errors import UserError

MODELS = ("aitm", "metaheac", "mmoe", "omoe", "ple", "pomoe", "sharedbottom", "singletask")
"""The models that the original has: `training.torch_import.layouts.LAYOUTS`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: see `import_checkpoint`.
    """
    parser = cli.new_parser("import", __doc__, imports=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="state dict (.pt)")
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument(
        "--schema",
        "--store",
        dest="store",
        type=Path,
        required=True,
        help="folder of the prepared data that it was trained on; the schema and the ids are in it",
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder to make")
    parser.add_argument("--config", help="config file (default: the package's own defaults)")
    parser.add_argument(
        "--field-sizes",
        help="rows of each field in the original's embedding table, comma between (default: the "
        "largest id seen in training plus 1)",
    )
    rest, overrides = split_overrides(sys.argv[1:] if argv is None else list(argv))
    arguments = parser.parse_args(rest)
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.data.store import Store
    from hyperrec_jax.training.torch_import.workdir import import_checkpoint

    original = {"model.name": arguments.model, "data.store": str(arguments.store)}
    if arguments.model == "metaheac":
        original["model.output"] = "mean"
    preset = "original" if arguments.model == "pomoe" else "default"
    config = load_config(arguments.config, {"preset": preset} | original | overrides)
    sizes = _parse_sizes(arguments.field_sizes) if arguments.field_sizes else None
    store = Store.open(arguments.store)
    import_checkpoint(arguments.checkpoint, store, arguments.workdir, config, sizes)
    print(f"imported to {arguments.workdir}; next: hyperrec evaluate --workdir {arguments.workdir}")
    return 0


def _parse_sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError as error:
        raise UserError(f"--field-sizes {text}: give whole numbers, comma between") from error
