"""Towers of different widths: one bank for each width."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.banks import Bank
from hyperrec_jax.models.features import Features


class Towers(nn.Module):
    """Stands where a `Bank` with one network for each goal would.

    Networks of the same widths still run side by side; those that begin alike in a bank do so
    within their group.

    Attributes:
      groups: A bank for each width.
      members: Positions of the goals whose networks each bank has.
    """

    groups: tuple[Bank, ...]
    members: tuple[tuple[int, ...], ...]

    def setup(self) -> None:
        self.group = [bank.clone() for bank in self.groups]

    def __call__(
        self, x: Features | tuple[Features, ...], train: bool, code: Array | None = None
    ) -> Array:
        """Outputs `[goal, ..., batch, width]`; see `Bank`."""
        outputs: dict[int, Array] = {}
        for bank, members in zip(self.group, self.members, strict=True):
            own = tuple(x[goal] for goal in members) if isinstance(x, tuple) else x
            outputs |= zip(members, jnp.unstack(bank(own, train, code)), strict=True)
        return jnp.stack([outputs[goal] for goal in sorted(outputs)])
