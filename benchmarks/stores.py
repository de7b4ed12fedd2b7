"""Stores of the benchmarks, prepared where they are missing."""

from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import prepare
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError


def open_or_prepare(path: Path, arguments: Sequence[str], data: Path | None = None) -> Store:
    """Opens a store, after preparing it where it is missing.

    Args:
      path: Its folder; the last part is the data set's name.
      arguments: Of `hyperrec prepare`, without `--input` and `--output`.
      data: What goes to `--input`, or None.

    Raises:
      UserError: it could not be prepared.
    """
    if not path.exists():
        source = [] if data is None else ["--input", str(data)]
        if prepare.main([*arguments, *source, "--output", str(path)]):
            origin = "" if data is None else f" from {data}"
            raise UserError(f"{path.name}: could not be prepared{origin}")
    return Store.open(path)
