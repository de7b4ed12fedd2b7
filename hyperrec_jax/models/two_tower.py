"""Two towers: a vector of the user under the preference, a vector of the item, their product."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.features import split
from hyperrec_jax.models.hypernetwork import PreferenceNetwork
from hyperrec_jax.models.norms import Norm
from hyperrec_jax.options import Count


@register("two_tower")
class TwoTower(MultiTaskModel):
    """Log-odds of each goal as a product of a user's vector and an item's (Huang et al. 2013).

    The user's tower reads the preference, the item's does not: the vectors of all items are made
    once, and one index of them serves every preference. The weighted sum of the goals' log-odds is
    the product of the item's vector with the weighted sum of the user's, so that the best items of
    a catalogue are found by one search (`serving.retrieval`). With `list.score=log_odds` that sum
    is what lists are trained for, end to end, under every preference.

    Attributes:
      user_fields: Names of the fields of the user and the request.
      item_fields: Names of the fields of the item. A field in neither is left out: one of both,
        such as how often this user bought this item, belongs to no tower.
      vector_width: Numbers in a vector.
      item_vectors_of: Whether an item has one vector for all goals, or one for each, which lie side
        by side in its index.
      code_widths: Layers of the network that reads the preference.
      user_adapter: How the preference changes the user's layers; with `none` its vectors follow
        the preference by their weighted sum alone.
    """

    norm: Norm = "pooled"
    user_fields: tuple[str, ...] = ()
    item_fields: tuple[str, ...] = ()
    vector_width: Count = 32
    item_vectors_of: Literal["all_goals", "each_goal"] = "all_goals"
    code_widths: tuple[int, ...] = (64, 64)
    user_adapter: Literal["none", "film"] = "film"

    conditioned: ClassVar[bool] = True
    binary_only: ClassVar[bool] = True
    own_towers: ClassVar[bool] = False

    def setup(self) -> None:
        self.embedding = self.new_embedding(numbers=False)
        self.preference_network = PreferenceNetwork(self.code_widths, self.compute_dtype)
        self.user_bottom = self.new_bank(1, self.bottom_widths, adapter=self.user_adapter)
        self.user_towers = self.new_bank(
            self.num_tasks, self.tower_widths, outputs=self.vector_width, adapter=self.user_adapter
        )
        copies = 1 if self.item_vectors_of == "all_goals" else self.num_tasks
        self.item_tower = self.new_bank(copies, self.bottom_widths, outputs=self.vector_width)
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_tasks,))

    @property
    def preference_parts(self) -> frozenset[str]:
        """The network that reads the preference, and the modulations."""
        return frozenset({"preference_network", "film_kernel", "film_bias"})

    def encode(self, batch: Batch, train: bool) -> tuple[Array, Array]:
        """What the user's tower reads, `[batch, width]`, and the items' vectors `[1 or goal, batch,
        vector_width]`."""
        return self.user_inputs(batch), self._vectors_of_items(batch, train)

    def decode(self, features: tuple[Array, Array], preference: Array, train: bool) -> Array:
        """Log-odds `[..., batch, goal]`."""
        users, items = features
        vectors = self.vectors_of_users(users, preference, train)
        several = items.reshape(len(items), *(1,) * (vectors.ndim - 3), *items.shape[1:])
        products = jnp.moveaxis((vectors * several).sum(axis=-1), 0, -1)
        logits = products / np.sqrt(self.vector_width) + self.bias
        if preference.ndim > logits.ndim:  # users' vectors that no preference changes
            logits = jnp.broadcast_to(logits, (*preference.shape[:-2], *logits.shape))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def user_inputs(self, batch: Batch) -> Array:
        """The fields of the user side by side, `[batch, width]`."""
        return self._fields(batch, self.user_fields, True)

    def item_vectors(self, batch: Batch) -> Array:
        """The vector of each item of a batch for an index, `[batch, width]`."""
        return jnp.concatenate(jnp.unstack(self._vectors_of_items(batch, False)), axis=-1)

    def user_vectors(self, batch: Batch, preference: Array) -> Array:
        """The vector of each user under a preference, by whose product with the items' vectors
        items are found, `[batch, width]`.

        The product is the weighted sum of the log-odds, up to a number that all items share.

        Args:
          batch: The users.
          preference: `[goal]`, or one for each user, `[batch, goal]`.
        """
        vectors = self.vectors_of_users(self.user_inputs(batch), preference, False)
        weights = jnp.moveaxis(jnp.atleast_2d(preference), -1, 0)[..., None]
        weighted = vectors * weights / np.sqrt(self.vector_width)
        if self.item_vectors_of == "all_goals":
            return weighted.sum(axis=0)
        return jnp.concatenate(jnp.unstack(weighted), axis=-1)

    def _vectors_of_items(self, batch: Batch, train: bool) -> Array:
        """`[1 or goal, batch, vector_width]`."""
        return self.mark_shared(
            self.item_tower(self._fields(batch, self.item_fields, False), train)
        )

    def vectors_of_users(self, users: Array, preference: Array, train: bool) -> Array:
        """The vector of each user for each goal, `[goal, ..., batch, vector_width]`."""
        code = None
        if self.user_adapter != "none":
            equal = jnp.full(self.num_tasks, 1 / self.num_tasks)
            codes = (self.preference_network(weights) for weights in (preference, equal))
            code = jnp.subtract(*map(nn.relu, codes))
        return self.user_towers(self.user_bottom(users, train, code)[0], train, code)

    def with_prior(
        self, params: Mapping[str, Any], constants: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """Sets the bias of each goal to its constant."""
        return {**params, "bias": jnp.asarray([float(each[0]) for each in constants])}

    def _fields(self, batch: Batch, names: tuple[str, ...], first: bool) -> Array:
        """The vectors and numbers of some fields side by side; without names, those of the first
        or the second half of all fields."""
        features = self.embedding(batch)
        numbers = batch["numerical"].astype(self.compute_dtype)
        parts = split(features.concatenate(), features.widths, axis=1)
        parts += split(numbers, [1] * numbers.shape[1], axis=1)
        if not names:
            half = (len(parts) + 1) // 2
            return jnp.concatenate(parts[:half] if first else parts[half:], axis=1)
        known = () if self.names is None else self.names.fields
        return jnp.concatenate([parts[known.index(name)] for name in names], axis=1)
