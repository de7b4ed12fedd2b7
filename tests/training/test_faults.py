"""What a run does when the disk is full, and when it is killed while it saves."""

import contextlib
import gc
import resource

import jax
import numpy as np
import pytest

from benchmarks.parts import make_parts
from hyperrec_jax.errors import UserError
from hyperrec_jax.parallel import processes
from hyperrec_jax.training.checkpoint import Checkpoints
from hyperrec_jax.training.train import train
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def no_file_grows_beyond(size):
    """The system refuses to write more, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _config(store, **overrides):
    return tiny_config(
        store,
        model__name="sharedbottom",
        model__bottom_widths=(512, 16),
        train__steps_per_dispatch=1,
        **overrides,
    )


def _latest(config, store, workdir):
    training = make_parts(config, store)
    restored = Checkpoints(workdir, read_only=True).restore_latest(training.template)
    assert restored is not None
    return restored[0]


@pytest.fixture(scope="module")
def undisturbed(small_store, tmp_path_factory):
    """The final state of a run that nothing disturbs."""
    config, folder = _config(small_store), tmp_path_factory.mktemp("undisturbed")
    train(config, folder, small_store)
    return _latest(config, small_store, folder)


# What Orbax's threads say beside it, where each of several files could not be written.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("checkpoint_every", [4, 1000])
def test_a_full_disk_keeps_the_last_checkpoint(
    small_store, undisturbed, tmp_path, checkpoint_every
):
    """The disk is full for a checkpoint, or for the log before it comes to one."""
    config = _config(small_store, train__checkpoint_every=checkpoint_every)
    train(config | {"train": config["train"] | {"epochs": 1}}, tmp_path, small_store)
    before = _latest(config, small_store, tmp_path)
    with (
        no_file_grows_beyond(30_000 if checkpoint_every == 4 else _largest_text(tmp_path) + 50),
        pytest.raises(UserError, match=r"no space left on the disk.*the last checkpoint is"),
    ):
        train(config, tmp_path, small_store)
    after = _latest(config, small_store, tmp_path)
    assert int(after.step) == int(before.step)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert train(config, tmp_path, small_store).finished
    final = _latest(config, small_store, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, final, undisturbed)
    gc.collect()  # what Orbax left complains now, and not in a test that expects nothing


def test_a_checkpoint_that_one_process_cannot_read_is_passed_over_by_all(
    small_store, undisturbed, tmp_path, monkeypatch, caplog
):
    config = _config(small_store)
    train(config, tmp_path, small_store)
    answers = iter([False])  # another process's, of the newest one
    monkeypatch.setattr(processes, "all_agree", lambda mine: next(answers, mine))
    assert train(config, tmp_path, small_store).finished
    newest = int(undisturbed.step)
    assert f"{newest} is damaged (another process could not read its part)" in caplog.text
    final = _latest(config, small_store, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, final, undisturbed)


def _largest_text(folder):
    return max(path.stat().st_size for path in folder.glob("*.json*"))
