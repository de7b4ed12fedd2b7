import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.models.banks import Bank
from hyperrec_jax.models.features import FeatureEmbedding, Joined
from tests.support.compiled import compiled
from tests.support.features import DIM, NUMERICAL, ROWS, SIZES, embed, init_params, make_batch


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

    def folded(batch, fold):
        return jax.eval_shape(lambda: embed(batch, params, fold)).folded

    assert folded(large, "auto") == (True, False, True, True)
    assert folded(single, "auto") == (False, False, False, False)
    assert folded(single, "always") == (True,) * 4


def test_features_times_stacked_kernels():
    x = compiled(embed, make_batch(), init_params(), "always")
    kernels = jax.random.normal(jax.random.key(1), (3, 2, 4 * DIM, 5))
    product, expected = compiled(lambda x: (x @ kernels, x.concatenate() @ kernels), x)
    assert product.shape == (3, 2, ROWS, 5)
    np.testing.assert_allclose(product, expected, atol=1e-5)


def test_joined_is_a_lazy_concatenation():
    x = compiled(embed, make_batch(), init_params(), "always")
    narrow = np.random.default_rng(1).normal(size=(3, 1, 2)).astype(np.float32)
    kernel = np.random.default_rng(2).normal(size=(4 * DIM + 2, 5)).astype(np.float32)

    @jax.jit
    def both(x, narrow, kernel):
        joined = Joined((x, narrow))
        assert joined.shape == (3, ROWS, 4 * DIM + 2)
        parts = (x.concatenate(), narrow)
        wide = [jnp.broadcast_to(part, (3, ROWS, part.shape[-1])) for part in parts]
        return joined @ kernel, jnp.concatenate(wide, -1) @ kernel

    np.testing.assert_allclose(*both(x, narrow, kernel), atol=1e-5)


def test_bfloat16_computes_narrow_and_keeps_parameters_wide():
    batch = make_batch()
    embedding = FeatureEmbedding(SIZES, NUMERICAL, DIM, "always", "bfloat16")
    wide = compiled(embed, batch, init_params(), "always")
    narrow = compiled(embedding.apply, {"params": init_params()}, batch)
    assert narrow.dtype == jnp.bfloat16
    bank = Bank(copies=2, widths=(8,), dtype="bfloat16")
    variables = compiled(bank.init, jax.random.key(1), narrow, False)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    outputs = compiled(bank.apply, variables, narrow, False)
    assert outputs.dtype == jnp.bfloat16
    expected = compiled(Bank(copies=2, widths=(8,)).apply, variables, wide, False)
    np.testing.assert_allclose(outputs.astype(jnp.float32), expected, atol=0.05)
