"""Fresh rows of a frame as a store that a trained model reads."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hyperrec_jax.data.fresh import describe_fresh
from hyperrec_jax.data.source import Source
from hyperrec_jax.data.sources.frame import frame_source, write_frame
from hyperrec_jax.data.store import Store
from hyperrec_jax.serving.raw_rows import RawRows, to_table
from hyperrec_jax.training.fresh import fresh_store
from hyperrec_jax.training.trained import Trained


@contextlib.contextmanager
def fresh_rows(trained: Trained, rows: RawRows) -> Iterator[Store]:
    """Encodes rows with the vocabulary and the scaling of a model, for as long as they are needed.

    Args:
      trained: The model.
      rows: A frame, an Arrow table or a list of dictionaries, with a column for each field and
        goal.

    Yields:
      A store whose test split has all rows.

    Raises:
      UserError: a column is missing, or a value can't be used.
    """
    description = describe_fresh(trained.schema, {})

    def source(folder: Path) -> Source:
        path = folder / "rows.parquet"
        with path.open("wb") as file:
            identity = write_frame(to_table(rows), description, file)
        return frame_source(description, path, identity)

    with fresh_store(trained.folder, source) as store:
        yield store
