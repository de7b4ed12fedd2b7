"""The original PO-MoE in PyTorch, as its users run it and at its best.

Model and step are those of the original: Adam with weight decay on `sum r_i L_i - 0.05 cos(L, 1 -
r)` for one Dirichlet(1, 1.2) preference per batch. Evaluation passes over the rows once for each.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import timed
from hyperrec_jax.data.readers.rows import TrainingReader
from hyperrec_jax.data.store import Store
from hyperrec_jax.preference.grid import evaluation_grid
from tests.models.torch_reference import HyperGate, PoMoE

CONCENTRATION = (1.0, 1.2)
COSINE_WEIGHT = 0.05
LEARNING_RATE, WEIGHT_DECAY = 3e-4, 1e-6
GATE_RATE = 0.05

Rows = tuple[Tensor, Tensor, Tensor]


class Gate(HyperGate):
    """The hypernetwork, with dropout on the parameters that it emits."""

    rate: float

    def forward(self, preference: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [
            (self._dropped(weights), self._dropped(bias))
            for weights, bias in super().forward(preference)
        ]

    def _dropped(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.rate, self.training)


class Model(PoMoE):
    """PO-MoE with the original's dropout, or with none at a rate of 0."""

    def build(self) -> None:
        super().build()
        self.hypter = Gate(self.tasks, self.width, self.experts)
        self.hypter.rate = GATE_RATE if self.args["rate"] else 0.0


class CsvRows(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """The processed form, read whole by pandas; one row an item."""

    def __init__(self, path: Path, num_categorical: int, num_tasks: int):
        data = pd.read_csv(path).to_numpy()[:, 1:]
        self.categorical = data[:, :num_categorical].astype(np.int64)
        self.numerical = data[:, num_categorical:-num_tasks].astype(np.float32)
        self.labels = data[:, -num_tasks:].astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.categorical[index], self.numerical[index], self.labels[index]


def loader_batches(rows: CsvRows, batch_size: int, *, shuffle: bool) -> Iterator[Rows]:
    """Batches as the original's users get them: fetched row by row, then collated."""
    yield from DataLoader(rows, batch_size, shuffle=shuffle, drop_last=shuffle)


def memory_batches(rows: CsvRows, batch_size: int, *, shuffle: bool) -> Iterator[Rows]:
    """Batches at their best: gathered whole from tensors."""
    columns = [torch.from_numpy(c) for c in (rows.categorical, rows.numerical, rows.labels)]
    if not shuffle:
        yield from zip(*(column.split(batch_size) for column in columns), strict=True)
        return
    order = torch.randperm(len(rows))
    for start in range(0, len(rows) - batch_size + 1, batch_size):
        index = order[start : start + batch_size]
        categorical, numerical, labels = (column[index] for column in columns)
        yield categorical, numerical, labels


SOURCES: dict[str, Callable[..., Iterator[Rows]]] = {
    "loader": loader_batches,
    "memory": memory_batches,
}


class TorchRunner:
    """The peer, ready to be timed.

    Args:
      store_path: For the schema, and for the batches of `curve`.
      folder: Holds `train.csv` and `test.csv`.
      source: A key of `SOURCES`. From memory, Adam is PyTorch's fused one too.
      batch_size: Rows a step.
      options: Options of the model: `dim`, `bottom`, `tower`, `experts`, `rate`.
      threads: Of PyTorch.
    """

    def __init__(
        self,
        store_path: Path,
        folder: Path,
        source: str,
        batch_size: int,
        options: Mapping[str, Any],
        *,
        threads: int,
    ):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._store, self._folder = Store.open(store_path), folder
        self._batches, self._batch_size = SOURCES[source], batch_size
        schema = self._store.schema
        self._tasks = schema.num_tasks
        self._model = Model(schema.field_sizes, schema.num_numerical, self._tasks, **options)
        self._optimizer = torch.optim.Adam(
            self._model.parameters(),
            lr=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            fused=source == "memory",
        )
        self._rng = np.random.default_rng(0)
        self._training = self._epochs()

    def _rows(self, split: str) -> CsvRows:
        schema = self._store.schema
        return CsvRows(self._folder / f"{split}.csv", len(schema.categorical), self._tasks)

    def _epochs(self) -> Iterator[Rows]:
        rows = self._rows("train")
        while True:
            yield from self._batches(rows, self._batch_size, shuffle=True)

    def train(self, steps: int) -> float:
        """Seconds of some steps; the first call also reads the file."""
        self._model.train()

        def run() -> None:
            for _ in range(steps):
                preference = self._rng.dirichlet(np.resize(CONCENTRATION, self._tasks))
                self._step(next(self._training), torch.tensor(preference, dtype=torch.float32))

        return timed(run)

    def _step(self, rows: Rows, preference: Tensor) -> Tensor:
        """One update; returns the task losses before it."""
        categorical, numerical, labels = rows
        logits = self._model(categorical, numerical, preference)
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits, labels, reduction="none"
        ).mean(dim=0)
        cosine = nn.functional.cosine_similarity(losses, 1 - preference, dim=0)
        self._optimizer.zero_grad()
        (preference @ losses - COSINE_WEIGHT * cosine).backward()
        self._optimizer.step()
        return losses.detach()

    def prepare_evaluation(self) -> None:
        """Reads the test rows."""
        self._test = self._rows("test")

    def evaluate(self, num_preferences: int) -> float:
        """Seconds of scoring the test rows under a grid, and of the AUCs."""
        return timed(lambda: self._evaluate(num_preferences))

    @torch.no_grad()
    def _evaluate(self, num_preferences: int) -> np.ndarray:
        self._model.eval()
        table = []
        for preference in torch.tensor(
            evaluation_grid(self._tasks, num_preferences), dtype=torch.float32
        ):
            scores, truth = [], []
            for categorical, numerical, labels in self._batches(
                self._test, self._batch_size, shuffle=False
            ):
                scores.append(torch.sigmoid(self._model(categorical, numerical, preference)))
                truth.append(labels)
            columns = zip(torch.cat(truth).T.numpy(), torch.cat(scores).T.numpy(), strict=True)
            table.append([roc_auc_score(labels, values) for labels, values in columns])
        return np.array(table)

    def weights(self) -> dict[str, np.ndarray]:
        """The model's state dict as arrays."""
        return {key: value.numpy().copy() for key, value in self._model.state_dict().items()}

    def curve(self, seed: int, preferences: np.ndarray) -> np.ndarray:
        """Task losses `[step, task]` of steps with the given preferences `[step, task]`.

        The batches are those of the store's own reader with that seed.
        """
        self._model.train()
        reader = TrainingReader(self._store.split("train"), self._batch_size, seed)
        losses = []
        for step, preference in enumerate(preferences):
            batch = reader.read(step, 1)
            categorical, numerical, labels = (
                torch.from_numpy(batch[name][0]) for name in ("categorical", "numerical", "labels")
            )
            rows = categorical.long(), numerical, labels.float()
            losses.append(self._step(rows, torch.tensor(preference, dtype=torch.float32)).numpy())
        return np.array(losses)
