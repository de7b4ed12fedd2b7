"""Rows on the device against the reader of the store."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.parts import make_parts
from hyperrec_jax.data.readers import resident
from hyperrec_jax.data.readers.resident import ResidentReader, is_resident, resident_bytes
from hyperrec_jax.data.readers.rows import TrainingReader, prefetch
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel.mesh import make_mesh
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.train import train
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture
def split(small_store):
    return small_store.split("train")


def test_batches_are_those_of_the_store(split, monkeypatch):
    monkeypatch.setattr(resident, "_CHUNK_ROWS", 1000)  # several chunks, the last one shorter
    expected = TrainingReader(split, 256, seed=3)
    reader = ResidentReader(split, 256, seed=3, mesh=make_mesh())
    assert reader.steps_per_epoch == expected.steps_per_epoch
    per_epoch = expected.steps_per_epoch
    schedule = [(0, per_epoch), (per_epoch - 1, 2)]
    for (step, count), batch in zip(schedule, prefetch(reader, schedule), strict=True):
        theirs = expected.read(step, count)
        assert batch.keys() == theirs.keys()
        for name, values in theirs.items():
            assert isinstance(batch[name], jax.Array)
            assert batch[name].dtype == values.dtype
            np.testing.assert_array_equal(batch[name], values)


def test_numericals_can_be_bfloat16(split):
    batch = ResidentReader(split, 64, 0, make_mesh(), "bfloat16").read(5, 1)
    exact = TrainingReader(split, 64, 0).read(5, 1)
    assert batch["numerical"].dtype == jnp.bfloat16
    np.testing.assert_allclose(
        batch["numerical"].astype(np.float32), exact["numerical"], rtol=2**-8
    )
    half = 2 * len(split) * split.slice(0, 0)["numerical"].shape[1]
    assert resident_bytes(split, "float32") - resident_bytes(split, "bfloat16") == half


class _Device:
    device_kind = "accelerator"

    def __init__(self, platform, limit):
        self.platform, self._limit = platform, limit

    def memory_stats(self):
        return {"bytes_limit": self._limit}


def test_auto_goes_by_the_device_and_its_memory(split, monkeypatch):
    needed = resident_bytes(split, "float32")
    for device, expected in [
        (_Device("gpu", 3 * needed), True),
        (_Device("gpu", 2 * needed), False),
        (_Device("cpu", 100 * needed), False),
    ]:
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        assert is_resident("auto", split, "float32") is expected
    assert is_resident("always", split, "float32")
    assert not is_resident("never", split, "float32")
    with pytest.raises(UserError, match=r"data\.resident='yes'"):
        is_resident("yes", split, "float32")


def test_always_is_refused_where_it_can_not_be_and_auto_says_so(split, monkeypatch, caplog):
    caplog.set_level("INFO")
    needed = resident_bytes(split, "float32")
    monkeypatch.setattr(jax, "local_devices", lambda: [_Device("gpu", 2 * needed)])
    assert not is_resident("auto", split, "float32")
    assert "rows stay in the store: they take 0.0 GiB" in caplog.text
    with pytest.raises(UserError, match=r"'always': .* of the memory of accelerator"):
        is_resident("always", split, "float32")
    monkeypatch.setattr(jax, "local_devices", lambda: [_Device("gpu", 9 * needed)])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not is_resident("auto", split, "float32")
    with pytest.raises(UserError, match="several processes"):
        is_resident("always", split, "float32")


def test_a_run_that_is_killed_ends_as_a_whole_one_from_the_store(
    small_store, trained_run, tmp_path, monkeypatch
):
    config = tiny_config(small_store, data__resident="always", train__checkpoint_every=4)
    assert isinstance(make_parts(config, small_store).reader, ResidentReader)
    saves = []

    class KilledError(Exception):
        pass

    def killed(self, *arguments):
        save_latest(self, *arguments)
        saves.append(arguments)
        if len(saves) == 2:
            raise KilledError

    save_latest = Checkpoints.save_latest
    monkeypatch.setattr(Checkpoints, "save_latest", killed)
    with pytest.raises(KilledError):
        train(config, tmp_path, small_store)
    monkeypatch.undo()
    train(config, tmp_path, small_store)

    template = make_parts(config, small_store).template
    state, expected = (
        Checkpoints(workdir, read_only=True).restore_latest(template)[0]
        for workdir in (tmp_path, trained_run)
    )
    jax.tree.map(np.testing.assert_array_equal, state, expected)
