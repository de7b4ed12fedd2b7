"""Reads the arrays of a state dict of the original and keeps account of what did not fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import MultiTaskModel
from hyperrec_jax.parallel.tables import table_rows

Tree = dict[str, Any]


class StateReader:
    """Takes arrays out of a state dict and keeps account of what did not fit."""

    def __init__(
        self,
        state_dict: Mapping[str, Any],
        model: MultiTaskModel,
        vocabularies: Sequence[Sequence[int]],
        raw_field_sizes: Sequence[int],
    ) -> None:
        self.arrays = {key: np.array(value) for key, value in state_dict.items()}
        self.model = model
        self.vocabularies = vocabularies
        self.raw_field_sizes = raw_field_sizes
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.misshapen: list[str] = []

    @property
    def input_width(self) -> int:
        fields = len(self.model.field_sizes) + (self.model.num_numerical > 0)
        return fields * self.model.embedding_dim

    def take(self, key: str, *shape: int) -> np.ndarray:
        """The array of a key; where it is missing or misshapen, zeros until `finish` raises."""
        self.used.add(key)
        if key not in self.arrays:
            self.missing.append(key)
            return np.zeros(shape, np.float32)
        array = self.arrays[key]
        if array.shape != shape:
            self.misshapen.append(f"{key} {list(array.shape)} instead of {list(shape)}")
            return np.zeros(shape, np.float32)
        return array

    def skip(self, key: str) -> None:
        """Lets a key be there or not: nothing reads it."""
        self.used.add(key)

    def finish(self) -> None:
        unexpected = sorted(
            key for key in set(self.arrays) - self.used if not key.endswith("num_batches_tracked")
        )
        complaints = [
            f"{kind}: {', '.join(keys)}"
            for kind, keys in (
                ("missing", sorted(self.missing)),
                ("unexpected", unexpected),
                ("wrong shape", sorted(self.misshapen)),
            )
            if keys
        ]
        if complaints:
            raise UserError(f"the checkpoint does not fit the model; {'; '.join(complaints)}")

    def linear(self, prefix: str, width: int, out: int) -> Tree:
        return {
            "kernel": self.take(f"{prefix}.weight", out, width).T,
            "bias": self.take(f"{prefix}.bias", out),
        }

    def embedding(self, table_prefix: str, numerical_prefix: str) -> Tree:
        dim, tree = self.model.embedding_dim, {}
        if self.vocabularies:
            rows = sum(self.raw_field_sizes)
            table = self.take(f"{table_prefix}.embedding.weight", rows, dim)
            starts = np.cumsum([0, *self.raw_field_sizes[:-1]])
            known = [
                table[start + np.asarray(values, np.int64)]
                for start, values in zip(starts, self.vocabularies, strict=True)
            ]
            embedding = np.concatenate(
                [part for rows in known for part in (rows.mean(axis=0, keepdims=True), rows)]
            )
            unused = table_rows(self.model.field_sizes) - len(embedding)
            tree["embedding"] = np.pad(embedding, ((0, unused), (0, 0)))
        if self.model.num_numerical:
            numerical = self.linear(numerical_prefix, self.model.num_numerical, dim)
            tree["numerical_kernel"], tree["numerical_bias"] = (
                numerical["kernel"],
                numerical["bias"],
            )
        return tree

    def bank(
        self,
        prefixes: Sequence[str],
        width: int,
        widths: Sequence[int],
        outputs: int | None = None,
    ) -> tuple[Tree, Tree]:
        """Parameters and statistics of a bank from the sequences `prefix.0`, `prefix.1`, ...

        Every hidden layer takes four places there: dense, batch norm, ReLU, dropout.
        """
        params, stats = {}, {}
        for index, out in enumerate(widths):
            dense, norm = 4 * index, 4 * index + 1
            params[f"layer_{index}"] = _stack(
                self.linear(f"{prefix}.{dense}", width, out)
                | {
                    "scale": self.take(f"{prefix}.{norm}.weight", out),
                    "shift": self.take(f"{prefix}.{norm}.bias", out),
                }
                for prefix in prefixes
            )
            stats[f"layer_{index}"] = _stack(
                {
                    "mean": self.take(f"{prefix}.{norm}.running_mean", out),
                    "variance": self.take(f"{prefix}.{norm}.running_var", out),
                }
                for prefix in prefixes
            )
            width = out
        if outputs is not None:
            last = 4 * len(widths)
            params["output"] = _stack(
                self.linear(f"{prefix}.{last}", width, outputs) for prefix in prefixes
            )
        return params, stats

    def generated(self, number: int, trunk: int, width: int, out: int) -> Tree:
        """A generated layer; the original emits its kernel as rows of `[out, width]`."""
        kernel = self.take(f"hypter.gate_weights{number}.weight", out * width, trunk)
        offset = self.take(f"hypter.gate_weights{number}.bias", out * width)
        bias = self.linear(f"hypter.gate_bias{number}", trunk, out)
        return {
            "kernel": kernel.reshape(out, width, trunk).transpose(2, 1, 0),
            "kernel_offset": offset.reshape(out, width).T,
            "bias": bias["kernel"],
            "bias_offset": bias["bias"],
        }


def _stack(trees: Any) -> Tree:
    trees = list(trees)
    return {key: np.stack([tree[key] for tree in trees]) for key in trees[0]}
