"""Ids dropped to the unknown one while training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.parts import make_parts
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel.mesh import path_name
from hyperrec_jax.parallel.tables import is_table
from hyperrec_jax.training.unknown_ids import drop_ids
from tests.conftest import tiny_config


def test_the_draw_is_a_function_of_the_key():
    ids = jnp.arange(1, 20_001, dtype=jnp.uint16).reshape(-1, 2)
    dropped = drop_ids(ids, 0.1, jax.random.key(3))
    assert dropped.dtype == ids.dtype
    np.testing.assert_array_equal(dropped, drop_ids(ids, 0.1, jax.random.key(3)))
    changed = np.asarray(dropped != ids)
    assert (np.asarray(dropped)[changed] == 0).all()
    assert changed.mean() == pytest.approx(0.1, abs=0.01)
    assert (changed != np.asarray(drop_ids(ids, 0.1, jax.random.key(4)) != ids)).any()


def _trained(store, share):
    """The embedding tables before and after two steps on the same rows."""
    config = tiny_config(
        store, model__name="sharedbottom", optimizer__l2=0.0, train__unknown_share=share
    )
    parts = make_parts(config, store)
    state, step = parts.init(), jax.jit(parts.step)
    batches = parts.reader.read(0, 2)
    assert (batches["categorical"] > 0).all()
    before = state.params
    for index in range(2):
        state, _ = step(state, {name: jnp.asarray(leaf[index]) for name, leaf in batches.items()})
    return _tables(before), _tables(state.params)


def _tables(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [np.asarray(leaf) for path, leaf in leaves if is_table(path_name(path))]


@pytest.mark.slow
def test_the_unknown_id_is_trained_by_the_share_that_is_dropped(small_store):
    unknown = [0, small_store.schema.field_sizes[0]]  # the first row of each field
    (before,), (after,) = _trained(small_store, 0.0)
    np.testing.assert_array_equal(before[unknown], after[unknown])
    (before,), (after,) = _trained(small_store, 0.2)
    assert (before[unknown] != after[unknown]).any(axis=1).all()


def test_a_share_of_one_is_refused(small_store):
    with pytest.raises(UserError, match="unknown_share"):
        tiny_config(small_store, train__unknown_share=1.0)


def test_padding_of_lists_stays():
    ids = jnp.array([[3, 4, -1], [5, -1, -1]] * 50)
    dropped = np.asarray(drop_ids(ids, 0.5, jax.random.key(0)))
    np.testing.assert_array_equal(dropped == -1, ids == -1)
    assert 0.3 < (dropped[ids >= 0] == 0).mean() < 0.7


def test_hashed_columns_lose_no_ids():
    ids = jnp.ones((100, 3), jnp.int32)
    dropped = np.asarray(drop_ids(ids, 0.5, jax.random.key(0), np.array([True, False, True])))
    assert (dropped == 0).any(axis=0).tolist() == [True, False, True]
