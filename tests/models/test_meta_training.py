"""MetaHeac's meta-training against PyTorch's own second-order gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.func import functional_call

from hyperrec_jax.config.run import Run
from hyperrec_jax.data.schema import CategoricalField, NumericalField, Schema
from hyperrec_jax.evaluation.selection import Selection
from hyperrec_jax.goals import create_goal
from hyperrec_jax.parallel.mesh import make_mesh
from hyperrec_jax.preference.normalisation import create_normaliser
from hyperrec_jax.preference.objectives import create_objective
from hyperrec_jax.preference.sampling import create_sampler
from hyperrec_jax.training.dispatch import make_step
from hyperrec_jax.training.state import init_state
from hyperrec_jax.training.torch_import.convert import convert
from tests.models.test_parity import NUMERICAL, ROWS, SIZES, VOCABULARIES, make_model
from tests.models.torch_reference import MetaHeac

pytestmark = pytest.mark.slow

INNER_LEARNING_RATE = 0.5  # large enough for the second order to show
LEARNING_RATE = 1.0


def make_batches():
    rng = np.random.default_rng(3)
    return [
        {
            "categorical": np.stack([rng.integers(1, size, ROWS) for size in SIZES], axis=1),
            "numerical": rng.normal(size=(ROWS, NUMERICAL)).astype(np.float32),
            "labels": (rng.random((ROWS, 2)) < 0.4).astype(np.float32),
        }
        for _ in range(2)
    ]


def torch_update(reference, batches, *, second_order):
    """Two batches: support halves adapt all parameters, query halves give one update."""
    params = dict(reference.named_parameters())

    def loss(params, batch, rows):
        ids, numbers, labels = (
            torch.from_numpy(batch[name][rows]) for name in ("categorical", "numerical", "labels")
        )
        logits = functional_call(reference, params, (ids, numbers, torch.ones(2)))
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)

    losses = []
    for batch in batches:
        half = ROWS // 2
        support = loss(params, batch, slice(half))
        gradients = torch.autograd.grad(support, list(params.values()), create_graph=second_order)
        adapted = {
            name: value - INNER_LEARNING_RATE * gradient
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
        losses.append(loss(adapted, batch, slice(half, None)))
    gradients = torch.autograd.grad(sum(losses) / 2, list(params.values()))
    updated = reference.state_dict()
    for name, gradient in zip(params, gradients, strict=True):
        updated[name] = updated[name] - LEARNING_RATE * gradient
    return updated


def test_meta_step_is_differentiated_through():
    torch.manual_seed(0)
    reference = MetaHeac(SIZES, NUMERICAL, 2).train()
    model = make_model("metaheac", 2, "float32").clone(inner_learning_rate=INNER_LEARNING_RATE)
    batches = make_batches()
    before = convert(reference.state_dict(), "metaheac", model, VOCABULARIES)["params"]

    optimizer = optax.MultiSteps(optax.sgd(LEARNING_RATE), model.accumulate_steps)
    optimizer = optimizer.gradient_transformation()
    objective, normaliser = create_objective("uniform"), create_normaliser("none", 2)
    key, sampler = jax.random.key(0), create_sampler("fixed", 2, preferences=[0.5, 0.5])
    fields = tuple(CategoricalField(str(index), size) for index, size in enumerate(SIZES))
    numbers = tuple(NumericalField(str(index)) for index in range(NUMERICAL))
    run = Run(
        config={
            "train": {"skip_nonfinite": False, "unknown_share": 0.0},
            "optimizer": {"lazy_rows": 0},
        },
        schema=Schema("", fields, numbers, ("a", "b")),
        model=model,
        objective=objective,
        normaliser=normaliser,
        sampler=sampler,
        num_preferences=1,
        preference_per_row=False,
        optimizer=optimizer,
        mesh=make_mesh(),
        batch_size=ROWS,
        total_steps=1,
        goals=(create_goal("binary", "a"), create_goal("binary", "b")),
        constants=None,
        selection=Selection("hypervolume", ((1.0, "hypervolume"),)),
        init_key=key,
        step_key=key,
    )
    state = jax.jit(lambda: init_state(run))()
    state = state.replace(params=jax.tree.map(jnp.asarray, before))
    step = jax.jit(make_step(run))
    state, _ = step(state, batches[0])
    jax.tree.map(np.testing.assert_array_equal, state.params, before)
    state, _ = step(state, batches[1])

    def embedded(params):  # without the row of unseen ids, which has no counterpart
        flat = jax.tree_util.tree_leaves_with_path(params)
        named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
        table = named["['embedding']['embedding']"]
        known = np.setdiff1d(np.arange(sum(SIZES)), np.cumsum((0, *SIZES[:-1])))
        return named | {"['embedding']['embedding']": table[known]}

    ours = embedded(state.params)
    first_order, expected = (
        embedded(
            convert(
                torch_update(reference, batches, second_order=second),
                "metaheac",
                model,
                VOCABULARIES,
            )["params"]
        )
        for second in (False, True)
    )
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, expected[name], atol=1e-5, err_msg=name)
    assert max(np.abs(leaf - first_order[name]).max() for name, leaf in ours.items()) > 1e-3
