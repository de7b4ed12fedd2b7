import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models.hypernetwork import GeneratedLinear, GeneratedVector, PreferenceNetwork
from tests.support.compiled import compiled


def test_preference_network_is_an_mlp():
    preferences = jax.random.normal(jax.random.key(0), (5, 1, 2))
    network = PreferenceNetwork((3, 4))
    code, variables = compiled(network.init_with_output, jax.random.key(1), preferences)
    variables, preferences = jax.tree.map(np.asarray, (variables, preferences))
    first, second = (variables["params"][f"layer_{index}"] for index in range(2))
    hidden = np.maximum(preferences @ first["kernel"] + first["bias"], 0)
    np.testing.assert_allclose(code, hidden @ second["kernel"] + second["bias"], atol=1e-6)
    assert code.shape == (5, 1, 4)
    assert jax.eval_shape(network.apply, variables, preferences[0, 0]).shape == (1, 4)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_generated_layer_for_a_code_a_row(rate):
    """The factored product equals a kernel generated for each row, dropout included."""
    layer = GeneratedLinear(5, rate)
    rng = np.random.default_rng(0)
    x, codes = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6, 3)))
    variables = compiled(layer.init, jax.random.key(2), x, codes, False)

    @jax.jit
    def apply(x, code):
        return layer.apply(variables, x, code, True, rngs={"dropout": jax.random.key(3)})

    expected = np.concatenate([apply(x[i : i + 1], codes[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(apply(x, codes), expected, atol=1e-5)
    for i, output in enumerate(apply(x, codes[:, None])):  # preferences: all rows under each code
        np.testing.assert_allclose(output, apply(x, codes[i : i + 1]), atol=1e-5)


def test_generated_layer_drops_whole_parameters():
    layer = GeneratedLinear(40, 0.5)
    x, code = np.eye(30, dtype=np.float32), np.ones((1, 3), np.float32)
    variables = compiled(layer.init, jax.random.key(0), x, code, False)
    for bias in ("bias", "bias_offset"):
        variables["params"][bias] = np.zeros(variables["params"][bias].shape, np.float32)
    rngs = {"dropout": jax.random.key(1)}
    full, dropped = (
        np.asarray(compiled(layer.apply, variables, x, code, train, rngs=rngs))
        for train in (False, True)
    )
    kept = dropped != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(dropped[kept], 2 * full[kept], rtol=1e-5)


@pytest.mark.parametrize(("chunk_size", "chunks"), [(100, 1), (30, 4)])
def test_generated_vector_comes_in_chunks(chunk_size, chunks):
    generator = GeneratedVector(100, (8, 8), chunk_size)
    preferences = jnp.array([[0.2, 0.8], [0.7, 0.3]])
    variables = compiled(generator.init, jax.random.key(0), preferences)

    @jax.jit
    def vector(preference):
        codes, emit = generator.apply(variables, preference)
        assert codes.shape == (*preference.shape[:-1], chunks, 8)
        return emit(codes)

    vectors = vector(preferences)
    assert vectors.shape == (2, 100)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    np.testing.assert_allclose(vector(preferences[1]), vectors[1], atol=1e-6)
    assert variables["params"]["kernel"].shape[1] == 100 // chunks
