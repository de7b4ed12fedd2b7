"""Batches of whole lists: properties over random splits, and the real store."""

import logging

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.data.readers import list_index
from hyperrec_jax.data.readers.list_index import ListIndex
from hyperrec_jax.data.readers.lists import ListReader
from hyperrec_jax.data.readers.rows import prefetch
from hyperrec_jax.errors import UserError
from hyperrec_jax.preference.list_losses import to_lists


class Grouped:
    """A split of which every row holds its own number and group, without the disk."""

    path = "grouped"

    def __init__(self, groups):
        self._groups = np.asarray(groups, np.int64)

    def __len__(self):
        return len(self._groups)

    def groups(self, start, stop):
        return self._groups[start:stop]

    def gather(self, rows):
        return {
            "categorical": np.stack([rows, self._groups[rows]], 1),
            "labels": np.stack([rows % 2, rows % 3], 1).astype(np.uint8),
        }


@st.composite
def splits(draw: st.DrawFn) -> Grouped:
    """Lists of 1 to 12 rows with ids in no order; neighbours, or scattered over the split."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lists = draw(st.integers(1, 150))
    longest = draw(st.sampled_from([1, 5, 12]))
    groups = np.repeat(
        rng.permutation(10 * lists)[:lists] - 40, rng.integers(1, longest + 1, lists)
    )
    if draw(st.booleans()):
        groups = rng.permutation(groups)
    return Grouped(groups)


quick = settings(deadline=None, max_examples=60)


@quick
@given(split=splits(), batch_size=st.sampled_from([12, 40, 5000]), data=st.data())
def test_each_list_whole_and_exactly_once_an_epoch(split, batch_size, data):
    reader = ListReader(split, batch_size, seed=data.draw(st.integers(0, 99)))
    epoch = data.draw(st.integers(0, 3))
    steps = reader.steps_per_epoch
    batches = reader.read(epoch * steps, steps)
    exists = batches["mask"] == 1
    assert exists.shape == (steps, batch_size)
    rows, groups = batches["categorical"][..., 0], batches["categorical"][..., 1]
    np.testing.assert_array_equal(np.sort(rows[exists]), np.arange(len(split)))
    assert reader.fill == pytest.approx(exists.mean())
    seen = []
    for one in range(steps):
        here = exists[one]
        # Padding is at the end, is zero, and belongs to no list.
        assert here[: here.sum()].all()
        assert not any(batches[name][one, ~here].any() for name in ("categorical", "labels"))
        assert np.all(batches["list_index"][one, ~here] == reader.lists_per_batch)
        indices = batches["list_index"][one, here]
        assert set(indices) == set(range(indices.max() + 1))
        assert indices.max() < reader.lists_per_batch
        for index in set(indices):
            members = np.flatnonzero(batches["list_index"][one] == index)
            (group,) = set(groups[one, members])
            np.testing.assert_array_equal(
                rows[one, members], np.flatnonzero(split.groups(0, None) == group)
            )
            np.testing.assert_array_equal(batches["position"][one, members], range(len(members)))
            seen.append(group)
    assert sorted(seen) == sorted(set(split.groups(0, None)))
    assert reader.num_lists == len(seen)
    assert reader.num_cut == 0


@quick
@given(split=splits(), step=st.integers(0, 60), count=st.integers(1, 6))
def test_reads_depend_on_the_step_alone(split, step, count):
    whole = ListReader(split, 24, seed=7).read(step, count)
    fresh = ListReader(split, 24, seed=7)
    for i in reversed(range(count)):
        one = fresh.read(step + i, 1)
        for name, column in whole.items():
            np.testing.assert_array_equal(one[name][0], column[i])


@quick
@given(split=splits(), processes=st.sampled_from([2, 3, 4]))
def test_the_global_batch_does_not_depend_on_the_processes(split, processes):
    whole = ListReader(split, 24, 7).read(5, 4)
    parts = [
        ListReader(split, 24, 7, process_index=i, process_count=processes).read(5, 4)
        for i in range(processes)
    ]
    for name, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts], axis=1), column)


@quick
@given(split=splits(), max_items=st.integers(1, 6))
def test_longer_lists_give_a_choice_of_their_rows(split, max_items):
    reader = ListReader(split, 24, 3, max_items=max_items)
    batches = reader.read(0, reader.steps_per_epoch)
    exists = batches["mask"] == 1
    rows, groups = np.moveaxis(batches["categorical"][exists], -1, 0)
    assert len(set(rows)) == len(rows)
    np.testing.assert_array_equal(groups, split.groups(0, None)[rows])
    ids, lengths = np.unique(split.groups(0, None), return_counts=True)
    chosen_ids, chosen = np.unique(groups, return_counts=True)
    np.testing.assert_array_equal(chosen_ids, ids)
    np.testing.assert_array_equal(chosen, np.minimum(lengths, max_items))
    assert reader.num_cut == np.sum(lengths > max_items)
    assert batches["position"].max() < max_items


def test_the_choice_of_rows_is_even_and_changes(caplog):
    split = Grouped([5] * 40 + [9] * 3)
    with caplog.at_level(logging.WARNING):
        reader = ListReader(split, 16, 3, max_items=10)
    assert "1 of 2 lists have more than 10 rows, the longest 40" in caplog.text
    taken = reader.read(0, 800 * reader.steps_per_epoch)
    rows = taken["categorical"][..., 0][(taken["mask"] == 1) & (taken["categorical"][..., 1] == 5)]
    counts = np.bincount(rows, minlength=40)
    assert counts.sum() == 800 * 10
    # 200 expected of each, standard deviation 12.
    assert counts.min() > 140
    assert counts.max() < 260


def test_lists_of_very_different_lengths_do_not_slow_each_other_down():
    lengths = [300_000, 70_000, *[3] * 2000]
    reader = ListReader(Grouped(np.repeat(np.arange(len(lengths)), lengths)), 512, 0, max_items=100)
    batches = reader.rows(0, reader.steps_per_epoch)
    assert np.sum(batches.rows >= 0) == 2 * 100 + 2000 * 3
    assert reader.fill > 0.9


def test_no_visible_order_is_left():
    # Lists as sessions have them, with the long ones first.
    lengths = np.sort(np.random.default_rng(0).geometric(0.05, 5000))[::-1]
    split = Grouped(np.repeat(np.arange(5000), lengths))
    reader = ListReader(split, 1024, seed=1)
    assert reader.fill > 0.97
    orders = []
    for epoch in range(2):
        batches = reader.read(epoch * reader.steps_per_epoch, reader.steps_per_epoch)
        exists, groups = batches["mask"] == 1, batches["categorical"][..., 1]
        orders.append(groups[exists & (batches["position"] == 0)])
        # Every batch holds lists from all over the split, and nearly as many rows as any other.
        means = np.array([g[e].mean() for g, e in zip(groups, exists, strict=True)])
        assert abs(means - means.mean()).max() < 1000
        assert exists.sum(1).min() > 0.8 * 1024
    for order in orders:
        assert abs(np.corrcoef(np.arange(5000), order)[0, 1]) < 0.05
        assert np.mean(np.abs(np.diff(order)) == 1) < 2e-3
    assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 0.6  # the lengths of places stay
    other = ListReader(split, 1024, seed=2)
    first = other.read(0, 1)["categorical"][0, :, 1]
    assert len(set(first) & set(reader.read(0, 1)["categorical"][0, :, 1])) < 10


def test_the_last_batch_is_no_remainder():
    reader = ListReader(Grouped(np.arange(110) // 10), 100, seed=0)
    rows = (reader.rows(0, reader.steps_per_epoch).rows >= 0).sum(1)
    assert sorted(rows) == [50, 60]


def test_lists_change_their_company_even_where_lengths_are_rare():
    # No two lists are of one length.
    lengths = np.arange(40, 240)
    reader = ListReader(Grouped(np.repeat(np.arange(200), lengths)), 2000, seed=0)
    together = np.zeros((200, 200), int)
    for epoch in range(30):
        batches = reader.read(epoch * reader.steps_per_epoch, reader.steps_per_epoch)
        for one in batches["categorical"][..., 1] + np.where(batches["mask"] == 1, 0, 10**6):
            members = np.unique(one[one < 10**6])
            together[np.ix_(members, members)] += 1
    np.fill_diagonal(together, 0)
    # Two lists meet by chance in one of 14 batches: two times in 30 epochs.
    assert together.max() < 20
    assert reader.fill > 0.85


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_lists_are_found_across_chunks(chunk, monkeypatch, caplog):
    monkeypatch.setattr(list_index, "_CHUNK_ROWS", chunk)
    neighbours = ListIndex.of(Grouped([7, 7, 3, 9, 9, 9]))
    np.testing.assert_array_equal(neighbours.starts, [0, 2, 3])
    np.testing.assert_array_equal(neighbours.lengths, [2, 1, 3])
    assert neighbours.row_order is None
    with caplog.at_level(logging.INFO):
        scattered = ListIndex.of(Grouped([7, 3, 7, 9, 3, 9]))
    assert "3 lists lie in 6 separate runs" in caplog.text
    np.testing.assert_array_equal(scattered.starts, [0, 2, 4])
    np.testing.assert_array_equal(scattered.rows(np.arange(6)), [0, 2, 1, 4, 3, 5])


def test_scattered_lists_come_as_sorted_ones_do():
    groups = np.random.default_rng(0).integers(0, 30, 300)
    groups = groups[np.argsort(np.unique(groups, return_index=True)[1][groups], kind="stable")]
    places = np.random.default_rng(1).permutation(300)
    # The scattered split has the same lists in the same order of their first rows.
    scattered = Grouped(groups[places])
    order = np.argsort(scattered.groups(0, None), kind="stable")
    reader = ListReader(scattered, 60, 0)
    batches = reader.read(0, reader.steps_per_epoch)
    exists = batches["mask"] == 1
    assert sorted(batches["categorical"][exists][:, 0]) == sorted(order)


def test_unusable_lists_are_refused():
    split = Grouped([1] * 30 + [2] * 3)
    with pytest.raises(UserError, match="lists of up to 30 rows do not fit into a batch of 24"):
        ListReader(split, 24, 0)
    with pytest.raises(UserError, match="1 of 2 lists have more than 10 rows, the longest 30"):
        ListReader(split, 24, 0, max_items=10, longer="refuse")
    with pytest.raises(UserError, match="longer='drop': take 'cut' or 'refuse'"):
        ListReader(split, 24, 0, max_items=10, longer="drop")
    with pytest.raises(UserError, match="max_items=0"):
        ListReader(split, 24, 0, max_items=0)
    with pytest.raises(UserError, match="24 rows does not divide evenly among 5 processes"):
        ListReader(split, 24, 0, max_items=10, process_count=5)
    with pytest.raises(UserError, match="no rows"):
        ListReader(Grouped([]), 24, 0)


def test_real_store(make_store, small_batches):
    store, columns = make_store(200)
    reader = ListReader(store.split("train"), 20, seed=1)
    chosen, batch = reader.rows(4, 3), reader.read(4, 3)
    exists = chosen.rows >= 0
    for name in ("categorical", "numerical", "labels"):
        np.testing.assert_array_equal(batch[name][exists], columns[name][chosen.rows[exists]])
    without, _ = make_store(20, group=False, name="without")
    with pytest.raises(UserError, match="no group column"):
        ListReader(without.split("train"), 20, seed=1)


def test_prefetch_takes_it_as_any_reader():
    reader = ListReader(Grouped(np.arange(300) // 4), 32, seed=1)
    schedule = [(0, 2), (2, 1), (9, 3)]
    for (step, count), batch in zip(schedule, prefetch(reader, schedule), strict=True):
        np.testing.assert_array_equal(batch["labels"], reader.read(step, count)["labels"])


def test_scores_of_a_batch_go_to_their_lists():
    split = Grouped(np.repeat([4, 8, 6, 1], [3, 1, 4, 2]))
    reader = ListReader(split, 12, seed=0)
    batch = {name: column[0] for name, column in reader.read(0, 1).items()}
    place = jax.jit(to_lists, static_argnums=(3, 4))
    shape = (reader.lists_per_batch, reader.max_items)
    grid = place(batch["categorical"].T, batch["list_index"], batch["position"], *shape)
    mask = place(batch["mask"], batch["list_index"], batch["position"], *shape)
    assert mask.sum() == 10
    for rows, groups, exists in zip(*grid, mask == 1, strict=True):
        (group,) = set(np.asarray(groups)[exists])
        np.testing.assert_array_equal(
            np.asarray(rows)[exists], np.flatnonzero(split.groups(0, None) == group)
        )
