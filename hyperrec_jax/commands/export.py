"""Exports a trained model for serving: `hyperrec export --workdir DIR --out DIR`.

    model/
      model.json         format version, schema, config, versions, a checksum of each other file
      vocabulary.arrow   the values behind the ids
      weights.npz        parameters and batch norm statistics, float32
      grid.jaxexport     StableHLO: rows under each of several preferences
      each.jaxexport     StableHLO: each row under a preference of its own
      both.jaxexport     StableHLO: each row under its own preference and under equal weights

`hyperrec_jax.load(folder)` reads it with JAX, NumPy, PyArrow and Polars alone. The programs take
any number of rows and preferences and run on CPU, CUDA and TPU. Later releases of JAX read them
for as long as JAX guarantees for exported programs (docs.jax.dev/en/latest/export).

There is no ONNX: jax2onnx, the converter that is maintained, needs orbax-checkpoint below 0.11.37,
which can't be installed beside the one that training needs. There is no SavedModel, which would
need TensorFlow.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: see `export`.
    """
    parser = cli.new_parser("export", __doc__, imports=True)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="folder that `hyperrec train` wrote"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    arguments = parser.parse_args(argv)
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.serving.artefact import MANIFEST
    from hyperrec_jax.serving.export import PLATFORMS, export

    export(arguments.workdir, arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    manifest = json.loads((arguments.out / MANIFEST).read_text("utf-8"))
    print(
        f"{arguments.out}: {size / 1e6:.1f} MB, goals {', '.join(manifest['schema']['tasks'])}, "
        f"for {', '.join(PLATFORMS)}"
    )
    return 0
