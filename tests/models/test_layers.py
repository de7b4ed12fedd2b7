import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.errors import UserError
from hyperrec_jax.models import layers
from hyperrec_jax.models.layers import Bank, FeatureEmbedding, Joined, Linear

SIZES, NUMERICAL, DIM, ROWS = (3, 40, 5), 4, 6, 12


def make_batch(sizes=SIZES, numerical=NUMERICAL, rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, size, rows) for size in sizes]
    return {
        "categorical": np.stack(ids, 1) if ids else np.zeros((rows, 0), np.int32),
        "numerical": rng.normal(size=(rows, numerical)).astype(np.float32),
    }


def embed(batch, params, fold, sizes=SIZES, numerical=NUMERICAL):
    return FeatureEmbedding(sizes, numerical, DIM, fold).apply({"params": params}, batch)


def init_params(sizes=SIZES, numerical=NUMERICAL, fold="never"):
    module = FeatureEmbedding(sizes, numerical, DIM, fold)
    return jax.jit(module.init)(jax.random.key(0), make_batch(sizes, numerical))["params"]


def test_linear_is_initialised_as_in_torch():
    params = Linear(300).init(jax.random.key(0), jnp.zeros((1, 25)))["params"]
    for values in params.values():
        assert np.abs(values).max() <= 0.2
        assert np.std(values) == pytest.approx(0.2 / np.sqrt(3), rel=0.1)


def test_embedding_is_initialised_over_the_whole_table():
    params = init_params(sizes=(500, 700))
    bound = np.sqrt(6 / (1200 + DIM))
    assert 0.99 * bound < np.abs(params["embedding"]).max() <= bound


@settings(max_examples=5, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), max_size=3).map(tuple),
    numerical=st.integers(0, 3),
    rows=st.integers(1, 9),
)
def test_folded_and_plain_path_are_equal(sizes, numerical, rows):
    if not sizes and not numerical:
        return
    batch = make_batch(sizes, numerical, rows)
    params = init_params(sizes, numerical)
    width = (len(sizes) + (numerical > 0)) * DIM
    kernel = np.random.default_rng(1).normal(size=(width, 7)).astype(np.float32)
    offsets = np.cumsum((0, *sizes[:-1]))
    vectors = (
        [params["embedding"][batch["categorical"] + offsets].reshape(rows, -1)] if sizes else []
    )
    if numerical:
        vectors.append(batch["numerical"] @ params["numerical_kernel"] + params["numerical_bias"])
    expected = np.concatenate(vectors, axis=1)
    mean = expected.reshape(rows, -1, DIM).mean(axis=1)

    @jax.jit
    def paths(params):
        each = [
            embed(batch, params, fold, sizes, numerical) for fold in ("always", "never", "auto")
        ]
        return [(x.concatenate(), x @ kernel, x.mean()) for x in each]

    for concatenated, product, average in paths(params):
        np.testing.assert_allclose(concatenated, expected, atol=1e-6)
        np.testing.assert_allclose(product, expected @ kernel, atol=1e-5)
        np.testing.assert_allclose(average, mean, atol=1e-6)


def test_folded_and_plain_path_have_equal_parameters_and_gradients():
    batch, params = make_batch(), init_params()
    same = init_params(fold="always")
    assert jax.tree.structure(params) == jax.tree.structure(same)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    kernel = jax.random.normal(jax.random.key(1), (4 * DIM, 7))

    def loss(params, kernel, fold):
        x = embed(batch, params, fold)
        return (jnp.tanh(x @ kernel) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    plain = gradient(params, kernel, "never")
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(plain)) > 1e-2
    for fold in ("always", "auto"):
        folded = gradient(params, kernel, fold)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), folded, plain)


def test_auto_folds_small_fields_of_large_batches():
    params = init_params()
    large, single = make_batch(rows=4000), make_batch(rows=1)
    assert embed(large, params, "auto").folded == (True, False, True, True)
    assert embed(single, params, "auto").folded == (False, False, False, False)
    assert embed(single, params, "always").folded == (True,) * 4


def test_features_times_stacked_kernels():
    x = embed(make_batch(), init_params(), "always")
    kernels = jax.random.normal(jax.random.key(1), (3, 2, 4 * DIM, 5))
    product = x @ kernels
    assert product.shape == (3, 2, ROWS, 5)
    np.testing.assert_allclose(product, x.concatenate() @ kernels, atol=1e-5)


def test_joined_is_a_lazy_concatenation():
    x = embed(make_batch(), init_params(), "always")
    ray = jax.random.normal(jax.random.key(1), (3, 1, 2))
    kernel = jax.random.normal(jax.random.key(2), (4 * DIM + 2, 5))
    joined = Joined((x, ray))
    assert joined.shape == (3, ROWS, 4 * DIM + 2)
    wide = [jnp.broadcast_to(part, (3, ROWS, part.shape[-1])) for part in (x.concatenate(), ray)]
    expected = jnp.concatenate(wide, -1) @ kernel
    np.testing.assert_allclose(joined @ kernel, expected, atol=1e-5)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.999])
def test_dropout_is_unbiased(rate):
    x = jnp.ones((501, 803))
    dropped = np.asarray(layers.dropout(jax.random.key(0), x, rate))
    kept = max(256 - round(256 * rate), 1) / 256
    assert set(np.unique(dropped)) == {0, np.float32(1 / kept)}
    error = 4 * np.sqrt((1 - kept) / kept / x.size)
    assert dropped.mean() == pytest.approx(1, abs=error)
    for axis in (0, 1):  # No unit and no row has a rate of its own.
        spread = dropped.mean(axis=axis).std()
        assert spread == pytest.approx(np.sqrt((1 - kept) / kept / x.shape[axis]), rel=0.15)


