"""The example of a model of one's own does what its text says."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.models import create_model, model_options

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "custom_model.py"


@pytest.fixture(scope="module", autouse=True)
def _example():
    runpy.run_path(str(EXAMPLE))


def test_example_is_registered_with_its_own_and_the_common_options():
    options = model_options("wide_and_deep")
    assert options["wide"] is True
    assert options["bottom_widths"] == (512, 256)


def test_example_is_the_sum_of_its_parts():
    sizes = {"field_sizes": (4,), "num_numerical": 2, "num_tasks": 3}
    options = {"bottom_widths": (8,), "tower_widths": (4,), "embedding_dim": 4, "layout": "batched"}
    both = create_model("wide_and_deep", options=options, **sizes)
    deep = create_model("wide_and_deep", options=options | {"wide": False}, **sizes)
    batch = {"categorical": jnp.zeros((5, 1), jnp.int32), "numerical": jnp.ones((5, 2))}
    preference = jnp.ones(3) / 3
    variables = jax.jit(both.init, static_argnums=3)(jax.random.key(0), batch, preference, False)
    linear, _ = both.apply(variables, batch, False, method="encode")
    assert linear.shape == (5, 3)
    difference = both.apply(variables, batch, preference, False) - deep.apply(
        variables, batch, preference, False
    )
    np.testing.assert_allclose(difference, linear, atol=1e-6)
