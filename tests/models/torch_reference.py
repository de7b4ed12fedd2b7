"""The eight originals in PyTorch, written from the papers' formulas, as oracles.

Key names are those of the original repositories, so that the same modules test the import of
their checkpoints. All answer `forward(categorical, numerical, preference) -> logits [batch, task]`.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn


class Table(nn.Module):
    """One embedding table for all fields: field f's id i is row `sum(sizes[:f]) + i`."""

    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sum(sizes), dim)
        self.starts = torch.from_numpy(np.cumsum([0, *sizes[:-1]]))
        nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids + self.starts)


class MLP(nn.Module):
    """Dense, batch norm, ReLU, dropout for each width; with `head` one dense layer to 1."""

    def __init__(self, width: int, widths: tuple[int, ...], head: bool, rate: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for out in widths:
            layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU(), nn.Dropout(rate)]
            width = out
        if head:
            layers.append(nn.Linear(width, 1))
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Reference(nn.Module):
    """Embedding and towers, which all but single-task share."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        num_numerical: int,
        num_tasks: int,
        *,
        dim: int = 8,
        bottom: tuple[int, ...] = (16, 12),
        tower: tuple[int, ...] = (10, 6),
        experts: int = 4,
        rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = (len(sizes) + 1) * dim
        self.tasks, self.experts, self.hidden = num_tasks, experts, bottom[-1]
        self.args = {"sizes": sizes, "numerical": num_numerical, "dim": dim, "rate": rate}
        self.bottom_widths, self.tower_widths = bottom, tower
        self.build()

    def build(self) -> None:
        self.embedding = Table(self.args["sizes"], self.args["dim"])
        self.numerical_layer = nn.Linear(self.args["numerical"], self.args["dim"])
        self.tower = self.mlps(self.tasks, self.hidden, self.tower_widths, head=True)

    def mlps(self, count: int, width: int, widths: tuple[int, ...], head: bool) -> nn.ModuleList:
        return nn.ModuleList(MLP(width, widths, head, self.args["rate"]) for _ in range(count))

    def bottoms(self, count: int) -> nn.ModuleList:
        return self.mlps(count, self.width, self.bottom_widths, head=False)

    def gate_layer(self, width: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, out), nn.Softmax(dim=-1))

    def vectors(self, categorical: Tensor, numerical: Tensor) -> Tensor:
        """`[batch, field + 1, dim]`."""
        numbers = self.numerical_layer(numerical)[:, None]
        return torch.cat([self.embedding(categorical), numbers], dim=1)

    def towers(self, features: list[Tensor]) -> Tensor:
        outputs = [tower(x) for tower, x in zip(self.tower, features, strict=True)]
        return torch.cat(outputs, dim=1)

    def forward(self, categorical: Tensor, numerical: Tensor, preference: Tensor) -> Tensor:
        return self.towers(
            self.features(self.vectors(categorical, numerical).flatten(1), preference)
        )

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        raise NotImplementedError


def weighted(gate: Tensor, outputs: list[Tensor]) -> Tensor:
    """`sum_e gate[:, e] * outputs[e]`."""
    return sum(gate[:, e, None] * output for e, output in enumerate(outputs))


class SharedBottom(Reference):
    def build(self) -> None:
        super().build()
        self.bottom = self.bottoms(1)[0]

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        return [self.bottom(x)] * self.tasks


class SingleTask(Reference):
    def build(self) -> None:
        super().build()
        sizes, numerical, dim = (self.args[key] for key in ("sizes", "numerical", "dim"))
        self.embedding = nn.ModuleList(Table(sizes, dim) for _ in range(self.tasks))
        self.numerical_layer = nn.ModuleList(nn.Linear(numerical, dim) for _ in range(self.tasks))
        self.bottom = self.bottoms(self.tasks)

    def forward(self, categorical: Tensor, numerical: Tensor, preference: Tensor) -> Tensor:
        features = []
        for table, layer, bottom in zip(
            self.embedding, self.numerical_layer, self.bottom, strict=True
        ):
            vectors = torch.cat([table(categorical), layer(numerical)[:, None]], dim=1)
            features.append(bottom(vectors.flatten(1)))
        return self.towers(features)


class OMoE(Reference):
    def build(self) -> None:
        super().build()
        self.expert = self.bottoms(self.experts)
        self.gate = self.gate_layer(self.width, self.experts)

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        return [weighted(self.gate(x), [expert(x) for expert in self.expert])] * self.tasks


class MMoE(Reference):
    def build(self) -> None:
        super().build()
        self.expert = self.bottoms(self.experts)
        self.gate = nn.ModuleList(
            self.gate_layer(self.width, self.experts) for _ in range(self.tasks)
        )

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        outputs = [expert(x) for expert in self.expert]
        return [weighted(gate(x), outputs) for gate in self.gate]


class PLE(Reference):
    """Half of the experts shared, the other half for one task each."""

    def build(self) -> None:
        super().build()
        half = self.experts // 2
        widths = (self.width, *self.bottom_widths)
        levels = list(itertools.pairwise(widths))

        def experts(width: int, out: int) -> nn.ModuleList:
            return self.mlps(half, width, (out,), head=False)

        self.share_experts = nn.ModuleList(experts(*level) for level in levels)
        self.task_experts = nn.ModuleList(
            nn.ModuleList(experts(*level) for _ in range(self.tasks)) for level in levels
        )
        self.task_gates = nn.ModuleList(
            nn.ModuleList(self.gate_layer(width, 2 * half) for _ in range(self.tasks))
            for width, _ in levels
        )
        self.share_gates = nn.ModuleList(
            self.gate_layer(width, half * (self.tasks + 1)) for width, _ in levels
        )

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        shared, tasks = x, [x] * self.tasks
        for level in range(len(self.bottom_widths)):
            common = [expert(shared) for expert in self.share_experts[level]]
            own = [
                [expert(tasks[task]) for expert in experts]
                for task, experts in enumerate(self.task_experts[level])
            ]
            new = [
                weighted(gate(tasks[task]), own[task] + common)
                for task, gate in enumerate(self.task_gates[level])
            ]
            if level + 1 < len(self.bottom_widths):
                shared = weighted(
                    self.share_gates[level](shared), [*itertools.chain(*own), *common]
                )
            tasks = new
        return tasks


class AITM(Reference):
    def build(self) -> None:
        super().build()
        width = self.hidden
        self.bottom = self.bottoms(self.tasks)
        self.g = nn.ModuleList(nn.Linear(width, width) for _ in range(self.tasks - 1))
        self.h1, self.h2, self.h3 = (nn.Linear(width, width) for _ in range(3))

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        chain = [self.bottom[0](x)]
        for transfer, bottom in zip(self.g, self.bottom[1:], strict=True):
            pair = [transfer(chain[-1]), bottom(x)]
            scores = [(self.h2(u) * self.h3(u)).sum(1) / math.sqrt(self.hidden) for u in pair]
            weights = torch.softmax(torch.stack(scores, 1), dim=1)
            chain.append(weighted(weights, [self.h1(u) for u in pair]))
        return chain


class Heac(Reference):
    critics = 3

    def build(self) -> None:
        super().build()
        del self.tower
        dim = self.args["dim"]
        self.expert = self.bottoms(self.experts)
        self.critic = self.mlps(self.critics, self.hidden, self.tower_widths, head=True)
        self.task_embedding = nn.Embedding(self.tasks, dim)
        self.expert_gate = self.gate_layer(2 * dim, self.experts)
        self.critic_gate = self.gate_layer(2 * dim, self.critics)

    def forward(self, categorical: Tensor, numerical: Tensor, preference: Tensor) -> Tensor:
        """Logits of the gated sum of the critics' probabilities."""
        vectors = self.vectors(categorical, numerical)
        outputs = [expert(vectors.flatten(1)) for expert in self.expert]
        mean, results = vectors.mean(dim=1), []
        for task in self.task_embedding.weight:
            read = torch.cat([task.expand_as(mean), mean], dim=1)
            mixed = weighted(self.expert_gate(read), outputs)
            probabilities = [torch.sigmoid(critic(mixed)) for critic in self.critic]
            results.append(weighted(self.critic_gate(read), probabilities))
        return torch.logit(torch.cat(results, dim=1))


