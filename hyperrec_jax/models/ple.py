"""Progressive layered extraction (Tang et al. 2020, RecSys)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Array

from hyperrec_jax.models.base import Batch, MultiTaskModel, register
from hyperrec_jax.models.mixture import mix
from hyperrec_jax.options import Count


@register("ple")
class PLE(MultiTaskModel):
    """Levels of shared experts and of each goal's own; a level is one layer of `bottom_widths`.

    Attributes:
      num_shared_experts: Shared experts a level.
      num_task_experts: Own experts of each goal on each level.
    """

    num_shared_experts: Count = 4
    num_task_experts: Count = 4

    def setup(self) -> None:
        shared, own, tasks = self.num_shared_experts, self.num_task_experts, self.num_towers
        self.embedding = self.new_embedding()
        self.shared_experts = [self.new_bank(shared, (width,)) for width in self.bottom_widths]
        self.task_experts = [self.new_bank(tasks * own, (width,)) for width in self.bottom_widths]
        self.task_gates = [
            self.new_bank(tasks, (), outputs=own + shared) for _ in self.bottom_widths
        ]
        # The last level's shared representation would be read by nobody.
        self.shared_gates = [
            self.new_bank(1, (), outputs=tasks * own + shared) for _ in self.bottom_widths[1:]
        ]
        self.towers = self.new_towers()

    def encode(self, batch: Batch, train: bool) -> Array:
        """Each goal's representation after the last level, `[goal, batch, width]`."""
        own, last = self.num_task_experts, len(self.bottom_widths) - 1
        shared_input: Any = self.embedding(batch)
        task_inputs = (shared_input,) * self.num_towers
        for level in range(last + 1):
            shared = self.shared_experts[level](shared_input, train)
            shared = self.mark_shared(shared, f"shared_{level}")
            tasks = self.task_experts[level](
                tuple(x for x in task_inputs for _ in range(own)), train
            )
            gates = nn.softmax(self.task_gates[level](task_inputs, train))
            task_inputs = tuple(
                mix(gate, jnp.concatenate([tasks[own * task : own * (task + 1)], shared]))
                for task, gate in enumerate(gates)
            )
            if level < last:
                gate = nn.softmax(self.shared_gates[level](shared_input, train)[0])
                shared_input = mix(gate, jnp.concatenate([tasks, shared]))
        self.sow("intermediates", "gate_weights", list(gates))  # of the last level
        return jnp.stack(task_inputs)

    def decode(self, features: Array, preference: Array, train: bool) -> Array:
        """Logits `[batch, goal]`."""
        del preference
        return self.to_logits(self.towers(tuple(features), train))
