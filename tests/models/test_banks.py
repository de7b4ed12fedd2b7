import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.banks import Bank, Linear
from tests.support.compiled import compiled
from tests.support.features import ROWS, embed, init_params, make_batch


def test_linear_is_initialised_as_in_torch():
    params = compiled(Linear(300).init, jax.random.key(0), jnp.zeros((1, 25)))["params"]
    for values in map(np.asarray, params.values()):
        assert np.abs(values).max() <= 0.2
        assert np.std(values) == pytest.approx(0.2 / np.sqrt(3), rel=0.1)


class PlainExpert(nn.Module):
    """An expert as Flax's own layers make it."""

    @nn.compact
    def __call__(self, x, train):
        for index, width in enumerate((8, 5)):
            x = nn.Dense(width, name=f"dense_{index}")(x)
            x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"norm_{index}")(x)
            x = nn.relu(x)
        return x


def test_bank_is_a_vmapped_expert():
    x = jax.random.normal(jax.random.key(0), (10, 4))
    bank = Bank(copies=3, widths=(8, 5), norm="batch")
    variables = jax.jit(bank.init, static_argnums=2)(jax.random.key(1), x, False)
    stacked = {"params": {}, "batch_stats": {}}
    for index in range(2):
        layer = variables["params"][f"layer_{index}"]
        stats = variables["batch_stats"][f"layer_{index}"]
        stacked["params"][f"dense_{index}"] = {k: layer[k] for k in ("kernel", "bias")}
        stacked["params"][f"norm_{index}"] = {"scale": layer["scale"], "bias": layer["shift"]}
        stacked["batch_stats"][f"norm_{index}"] = {"mean": stats["mean"], "var": stats["variance"]}
    vmapped = nn.vmap(
        PlainExpert,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        in_axes=(None, None),
        axis_size=3,
    )()
    for train in (False, True):
        ours, expected = jax.jit(
            lambda train=train: (
                bank.apply(variables, x, train, mutable=["batch_stats"])[0],
                vmapped.apply(stacked, x, train, mutable=["batch_stats"])[0],
            )
        )()
        np.testing.assert_allclose(ours, expected, atol=1e-5)
        assert np.abs(ours[0] - ours[1]).max() > 0.1, "experts must differ after initialisation"


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_loop_and_batched_layout_are_equal(apart):
    x, other = (compiled(embed, make_batch(seed=seed), init_params(), "always") for seed in (0, 1))
    inputs = (x, other) if apart else x
    options = {"copies": 2, "widths": (8, 5), "outputs": 3, "dropout": 0.3}
    init = jax.jit(Bank(layout="batched", **options).init, static_argnums=2)
    variables = init(jax.random.key(1), inputs, False)

    @jax.jit
    def run(params):
        results = {}
        for layout in ("loop", "batched"):
            bank = Bank(layout=layout, **options)

            def loss(params, bank=bank):
                y, updates = bank.apply(
                    {**variables, "params": params},
                    inputs,
                    True,
                    rngs={"dropout": jax.random.key(2)},
                    mutable=["batch_stats"],
                )
                return (y**2).sum(), (y, updates)

            results[layout] = jax.grad(loss, has_aux=True)(params)
        return results

    results = run(variables["params"])
    assert results["loop"][1][0].shape == (2, ROWS, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *results.values())


def test_bank_keeps_its_statistics_out_of_evaluation():
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    bank = Bank(copies=2, widths=(8,))
    variables = compiled(bank.init, jax.random.key(1), x, True)
    np.testing.assert_array_equal(variables["batch_stats"]["layer_0"]["mean"], 0)
    _, updates = compiled(bank.apply, variables, x, False, mutable=["batch_stats"])
    np.testing.assert_array_equal(updates["batch_stats"]["layer_0"]["mean"], 0)
    _, updates = compiled(bank.apply, variables, x, True, mutable=["batch_stats"])
    assert np.all(updates["batch_stats"]["layer_0"]["mean"] != 0)


def test_batch_norm_cannot_train_on_one_row():
    bank = Bank(copies=1, widths=(2,))
    variables = compiled(bank.init, jax.random.key(0), jnp.ones((1, 3)), False)
    with pytest.raises(UserError, match="batch of one row"):
        bank.apply(variables, jnp.ones((1, 3)), True, mutable=["batch_stats"])