def test_dropout_follows_its_key():
    x = jnp.ones((8, 6))
    one, same, other = (layers.dropout(jax.random.key(k), x, 0.5) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    np.testing.assert_array_equal(layers.dropout(jax.random.key(0), x, 0.0), x)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_that_of_torch(train):
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (16, 5)).astype(np.float32)
    oracle = torch.nn.BatchNorm1d(5).train(train)
    with torch.no_grad():
        for values in (oracle.weight, oracle.bias, oracle.running_mean, oracle.running_var):
            values.uniform_(0.5, 1.5)
    stats = {"mean": oracle.running_mean.numpy(), "variance": oracle.running_var.numpy()}
    stats = jax.tree.map(np.array, stats)
    scale, shift = (values.detach().numpy() for values in (oracle.weight, oracle.bias))
    bias = np.linspace(-1, 1, 5, dtype=np.float32)
    y, new = layers.batch_norm(x - bias, bias, scale, shift, stats, train)
    np.testing.assert_allclose(y, oracle(torch.from_numpy(x)).detach(), atol=1e-5)
    np.testing.assert_allclose(new["mean"], oracle.running_mean, atol=1e-6)
    np.testing.assert_allclose(new["variance"], oracle.running_var, rtol=1e-5)


def test_batch_norm_normalises_every_ray_apart():
    x = jax.random.normal(jax.random.key(0), (3, 16, 5)) * jnp.arange(1, 4)[:, None, None]
    one, zero = jnp.ones(5), jnp.zeros(5)
    stats = {"mean": zero, "variance": one}
    y, new = layers.batch_norm(x, zero, one, zero, stats, True)
    apart = [layers.batch_norm(ray, zero, one, zero, stats, True) for ray in x]
    np.testing.assert_allclose(y, jnp.stack([ray for ray, _ in apart]), atol=1e-5)
    for name, value in new.items():
        expected = np.mean([stats[name] for _, stats in apart], axis=0)
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_pooled_batch_norm_shares_the_statistics_of_all_rays():
    x = np.random.default_rng(0).normal(1, 2, (3, 8, 5)).astype(np.float32)
    zeros, ones = np.zeros(5, np.float32), np.ones(5, np.float32)
    stats = {"mean": zeros, "variance": ones}
    rays = layers.batch_norm(x, zeros, ones, zeros, stats, True, pooled=True)
    rows = layers.batch_norm(x.reshape(24, 5), zeros, ones, zeros, stats, True)
    np.testing.assert_allclose(rays[0].reshape(24, 5), rows[0], rtol=1e-5, atol=1e-6)
    for name in stats:
        np.testing.assert_allclose(rays[1][name], rows[1][name], rtol=1e-6)


def test_layer_norm_is_that_of_torch():
    x = np.random.default_rng(0).normal(1, 2, (4, 7)).astype(np.float32)
    scale, shift = np.linspace(1, 2, 7, dtype=np.float32), np.linspace(-1, 1, 7, dtype=np.float32)
    expected = torch.nn.functional.layer_norm(
        *map(torch.from_numpy, (x,)), (7,), torch.from_numpy(scale), torch.from_numpy(shift)
    )
    np.testing.assert_allclose(layers.layer_norm(x, scale, shift), expected, atol=1e-5)


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


@pytest.mark.parametrize("apart", [False, True])
def test_loop_and_batched_layout_are_equal(apart):
    x = embed(make_batch(), init_params(), "always")
    inputs = (x, embed(make_batch(seed=1), init_params(), "always")) if apart else x
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
    x = jax.random.normal(jax.random.key(0), (10, 4))
    bank = Bank(copies=2, widths=(8,))
    variables = bank.init(jax.random.key(1), x, True)
    np.testing.assert_array_equal(variables["batch_stats"]["layer_0"]["mean"], 0)
    _, updates = bank.apply(variables, x, False, mutable=["batch_stats"])
    np.testing.assert_array_equal(updates["batch_stats"]["layer_0"]["mean"], 0)
    _, updates = bank.apply(variables, x, True, mutable=["batch_stats"])
    assert np.all(updates["batch_stats"]["layer_0"]["mean"] != 0)


def test_batch_norm_cannot_train_on_one_row():
    bank = Bank(copies=1, widths=(2,))
    variables = bank.init(jax.random.key(0), jnp.ones((1, 3)), False)
    with pytest.raises(UserError, match="batch of one row"):
        bank.apply(variables, jnp.ones((1, 3)), True, mutable=["batch_stats"])


def test_bfloat16_computes_narrow_and_keeps_parameters_wide():
    batch = make_batch()
    embedding = FeatureEmbedding(SIZES, NUMERICAL, DIM, "always", "bfloat16")
    wide = embed(batch, init_params(), "always")
    narrow = embedding.apply({"params": init_params()}, batch)
    assert narrow.dtype == jnp.bfloat16
    bank = Bank(copies=2, widths=(8,), dtype="bfloat16")
    variables = bank.init(jax.random.key(1), narrow, False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    outputs = bank.apply(variables, narrow, False)
    assert outputs.dtype == jnp.bfloat16
    expected = Bank(copies=2, widths=(8,)).apply(variables, wide, False)
    np.testing.assert_allclose(outputs.astype(jnp.float32), expected, atol=0.05)
