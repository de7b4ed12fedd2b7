import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.readers.rows import TrainingReader, evaluation_batches, prefetch
from hyperrec_jax.errors import UserError


class Numbered:
    """A split of which every row holds its own number, without the disk."""

    path = "numbered"

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return self._rows

    def gather(self, rows):
        return {"categorical": rows[:, None], "labels": np.stack([rows % 2, rows % 3], 1)}

    def slice(self, start, stop):
        return self.gather(np.arange(start, stop))


@settings(deadline=None)
@given(rows=st.integers(1, 3000), seed=st.integers(0, 1000), data=st.data())
def test_each_row_at_most_once_an_epoch(rows, seed, data):
    batch_size = data.draw(st.integers(1, rows))
    reader = TrainingReader(Numbered(rows), batch_size, seed)
    epoch = data.draw(st.integers(0, 3))
    seen = reader.rows(epoch * reader.steps_per_epoch, reader.steps_per_epoch).ravel()
    assert len(np.unique(seen)) == reader.steps_per_epoch * batch_size
    assert seen.min() >= 0
    assert seen.max() < rows


@pytest.mark.parametrize("rows", [131_072, 131_073, 300_000])
def test_all_rows_of_several_windows(rows):
    reader = TrainingReader(Numbered(rows), 1, seed=3)
    np.testing.assert_array_equal(np.sort(reader.rows(0, rows).ravel()), np.arange(rows))


def test_no_visible_order_is_left():
    rows = 400_000
    reader = TrainingReader(Numbered(rows), 1000, seed=0)
    order = reader.rows(0, reader.steps_per_epoch).ravel()
    # About 1 / sqrt(number of blocks in a window) for a shuffle of blocks.
    assert abs(np.corrcoef(np.arange(rows), order)[0, 1]) < 0.05
    # By chance two in a million of the neighbours in the split would stay neighbours.
    assert np.mean(np.abs(np.diff(order)) == 1) < 1e-4
    # A batch holds rows from all over the split: its mean is that of a random sample.
    means = order.reshape(-1, 1000).mean(1) / rows
    assert means.std() < 1.5 * np.sqrt(1 / 12 / 1000)
    # A batch of 1,000 out of windows of 2,048 blocks: few share a block.
    blocks = [len(np.unique(batch // 64)) for batch in order.reshape(-1, 1000)[:50]]
    assert min(blocks) > 700


def test_epochs_and_seeds_differ():
    first = TrainingReader(Numbered(1000), 1000, seed=0)
    other = TrainingReader(Numbered(1000), 1000, seed=1)
    orders = [first.rows(0, 1), first.rows(1, 1), other.rows(0, 1)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(orders[i] == orders[j]) < 0.02


@settings(deadline=None)
@given(step=st.integers(0, 60), count=st.integers(1, 25))
def test_reads_depend_on_the_step_alone(step, count):
    reader = TrainingReader(Numbered(500), 48, seed=7)
    whole = reader.read(step, count)["labels"]
    fresh = TrainingReader(Numbered(500), 48, seed=7)
    for i in reversed(range(count)):
        np.testing.assert_array_equal(fresh.read(step + i, 1)["labels"][0], whole[i])
    assert whole.shape == (count, 48, 2)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_the_global_batch_does_not_depend_on_the_processes(processes):
    whole = TrainingReader(Numbered(500), 48, 7).rows(5, 9)
    parts = [
        TrainingReader(Numbered(500), 48, 7, i, processes).rows(5, 9) for i in range(processes)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_batch_errors():
    with pytest.raises(UserError, match="9 rows are less than one batch of 10"):
        TrainingReader(Numbered(9), 10, 0)
    with pytest.raises(UserError, match="10 rows does not divide evenly among 3 processes"):
        TrainingReader(Numbered(90), 10, 0, 0, 3)


def test_real_store(make_store, small_batches):
    store, columns = make_store(200)
    reader = TrainingReader(store.split("train"), 20, seed=1)
    batch, rows = reader.read(4, 3), reader.rows(4, 3)
    for name, column in batch.items():
        np.testing.assert_array_equal(column, columns[name][rows])


def test_prefetch_keeps_the_order():
    reader = TrainingReader(Numbered(500), 50, seed=1)
    schedule = [(0, 3), (3, 1), (4, 3), (29, 2)]
    batches = list(prefetch(reader, schedule, depth=2))
    assert len(batches) == len(schedule)
    for (step, count), batch in zip(schedule, batches, strict=True):
        np.testing.assert_array_equal(batch["labels"], reader.read(step, count)["labels"])


def test_prefetch_passes_errors_on(make_store, small_batches, tmp_path):
    store, columns = make_store(64)
    path = store.split("train").path
    content = path.read_bytes()
    damaged = columns["numerical"][9].tobytes()
    path.write_bytes(content.replace(damaged, bytes(len(damaged))))
    reader = TrainingReader(type(store).open(store.path).split("train"), 64, seed=0)
    with pytest.raises(UserError, match="record batch 1"):
        next(prefetch(reader, [(0, 1)]))


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_batches_hold_each_row_once_in_order(rows, processes):
    parts = [list(evaluation_batches(Numbered(rows), 8, i, processes)) for i in range(processes)]
    assert len({len(part) for part in parts}) == 1
    seen = []
    for batches in zip(*parts, strict=True):
        for batch in batches:
            assert batch["categorical"].shape == (8 // processes, 1)
            assert set(np.unique(batch["mask"])) <= {0, 1}
            assert np.all(batch["labels"][batch["mask"] == 0] == 0)
            seen += batch["categorical"][batch["mask"] == 1, 0].tolist()
    assert seen == list(range(rows))
