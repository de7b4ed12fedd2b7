"""Lazy steps against dense ones where the two agree, and against PyTorch's SparseAdam."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from benchmarks.generate import write_store
from benchmarks.parts import make_parts
from hyperrec_jax.config.optimizer import create_optimizer
from hyperrec_jax.data.inputs import Inputs, Lookup, PooledIds
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import mesh as sharding
from hyperrec_jax.parallel import tables
from hyperrec_jax.training import lazy_tables
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.dispatch import make_dispatch
from hyperrec_jax.training.lazy_tables import with_lazy_tables
from hyperrec_jax.training.state import TrainState
from hyperrec_jax.training.step import StepMetrics
from tests.conftest import ROOT, tiny_config
from tests.training.run_lazy_mesh import LARGE
from tests.training.run_lazy_mesh import run as run_lazy

pytestmark = pytest.mark.slow

SIZES = (300, 5, 7)


@settings(max_examples=12, deadline=None)
@given(st.permutations([1, 6, 7, 20]), st.sampled_from([1, 7, 21]), st.integers(0, 99))
def test_a_batch_finds_its_rows_in_the_small_tables(sizes, lazy_rows, seed):
    batch_size, rng = 6, np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, size, batch_size) for size in sizes], axis=1)
    named = lazy_tables._named({"categorical": ids}, None, tuple(sizes), lazy_rows)
    rows = lazy_tables._rows(named, range(4), tuple(sizes))
    places, small_sizes = named.ids["categorical"], named.field_sizes
    assert len(np.unique(rows)) == len(rows) == sum(small_sizes)
    for size, small in zip(sizes, small_sizes, strict=True):
        assert small == (batch_size if size >= lazy_rows and size > batch_size else size)
    starts, small_starts = (np.cumsum((0, *each[:-1])) for each in (sizes, small_sizes))
    np.testing.assert_array_equal(np.asarray(rows)[places + small_starts], ids + starts)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99), share_there=st.sampled_from([0.0, 0.5, 1.0]))
def test_lists_and_columns_that_share_a_table_find_their_rows(seed, share_there):
    # Two tables; the second column and a history of three share the first, a set has the second.
    sizes, rng = (90, 40), np.random.default_rng(seed)
    inputs = Inputs(
        direct=(0,),
        shared=(Lookup(1, 0),),
        pooled=(PooledIds(0, 3, "target_attention", Lookup(0, 0)), PooledIds(1, 2, "mean")),
    )
    pooled = np.concatenate([rng.integers(0, 90, (4, 3)), rng.integers(0, 40, (4, 2))], axis=1)
    batch = {
        "categorical": rng.integers(0, 90, (4, 2)),
        "multivalued": np.where(rng.random((4, 5)) < share_there, pooled, -1),
    }
    named = lazy_tables._named(batch, inputs, sizes, 30)
    assert named.field_sizes == (20, 8)
    rows = np.asarray(lazy_tables._rows(named, range(2), sizes))
    assert len(np.unique(rows)) == 28
    columns = np.concatenate([batch["categorical"], batch["multivalued"]], axis=1)
    places = np.concatenate([named.ids["categorical"], named.ids["multivalued"]], axis=1)
    starts = np.array([0, 0, 0, 0, 0, 90, 90])
    small_starts = np.array([0, 0, 0, 0, 0, 20, 20])
    there = columns >= 0
    np.testing.assert_array_equal(places == -1, ~there)
    found = rows[np.where(there, places + small_starts, 0)]
    np.testing.assert_array_equal(found[there], (columns + starts)[there])
    # A row that only padding could have named keeps out: none is there that no id names.
    of_first = rows[:20]
    of_first = of_first[of_first < sum(sizes)]
    assert set(of_first) == set(columns[:, :5][there[:, :5]])


def test_a_table_of_other_rows_is_refused():
    run = _Run(_Table((50, 4)), {"optimizer": {"lazy_rows": 20}})
    params = {"embedding": jnp.zeros((54, 2)), "words": {"embedding": jnp.zeros((9, 2))}}
    state = TrainState(jnp.zeros(()), params, {}, (), (), (), jnp.zeros(()))
    step = with_lazy_tables(_make_step(), run)
    with pytest.raises(UserError, match="words/embedding: this embedding table has 9 rows"):
        step(run, state, {"categorical": np.zeros((6, 2), np.int32)})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lazy")
    return write_store(folder / "store", 512, 64, field_sizes=SIZES, num_numerical=2)


def _training(store, lazy_rows, **overrides):
    options = {"train__batch_size": 64, "train__skip_nonfinite": True} | overrides
    return make_parts(tiny_config(store, optimizer__lazy_rows=lazy_rows, **options), store)


def test_rows_named_at_each_step_are_trained_as_by_dense_adam(store, tmp_path):
    # Rows that no batch names have no gradient: without L2 dense Adam leaves them alone, too.
    # A bias in front of batch norm has none but rounding, which Adam would make whole steps of.
    options = {"model__name": "singletask", "model__norm": "layer", "optimizer__l2": 0.0}
    dense, lazy = (_training(store, lazy_rows, **options) for lazy_rows in (0, 100))
    batch = dense.reader.read(0, 1)
    same = {name: jnp.repeat(values, 4, axis=0) for name, values in batch.items()}
    expected, _ = make_dispatch(dense.step)(dense.init(), same)
    dispatch = make_dispatch(lazy.step)
    state, metrics = dispatch(lazy.init(), same)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, expected)

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_latest(state, Progress())
    restored, _ = checkpoints.restore_latest(dense.template)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)

    bad = same | {"numerical": np.full_like(same["numerical"], np.nan)}
    state, metrics = dispatch(state, bad)
    assert metrics.skipped[-1] == 4
    jax.tree.map(
        np.testing.assert_array_equal,
        (state.params, state.opt_state),
        (restored.params, restored.opt_state),
    )


@dataclass(frozen=True)
class _Table:
    """A model that is one table."""

    field_sizes: tuple[int, ...]
    accumulate_steps: int = 1
    inputs: None = None
    own_tables: tuple[int, ...] = ()
    exchange: None = None

    def clone(self, field_sizes):
        return replace(self, field_sizes=field_sizes)


@dataclass(frozen=True)
class _Run:
    """What lazy tables read of a run."""

    model: _Table
    config: dict[str, dict[str, int]]


def _make_step(l2=0.0):
    optimizer = create_optimizer(0.1, l2=l2)

    def step(run, state, batch):
        model = run.model
        starts = jnp.cumsum(jnp.array((0, *model.field_sizes[:-1])))

        def loss(params):
            assert len(params["embedding"]) == sum(model.field_sizes)
            vectors = params["embedding"][batch["categorical"] + starts]
            vectors *= batch["numerical"][:, None]
            return (vectors**2).sum() + vectors.sum()

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        none = jnp.zeros(())
        return state.replace(params=params, opt_state=opt_state), StepMetrics(
            value, none, none, none
        )

    return step


def _run(field_sizes, table, batches, l2=0.0):
    params = {"embedding": jnp.array(table)}
    step, skipped = jnp.zeros((2, 1), jnp.int32)
    state = TrainState(step, params, {}, create_optimizer(0.1, l2=l2).init(params), (), (), skipped)
    run = _Run(_Table(field_sizes), {"optimizer": {"lazy_rows": 10}})
    lazy_step = with_lazy_tables(_make_step(l2), run)
    return make_dispatch(functools.partial(lazy_step, run))(state, batches)[0]


def test_is_the_sparse_adam_of_torch():
    size, dim, batch_size, steps = 50, 3, 8, 12
    rng = np.random.default_rng(0)
    table = rng.normal(size=(size, dim)).astype(np.float32)
    ids = rng.integers(0, 20, (steps, batch_size))  # rows come again, and twice in a batch
    factors = rng.normal(size=(steps, batch_size, dim)).astype(np.float32)
    state = _run((size,), table, {"categorical": ids[..., None], "numerical": factors})

    embedding = torch.nn.Embedding(size, dim, sparse=True, _weight=torch.from_numpy(table.copy()))
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        vectors = embedding(torch.from_numpy(ids[step])) * torch.from_numpy(factors[step])
        ((vectors**2).sum() + vectors.sum()).backward()
        optimizer.step()
    expected = embedding.weight.detach().numpy()
    np.testing.assert_allclose(state.params["embedding"], expected, atol=1e-5)
    assert np.abs(expected - table).max() > 0.1


def test_l2_moves_the_rows_named_and_those_of_small_fields():
    sizes = 50, 4
    rng = np.random.default_rng(0)
    table = rng.normal(size=(sum(sizes), 3)).astype(np.float32)
    ids = np.stack([rng.integers(0, size, 8) for size in sizes], axis=1)
    ids[:, 1] = 2
    factors = rng.normal(size=(8, 3)).astype(np.float32)
    state = _run(sizes, table, {"categorical": ids[None], "numerical": factors[None]}, l2=1e-2)
    touched = np.isin(np.arange(sum(sizes)), [*ids[:, 0], *range(50, 54)])
    (moments,) = (x for x in state.opt_state if isinstance(x, optax.ScaleByAdamState))
    for change in (
        state.params["embedding"] - table,
        moments.mu["embedding"],
        moments.nu["embedding"],
    ):
        np.testing.assert_array_equal(np.any(change != 0, axis=1), touched)


def test_small_fields_and_accumulating_models_are_trained_densely(caplog):
    step = _make_step()

    def built(model, lazy_rows):
        return with_lazy_tables(step, _Run(model, {"optimizer": {"lazy_rows": lazy_rows}}))

    assert built(_Table((50,)), 51) is step
    assert built(_Table((50,)), 0) is step
    assert not caplog.records
    assert built(_Table((50,), 2), 50) is step
    assert "takes 2 batches" in caplog.text


def test_large_tables_are_split_wherever_their_rows_divide():
    def spec(path, rows):
        return sharding.partition_spec(path, (rows, 8), SimpleNamespace(shape=shape))

    shape = {"data": 4, "expert": 2}
    rows = tables.table_rows((999_999, 7))
    for path in ("params/embedding/embedding", "opt_state/1/nu/embeddings_3/embedding"):
        assert spec(path, rows) == PartitionSpec(("data", "expert"))
        assert spec(path, rows + 4) == PartitionSpec()
    assert spec("params/task_embedding", rows) == PartitionSpec()
    assert tables.table_rows((999_990, 9)) == 999_999


def test_tables_split_over_devices_are_never_whole_on_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGE_TABLE_ROWS", LARGE)  # as in the other process
    size = LARGE - 5
    store = write_store(tmp_path / "store", 256, 8, field_sizes=(size, 9), num_numerical=1)
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    environment = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.run_lazy_mesh", store.path, "2", "2"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    split = json.loads(result.stdout.splitlines()[-1])
    whole = run_lazy(store, 1, 1)
    assert whole["rows_a_device"] == tables.table_rows((size, 9)) == 30_208
    assert split["exchanged"]
    assert not whole["exchanged"]
    assert split["rows_a_device"] == split["longest_array"] == 30_208 // 4
    np.testing.assert_allclose(split["losses"], whole["losses"], rtol=1e-5)
    np.testing.assert_allclose(split["row_norms"], whole["row_norms"], rtol=1e-5)
