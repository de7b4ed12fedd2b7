"""Every original against an independent PyTorch module with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from hyperrec_jax.config.presets import model_options
from hyperrec_jax.models import create_model
from hyperrec_jax.training.torch_import.convert import convert
from tests.models.torch_reference import REFERENCES

pytestmark = pytest.mark.slow

SIZES, NUMERICAL, ROWS = (4, 9, 3), 5, 24
VOCABULARIES = [list(range(1, size)) for size in SIZES]
OPTIONS = {
    "embedding_dim": 8,
    "bottom_widths": (16, 12),
    "tower_widths": (10, 6),
    "dropout": 0.0,
    "fold": "always",
    "layout": "batched",  # compiles fastest; other tests hold it together with the loop
}
EXPERTS = {
    "metaheac": {"num_experts": 4, "num_critics": 3},
    "mmoe": {"num_experts": 4},
    "omoe": {"num_experts": 4},
    "ple": {"num_shared_experts": 2, "num_task_experts": 2},
    "pomoe": model_options("original") | {"num_experts": 4, "gate_dropout": 0.0},
}
LEARNING_RATE, L2 = 1e-3, 1e-6
TASKS = {"aitm": 3, "ple": 3, "pomoe": 3}  # where the number enters the formulas; otherwise 2


@pytest.fixture(params=REFERENCES)
def case(request):
    name, tasks = request.param, TASKS.get(request.param, 2)
    torch.manual_seed(0)
    reference = REFERENCES[name](SIZES, NUMERICAL, tasks)
    for key, value in reference.state_dict().items():  # Running statistics of a trained model.
        if key.endswith("running_mean"):
            value.uniform_(-0.5, 0.5)
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return name, tasks, reference


def make_model(name, tasks, dtype):
    return create_model(
        name,
        field_sizes=SIZES,
        num_numerical=NUMERICAL,
        num_tasks=tasks,
        options=OPTIONS | EXPERTS.get(name, {}) | {"compute_dtype": dtype},
    )


def make_batch(tasks, dtype):
    rng = np.random.default_rng(1)
    ids = np.stack([rng.integers(1, size, ROWS) for size in SIZES], axis=1)
    numbers = rng.normal(size=(ROWS, NUMERICAL)).astype(dtype)
    labels = (rng.random((ROWS, tasks)) < 0.4).astype(dtype)
    preference = rng.dirichlet(np.ones(tasks)).astype(dtype)
    return ids, numbers, labels, preference


def test_evaluation_logits_are_equal(case):
    name, tasks, reference = case
    ids, numbers, _, preference = make_batch(tasks, "float32")
    reference.eval()
    with torch.no_grad():
        expected = reference(*map(torch.from_numpy, (ids, numbers, preference)))
    model = make_model(name, tasks, "float32")
    variables = convert(reference.state_dict(), name, model, VOCABULARIES)
    apply = jax.jit(model.apply, static_argnums=3)
    logits = apply(variables, {"categorical": ids, "numerical": numbers}, preference, False)
    assert logits.std() > 1e-3
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


def test_training_step_gives_equal_parameters(case):
    """One step of Adam with L2; in float64, since Adam's first step is `g / |g|`.

    The gradient of a bias before batch norm is zero but for rounding, which Adam would blow up.
    """
    name, tasks, reference = case
    ids, numbers, labels, preference = make_batch(tasks, "float64")
    reference.double().train()
    with jax.enable_x64(True):
        model = make_model(name, tasks, "float64")
        before = convert(reference.state_dict(), name, model, VOCABULARIES)
        optimizer = torch.optim.Adam(reference.parameters(), lr=LEARNING_RATE, weight_decay=L2)
        torch_logits = reference(*map(torch.from_numpy, (ids, numbers, preference)))
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        losses = bce(torch_logits, torch.from_numpy(labels), reduction="none").mean(dim=0)
        (losses * torch.from_numpy(preference)).sum().backward()
        optimizer.step()
        expected = convert(reference.state_dict(), name, model, VOCABULARIES)

        batch = {"categorical": jnp.asarray(ids), "numerical": jnp.asarray(numbers)}

        def loss(params):
            logits, updates = model.apply(
                {**before, "params": params}, batch, jnp.asarray(preference), True,
                mutable=["batch_stats"],
            )  # fmt: skip
            losses = optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=0)
            return losses @ preference, updates

        adam = optax.chain(
            optax.add_decayed_weights(L2), optax.scale_by_adam(), optax.scale(-LEARNING_RATE)
        )
        params = jax.tree.map(jnp.asarray, before["params"])

        def step(params):
            gradients, updates = jax.grad(loss, has_aux=True)(params)
            steps, _ = adam.update(gradients, adam.init(params), params)
            return {"params": optax.apply_updates(params, steps), **updates}

        after = jax.jit(step)(params)

    # Rows of unseen ids have no counterpart; a critic's statistics follow the tasks' mean here
    # and one task after the other there.
    def compared(variables):
        leaves = jax.tree_util.tree_leaves_with_path(variables)
        named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        known = np.setdiff1d(np.arange(sum(SIZES)), np.cumsum((0, *SIZES[:-1])))
        return {
            key: leaf[known] if "['embedding']" in key[-14:] else leaf
            for key, leaf in named.items()
            if not ("batch_stats" in key and "critics" in key)
        }

    ours, theirs, old = compared(after), compared(expected), compared(before)
    assert ours.keys() == theirs.keys()
    for key, leaf in ours.items():
        np.testing.assert_allclose(
            leaf, theirs[key], atol=1e-5 * LEARNING_RATE, rtol=1e-9, err_msg=key
        )
        assert np.any(leaf != old[key]), f"{key} did not move"
