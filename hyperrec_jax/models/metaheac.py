"""MetaHeac: meta hybrid experts and critics (Zhu et al. 2021, KDD)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.typing import Array
from scipy.special import expit

from hyperrec_jax.goals.binary import log_odds
from hyperrec_jax.models.banks import Linear
from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.logits import log_complement
from hyperrec_jax.models.mixture import mix
from hyperrec_jax.options import Count, Rate


@register("metaheac")
class MetaHeac(MultiTaskModel):
    """Experts and critics, both mixed by gates that read a goal's embedding and the mean field.

    Attributes:
      num_experts: Number of experts.
      num_critics: Number of critics, networks of `tower_widths` with one output.
      output: `sum` is the paper's gated sum of the critics' probabilities; `mean` is what its
        authors' code computes, the same divided by `num_critics`, which caps a probability there.
      inner_learning_rate: Step size of the gradient step on a batch's support half.
    """

    num_experts: Count = 8
    num_critics: Count = 5
    output: Literal["sum", "mean"] = "sum"
    inner_learning_rate: Rate = 2e-4

    accumulate_steps: ClassVar[int] = 2
    binary_only: ClassVar[bool] = True
    one_width: ClassVar[bool] = True
    own_towers: ClassVar[bool] = False

    def setup(self) -> None:
        self.embedding = self.new_embedding()
        self.experts = self.new_bank(self.num_experts, self.bottom_widths)
        self.critics = self.new_towers(self.num_critics)
        self.task_embedding = self.param(
            "task_embedding", nn.initializers.normal(1.0), (self.num_towers, self.embedding_dim)
        )
        self.expert_gate = Linear(self.num_experts, self.compute_dtype)
        self.critic_gate = Linear(self.num_critics, self.compute_dtype)

    def with_prior(
        self, params: Mapping[str, Any], constants: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """All critics serve all tasks: they begin spread over the base rates, for gates to pick."""
        base_rates = expit(np.concatenate(constants))
        lowest, highest = base_rates.min(), base_rates.max()
        rates = np.geomspace(lowest, highest, self.num_critics)
        if self.output == "mean":
            rates = rates * self.num_critics
        biases = [np.array([log_odds(rate)]) for rate in rates]
        return self._with_output_bias(params, "critics", biases)

    def encode(self, batch: Batch, train: bool) -> tuple[Array, Array]:
        """Each goal's mixed experts `[goal, batch, width]` and logits of its critics' weights."""
        x = self.embedding(batch)
        experts = self.mark_shared(self.experts(x, train))
        fields = jnp.broadcast_to(x.mean(), (self.num_towers, x.shape[0], self.embedding_dim))
        tasks = jnp.broadcast_to(self.task_embedding[:, None].astype(x.dtype), fields.shape)
        gate_input = jnp.concatenate([tasks, fields], axis=-1)
        weights = nn.softmax(self.expert_gate(gate_input))
        self.sow("intermediates", "gate_weights", list(weights))
        return mix(weights, experts), self.critic_gate(gate_input)

    def decode(self, features: tuple[Array, Array], preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]` of the mixed probabilities."""
        del preference
        mixed, gates = features
        gates = nn.log_softmax(gates)
        # A critic sees every goal's representation, normalised apart; one goal after another.
        critics = jnp.moveaxis(self.critics(mixed, train)[..., 0], 0, -1)
        log_positive = nn.logsumexp(gates + nn.log_sigmoid(critics), axis=-1)
        if self.output == "mean":
            log_positive -= jnp.log(self.num_critics)
            log_negative = log_complement(log_positive)
        else:
            log_negative = nn.logsumexp(gates + nn.log_sigmoid(-critics), axis=-1)
        return jnp.moveaxis(log_positive - log_negative, 0, -1)
