"""From a preference to parameters (Navon et al. 2021, arXiv 2010.04104)."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.banks import Linear
from hyperrec_jax.models.dropout import dropout
from hyperrec_jax.models.features import Features
from hyperrec_jax.models.initialisers import fan_in_uniform


class PreferenceNetwork(nn.Module):
    """The trunk of a hypernetwork: a preference `[..., goal]` to a code `[..., 1 or batch, code]`.

    Attributes:
      widths: Widths of the layers; ReLU between them, none after the last.
      dtype: Type of the code.
    """

    widths: tuple[int, ...]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, preference: Array) -> Array:
        code = jnp.atleast_2d(preference).astype(self.dtype)
        for index, width in enumerate(self.widths):
            code = Linear(width, self.dtype, name=f"layer_{index}")(
                nn.relu(code) if index else code
            )
        return code


class GeneratedLinear(nn.Module):
    """A dense layer whose kernel and bias are linear in a code.

    With one code per row, which would mean one kernel per row, the order of the two products is
    exchanged: `x @ (h . K + b)` is computed as `h . (x @ K) + x @ b`.

    Attributes:
      features: Outputs.
      rate: Dropout of the generated parameters; one draw per batch, shared by all its
        preferences.
      dtype: Type of activations and products.
    """

    features: int
    rate: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Features, code: Array, train: bool) -> Array:
        """Outputs `[..., batch, features]` for a code `[..., 1 or batch, code]`."""
        width, hidden = x.shape[-1], code.shape[-1]
        init = fan_in_uniform(hidden)
        kernel = self.param("kernel", init, (hidden, width, self.features)).astype(self.dtype)
        kernel_offset = self.param("kernel_offset", init, (width, self.features)).astype(self.dtype)
        bias_kernel = self.param("bias", init, (hidden, self.features)).astype(self.dtype)
        bias = self.param("bias_offset", init, (self.features,)).astype(self.dtype)
        masks = [jnp.ones_like(kernel_offset), jnp.ones_like(bias)]
        if train and self.rate:
            masks = [dropout(self.make_rng("dropout"), mask, self.rate) for mask in masks]
        offset = (code @ bias_kernel + bias) * masks[1]
        if code.shape[-2] == 1:
            generated = (jnp.tensordot(code[..., 0, :], kernel, 1) + kernel_offset) * masks[0]
            return x @ generated + offset
        columns = jnp.concatenate([kernel, kernel_offset[None]]) * masks[0]
        products = x @ jnp.moveaxis(columns, 0, 1).reshape(width, -1)
        products = products.reshape(*products.shape[:-1], hidden + 1, self.features)
        code = jnp.concatenate([code, jnp.ones_like(code[..., :1])], axis=-1)
        return jnp.einsum("...bh,...bho->...bo", code, products) + offset


class GeneratedVector(nn.Module):
    """All parameters of a network as one vector that a preference generates.

    Attributes:
      size: Length of the vector.
      widths: Layers of the trunk.
      chunk_size: Where the vector is longer, the trunk also reads a learned embedding of the
        chunk and gives the vector chunk by chunk, all through one last layer.
      dtype: Type of the vector.
    """

    size: int
    widths: tuple[int, ...]
    chunk_size: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, preference: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Codes `[..., chunk, code]` of preferences `[..., goal]`, and what makes them vectors.

        The second step, `[..., chunk, code]` to `[..., size]`, is a pure function of its own, so
        that a caller with one preference per row need not hold all vectors at once.
        """
        chunks = -(-self.size // self.chunk_size)
        length = -(-self.size // chunks)
        inputs = preference[..., None, :]
        if chunks > 1:
            embedding = self.param(
                "chunk_embedding", nn.initializers.normal(1.0), (chunks, self.widths[-1])
            )
            lead = (*preference.shape[:-1], chunks)
            inputs = jnp.concatenate(
                [jnp.broadcast_to(part, (*lead, part.shape[-1])) for part in (inputs, embedding)],
                axis=-1,
            )
        codes = nn.relu(PreferenceNetwork(self.widths, self.dtype, name="trunk")(inputs))
        init = fan_in_uniform(self.widths[-1])
        kernel = self.param("kernel", init, (self.widths[-1], length)).astype(self.dtype)
        bias = self.param("bias", init, (length,)).astype(self.dtype)

        def emit(codes: Array) -> Array:
            return (codes @ kernel + bias).reshape(*codes.shape[:-2], -1)[..., : self.size]

        return codes, emit
