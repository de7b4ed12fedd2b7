import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from hyperrec_jax.models.logits import log_complement, product_logits


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-12, 12), min_size=1, max_size=4))
def test_product_logits_are_those_of_the_products(values):
    expected = logit(np.cumprod(expit(np.array(values))))
    np.testing.assert_allclose(product_logits(jnp.array(values)), expected, rtol=2e-3, atol=2e-3)


def test_extremes_stay_finite():
    extremes = jnp.array([[1e4, 1e4], [-1e4, -1e4], [1e4, -1e4], [0.0, 0.0]])
    assert np.all(np.isfinite(product_logits(extremes)))
    assert np.all(np.isfinite(jax.grad(lambda z: product_logits(z).sum())(extremes)))


def test_log_complement():
    probability = np.array([1e-6, 0.1, 0.5, 0.999])
    expected = np.log1p(-probability)
    np.testing.assert_allclose(log_complement(jnp.log(probability)), expected, rtol=1e-3, atol=1e-7)