class MetaHeac(nn.Module):
    """The wrapper under which the original saves."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()
        self.model = Heac(*args, **kwargs)

    def forward(self, *args: Tensor) -> Tensor:
        return self.model(*args)


class HyperGate(nn.Module):
    """Emits two gate layers from a preference."""

    def __init__(self, tasks: int, width: int, experts: int) -> None:
        super().__init__()
        self.ray_mlp = nn.Sequential(
            nn.Linear(tasks, 64), nn.ReLU(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)
        )
        self.gate_weights1 = nn.Linear(64, width * experts)
        self.gate_bias1 = nn.Linear(64, experts)
        self.gate_weights2 = nn.Linear(64, experts * experts)
        self.gate_bias2 = nn.Linear(64, experts)

    def forward(self, preference: Tensor) -> list[tuple[Tensor, Tensor]]:
        code = self.ray_mlp(preference)
        experts = self.gate_bias1.out_features
        return [
            (weights(code).reshape(experts, -1), bias(code))
            for weights, bias in (
                (self.gate_weights1, self.gate_bias1),
                (self.gate_weights2, self.gate_bias2),
            )
        ]


class PoMoE(Reference):
    def build(self) -> None:
        super().build()
        self.expert = self.bottoms(self.experts)
        self.hypter = HyperGate(self.tasks, self.width, self.experts)

    def features(self, x: Tensor, preference: Tensor) -> list[Tensor]:
        gate = x
        for weights, bias in self.hypter(preference):
            gate = gate @ weights.T + bias
        outputs = [expert(x) for expert in self.expert]
        return [weighted(torch.relu(gate), outputs)] * self.tasks


REFERENCES: dict[str, type[nn.Module]] = {
    "aitm": AITM,
    "metaheac": MetaHeac,
    "mmoe": MMoE,
    "omoe": OMoE,
    "ple": PLE,
    "pomoe": PoMoE,
    "sharedbottom": SharedBottom,
    "singletask": SingleTask,
}
