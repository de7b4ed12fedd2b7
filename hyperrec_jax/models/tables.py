"""Embedding tables of single fields: of another width, or with vectors that came from a file."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.parallel.tables import table_rows


class Own(NamedTuple):
    """What is particular to a table.

    Attributes:
      width: Width of its vectors.
      frozen: Whether it stays as it is: it is no parameter then, has no gradient and no moments in
        the optimizer, and its home is the collection of what a step keeps beside the parameters.
    """

    width: int
    frozen: bool = False


class Place(NamedTuple):
    """Where the rows of a vocabulary are: in an array `[row, width]`, from a row on."""

    table: Array
    start: int


class OwnTable(nn.Module):
    """The table of one vocabulary, `[table_rows, width]`.

    Attributes:
      size: Number of ids.
      own: Its width, and whether it is frozen.
    """

    size: int
    own: Own

    @nn.compact
    def __call__(self) -> Array:
        shape = (table_rows([self.size]), self.own.width)
        if self.own.frozen:
            return self.variable("batch_stats", "embedding", jnp.zeros, shape).value
        return self.param("embedding", nn.initializers.xavier_uniform(), shape)
