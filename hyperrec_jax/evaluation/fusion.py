"""A learned score for one list: a small network whose last layer the preference generates.

The hand-made score `sum_i r_i logit_i` means what it says only where the
tasks' log-odds spread alike, and it adds where a list may need more. This one learns, on rows that
the model was not trained on, which score serves the preference's weights of the tasks' list losses.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from hyperrec_jax.data import files
from hyperrec_jax.errors import UserError

Array = jax.Array

HIDDEN = 16
STEPS = 600
LEARNING_RATE = 0.02


class Fusion(NamedTuple):
    """`score = w(r) . z + v(r) . tanh(A z + a)` with `z` the standardised log-odds of the tasks.

    `w(r)` and `v(r)` are the outputs of a network with one hidden layer; at the start `w(r) = r`
    and `v(r) = 0`, the hand-made score.

    Attributes:
      mean, deviation: Mean and standard deviation of the log-odds, `[task]`.
      inner: `A` and `a` below each other, `[task + 1, hidden]`.
      trunk: First layer of the generating network, with its bias, `[task + 1, hidden]`.
      head: Its last layer, with its bias, `[hidden + 1, task + hidden]`.
    """

    mean: Array
    deviation: Array
    inner: Array
    trunk: Array
    head: Array

    def score(self, logits: ArrayLike, preference: ArrayLike) -> NDArray[np.float32]:
        """One score for each row, for all tasks.

        Args:
          logits: Log-odds, calibrated or not, `[..., task, row]`.
          preference: `[..., task]`.

        Returns:
          `[..., row]`; only the order within a list means something.
        """
        values, weights = jnp.asarray(logits, jnp.float32), jnp.asarray(preference, jnp.float32)
        if values.shape[:-1] != weights.shape:
            raise ValueError(
                f"logits {values.shape} must be [..., task, row] for preferences {weights.shape}"
            )
        return np.asarray(_score(self, values, weights))

    def save(self, path: str | Path) -> None:
        """Writes the parameters as `.npz`.

        Raises:
          UserError: the file can't be written.
        """
        arrays = {name: np.asarray(value) for name, value in self._asdict().items()}
        with files.explain_write_errors(Path(path)), files.written_whole(Path(path)) as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Fusion":
        """Reads what `save` wrote.

        Raises:
          UserError: the file is missing or another.
        """
        try:
            with np.load(path) as arrays:
                return cls(**{name: jnp.asarray(arrays[name]) for name in cls._fields})
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path}: no fusion that `hyperrec evaluate` wrote ({error})") from None


def fit_fusion(
    labels: ArrayLike,
    logits: ArrayLike,
    groups: ArrayLike,
    preferences: ArrayLike,
    *,
    steps: int = STEPS,
    seed: int = 0,
    goals: Sequence[str] = (),
) -> Fusion:
    """Learns a fusion by `sum_i r_i L_i(r)`, with `L_i` the list loss of task `i`.

    `L_i` is the softmax cross-entropy over each list that has a positive (ListNet's, Cao et al.
    2007; a bound on NDCG, Bruch et al. 2019), over that of a list in no order. Each step takes one
    of the preferences.

    Args:
      labels: 0 or 1, `[task, row]`.
      logits: Log-odds, `[preference, task, row]`, or `[task, row]`, the same under all preferences.
      groups: The list of each row, any integers, `[row]`.
      preferences: `[preference, task]`.
      steps: Number of steps of Adam.
      seed: Seed of the first parameters and of the order of the preferences.
      goals: Their names, for messages.

    Raises:
      UserError: a task has no list with both a positive and a negative.
    """
    truth = np.asarray(labels, np.float32)
    weights = np.asarray(preferences, np.float32)
    values = np.asarray(logits, np.float32)
    values = values if values.ndim == 3 else values[None]
    if truth.ndim != 2 or values.shape[1:] != truth.shape or len(values) not in (1, len(weights)):
        raise ValueError(
            f"labels {truth.shape} must be [task, row], logits {values.shape} the same or with "
            f"{len(weights)} preferences before"
        )
    ids, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
    targets = _targets(truth, group_of_row, len(ids), goals)
    num_tasks, hidden = len(truth), HIDDEN
    inner_key, trunk_key, order_key = jax.random.split(jax.random.key(seed), 3)
    deviation = values.std(axis=(0, 2))
    fusion = Fusion(
        mean=jnp.asarray(values.mean(axis=(0, 2))),
        deviation=jnp.asarray(np.where(deviation > 0, deviation, 1)),
        inner=jax.random.normal(inner_key, (num_tasks + 1, hidden)),
        trunk=jax.random.normal(trunk_key, (num_tasks + 1, hidden)),
        head=jnp.zeros((hidden + 1, num_tasks + hidden)),
    )
    fixed = {"mean": fusion.mean, "deviation": fusion.deviation}
    learned = {name: value for name, value in fusion._asdict().items() if name not in fixed}
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, max(steps, 1)))
    data = tuple(map(jnp.asarray, (values, weights, targets, group_of_row)))

    @jax.jit
    def train(learned: dict[str, Array], data: tuple[Array, ...]) -> dict[str, Array]:
        values, weights, targets, segments = data
        losses = functools.partial(_list_losses, targets=targets, segments=segments, lists=len(ids))
        unordered = losses(jnp.zeros(values.shape[-1]))

        def loss(learned: dict[str, Array], index: Array) -> Array:
            score = _score(Fusion(**learned, **fixed), values[index % len(values)], weights[index])
            return jnp.sum(weights[index] * losses(score) / unordered)

        def step(carry: tuple[dict, optax.OptState], index: Array) -> tuple[tuple, None]:
            learned, state = carry
            updates, state = optimizer.update(jax.grad(loss)(learned, index), state)
            return (optax.apply_updates(learned, updates), state), None

        order = jax.random.randint(order_key, (steps,), 0, len(weights))
        return jax.lax.scan(step, (learned, optimizer.init(learned)), order)[0][0]

    return Fusion(**train(learned, data), **fixed)


def _targets(
    truth: np.ndarray, group_of_row: np.ndarray, lists: int, goals: Sequence[str]
) -> np.ndarray:
    """What the softmax of a list should be, over the number of lists that count, `[task, row]`."""
    rows = np.bincount(group_of_row, minlength=lists)
    targets = np.zeros_like(truth)
    for task, target in enumerate(truth):
        positives = np.bincount(group_of_row, target, lists)
        counts = (positives > 0) & (positives < rows)
        if not counts.any():
            raise UserError(
                f"goal {goals[task] if goals else task} has no list with both a positive and a "
                "negative, from which an order can be learned; take a larger validation split"
            )
        weight = np.where(counts, 1 / np.maximum(positives, 1), 0) / counts.sum()
        targets[task] = target * weight[group_of_row]
    return targets


def _list_losses(score: Array, targets: Array, segments: Array, lists: int) -> Array:
    """Mean softmax cross-entropy of the lists, `[task]`."""
    peak = jax.lax.stop_gradient(jax.ops.segment_max(score, segments, lists))
    shifted = score - peak[segments]
    total = jax.ops.segment_sum(jnp.exp(shifted), segments, lists)
    return -targets @ (shifted - jnp.log(total)[segments])


def _score(fusion: Fusion, logits: Array, preference: Array) -> Array:
    z = (logits - fusion.mean[:, None]) / fusion.deviation[:, None]
    inner = jnp.tanh(fusion.inner[:-1].T @ z + fusion.inner[-1][:, None])
    code = jnp.tanh(preference @ fusion.trunk[:-1] + fusion.trunk[-1])
    generated = code @ fusion.head[:-1] + fusion.head[-1]
    tasks = preference.shape[-1]
    linear, rest = preference + generated[..., :tasks], generated[..., tasks:]
    return (linear[..., None, :] @ z + rest[..., None, :] @ inner)[..., 0, :]
