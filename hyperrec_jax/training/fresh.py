"""Rows that came after training, as a store that a trained model can be evaluated on."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hyperrec_jax.data.fresh import store_of_fresh
from hyperrec_jax.data.source import Source
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.vocabulary_file import read_vocabulary
from hyperrec_jax.training import workdir as workdirs


@contextlib.contextmanager
def fresh_store(workdir: Path, make: Callable[[Path], Source]) -> Iterator[Store]:
    """Encodes rows with the vocabulary and the scaling of a run, for as long as they are needed.

    Args:
      workdir: The run's folder.
      make: The rows, from a folder for files on the way; their columns are those of the model.

    Yields:
      A store whose test split has all rows.

    Raises:
      UserError: the run's vocabulary is damaged, or a value can't be used.
    """
    schema = workdirs.load_schema(workdir)
    path = workdirs.check_kept_vocabulary(workdir)
    fields = read_vocabulary(path) if schema.tables else None
    vocabulary = [fields[table.name].values for table in schema.tables] if fields else []
    with tempfile.TemporaryDirectory(prefix="hyperrec-fresh-") as folder:
        yield store_of_fresh(make(Path(folder)), Path(folder), schema, vocabulary)
