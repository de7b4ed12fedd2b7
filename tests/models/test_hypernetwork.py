import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models.hypernetwork import GeneratedLinear, GeneratedVector, PreferenceNetwork


def test_preference_network_is_an_mlp():
    preferences = jax.random.normal(jax.random.key(0), (5, 1, 2))
    network = PreferenceNetwork((3, 4))
    code, variables = network.init_with_output(jax.random.key(1), preferences)
    first, second = (variables["params"][f"layer_{index}"] for index in range(2))
    hidden = np.maximum(preferences @ first["kernel"] + first["bias"], 0)
    np.testing.assert_allclose(code, hidden @ second["kernel"] + second["bias"], atol=1e-6)
    assert code.shape == (5, 1, 4)
    assert network.apply(variables, preferences[0, 0]).shape == (1, 4)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_generated_layer_for_a_code_a_row(rate):
    """The factored product equals a kernel generated for each row, dropout included."""
    layer = GeneratedLinear(5, rate)
    x = jax.random.normal(jax.random.key(0), (6, 4))
    codes = jax.random.normal(jax.random.key(1), (6, 3))
    variables = layer.init(jax.random.key(2), x, codes, False)

    def apply(x, code):
        return layer.apply(variables, x, code, True, rngs={"dropout": jax.random.key(3)})

    expected = jnp.concatenate([apply(x[i : i + 1], codes[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(apply(x, codes), expected, atol=1e-5)
    for i, output in enumerate(apply(x, codes[:, None])):  # preferences: all rows under each code
        np.testing.assert_allclose(output, apply(x, codes[i : i + 1]), atol=1e-5)


def test_generated_layer_drops_whole_parameters():
    layer = GeneratedLinear(40, 0.5)
    x, code = jnp.eye(30), jnp.ones((1, 3))
    variables = layer.init(jax.random.key(0), x, code, False)
    variables["params"]["bias"] *= 0
    variables["params"]["bias_offset"] *= 0
    full = layer.apply(variables, x, code, False)
    dropped = layer.apply(variables, x, code, True, rngs={"dropout": jax.random.key(1)})
    kept = dropped != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(dropped[kept], 2 * full[kept], rtol=1e-5)


@pytest.mark.parametrize(("chunk_size", "chunks"), [(100, 1), (30, 4)])
def test_generated_vector_comes_in_chunks(chunk_size, chunks):
    generator = GeneratedVector(100, (8, 8), chunk_size)
    preferences = jnp.array([[0.2, 0.8], [0.7, 0.3]])
    variables = generator.init(jax.random.key(0), preferences)

    def vector(preference):
        codes, emit = generator.apply(variables, preference)
        assert codes.shape == (*preference.shape[:-1], chunks, 8)
        return emit(codes)

    vectors = vector(preferences)
    assert vectors.shape == (2, 100)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    np.testing.assert_allclose(vector(preferences[1]), vectors[1], atol=1e-6)
    assert variables["params"]["kernel"].shape[1] == 100 // chunks
