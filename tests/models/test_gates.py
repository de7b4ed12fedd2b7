import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from hyperrec_jax.models.features import FeatureEmbedding
from hyperrec_jax.models.gates import GATES, activation, top_k_softmax
from hyperrec_jax.models.mixture import mix

ROWS, EXPERTS, CODE = 6, 4, 3


@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_mix_is_a_weighted_sum_with_its_gradient(lead, shared):
    keys = jax.random.split(jax.random.key(0), 3)
    weights = jax.random.normal(keys[0], (*lead, 1 if shared else ROWS, EXPERTS))
    experts = jax.random.normal(keys[1], (EXPERTS, ROWS, 5))
    target = jax.random.normal(keys[2], (*lead, ROWS, 5))

    def contraction(weights, experts):
        wide = jnp.broadcast_to(weights, (*lead, ROWS, EXPERTS))
        return jnp.einsum("...be,ebh->...bh", wide, experts)

    def with_gradient(function):
        def loss(*args):
            return (function(*args) * target).sum()

        return function(weights, experts), *jax.grad(loss, (0, 1))(weights, experts)

    results = jax.jit(lambda: (with_gradient(mix), with_gradient(contraction)))()
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_activations():
    logits = jnp.array([[-1.0, 2.0, 0.5, 1.0]])

    @jax.jit
    def every(logits):
        each = [activation(name, 1)(logits) for name in ("relu", "softmax")]
        each += [top_k_softmax(logits, k) for k in (2, 4)]
        return each, jax.grad(lambda x: (top_k_softmax(x, 2) ** 2).sum())(logits)

    (rectified, soft, two, all_four), gradient = every(logits)
    np.testing.assert_allclose(rectified, [[0, 2, 0.5, 1]])
    np.testing.assert_allclose(soft, scipy.special.softmax(logits, -1), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(two)[0, [0, 2]], 0)
    expected = scipy.special.softmax(np.asarray(logits)[0, [1, 3]])
    np.testing.assert_allclose(np.asarray(two)[0, [1, 3]], expected, rtol=1e-6)
    np.testing.assert_allclose(all_four, soft, rtol=1e-6)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("kind", GATES)
def test_gate_gives_every_form_of_preference_the_same_logits(kind):
    rng = np.random.default_rng(0)
    batch = {
        "categorical": rng.integers(0, 5, (ROWS, 2)),
        "numerical": rng.normal(size=(ROWS, 3)).astype(np.float32),
    }
    embedding = FeatureEmbedding((5, 5), 3, 4, "always")
    x, _ = jax.jit(embedding.init_with_output)(jax.random.key(0), batch)
    experts = jax.random.normal(jax.random.key(1), (EXPERTS, ROWS, 7))
    codes = jax.random.normal(jax.random.key(2), (3, CODE))
    gate = GATES[kind](EXPERTS, depth=2, hidden_relu=True)
    variables = jax.jit(gate.init, static_argnums=4)(
        jax.random.key(3), x, experts, codes[:1], False
    )

    @jax.jit
    def logits(code):
        return gate.apply(variables, x, experts, code, False)

    codes = np.asarray(codes)
    single = np.stack([np.broadcast_to(logits(code[None]), (ROWS, EXPERTS)) for code in codes])
    assert np.abs(single[0] - single[1]).max() > 1e-2
    preferences = logits(codes[:, None])
    np.testing.assert_allclose(np.broadcast_to(preferences, single.shape), single, atol=1e-5)
    which = np.arange(ROWS) % 3
    np.testing.assert_allclose(logits(codes[which]), single[which, np.arange(ROWS)], atol=1e-5)
