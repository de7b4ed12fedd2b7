"""Every model's step lowers for accelerators, and nothing of it runs on the host."""

import warnings

import jax
import jax.numpy as jnp
import pytest

from benchmarks.compile_tpu import collectives
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.models import model_names
from hyperrec_jax.training.dispatch import make_step
from hyperrec_jax.training.state import example_batch, state_template
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


def lowered(store, **options):
    """The step's program for both platforms, as text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model with an objective that it does not need
        run = resolve(tiny_config(store, **options), store.schema, store.split("train"))
    batch = jax.eval_shape(lambda: example_batch(run.schema, 8))
    step = jax.jit(make_step(run), donate_argnums=0)
    return (
        step.trace(state_template(run), batch).lower(lowering_platforms=("cuda", "tpu")).as_text()
    )


@pytest.mark.parametrize("name", model_names())
def test_the_step_of_a_model_runs_on_the_accelerator_alone(small_store, name):
    assert "callback" not in lowered(small_store, model__name=name)


@pytest.mark.parametrize("name", ["epo", "famo", "mgda", "nash", "pareto_mtl"])
def test_the_step_of_an_objective_that_solves_runs_on_the_accelerator_alone(small_store, name):
    assert "callback" not in lowered(small_store, objective__name=name)


def test_a_call_of_the_host_is_found():
    def ask(x):
        return jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.raises(NotImplementedError, match="python_callback"):
        jax.jit(ask).trace(jnp.ones(2)).lower(lowering_platforms=("cuda", "tpu"))


def test_collectives_are_counted_with_their_bytes():
    text = """
      %all-reduce.1 = f32[256,128]{1,0:T(8,128)} all-reduce(%fusion), channel_id=1
      %x = (bf16[2,3]{1,0}, f32[4]{0}) all-reduce-start(%a, %b), channel_id=2
      %y = bf16[2,3]{1,0} all-reduce-done(%x)
      %z = pred[] all-gather(%c), dimensions={0}
      %w = f32[8]{0} add(%all-reduce.1, %all-reduce.1)
    """
    assert collectives(text) == (3, 256 * 128 * 4 + 2 * 3 * 2 + 4 * 4 + 1)
