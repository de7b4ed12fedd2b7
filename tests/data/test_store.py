import errno
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperrec_jax.data import store_writer
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.store_writer import StoreWriter
from hyperrec_jax.errors import UserError

NAMES = ("categorical", "numerical", "labels")


def _equal(batch, columns, rows):
    assert set(batch) == set(NAMES)
    return all(np.array_equal(batch[name], columns[name][rows]) for name in NAMES)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 61])
def test_what_is_written_is_read(make_store, small_batches, rows):
    store, columns = make_store(rows)
    split = store.split("train")
    assert len(split) == rows
    for start in range(rows + 1):
        for stop in (start, min(start + 5, rows), rows):
            assert _equal(split.slice(start, stop), columns, slice(start, stop))
    order = np.random.default_rng(0).integers(0, rows, 40)
    assert _equal(split.gather(order), columns, order)
    np.testing.assert_array_equal(split.groups(1, rows), columns["group"][1:])
    assert split.positives == tuple(columns["labels"].sum(0))
    assert len(store.split("validation")) == 0
    assert store.split("validation").positives == (0, 0)


@pytest.mark.parametrize(("size", "dtype"), [(256, "uint8"), (257, "uint16"), (65_537, "int32")])
def test_ids_take_the_smallest_type_that_holds_them(make_store, size, dtype):
    store, columns = make_store(300, size=size)
    batch = store.split("train").slice(0, 300)
    assert batch["categorical"].dtype == dtype
    assert batch["numerical"].dtype == np.float32
    assert batch["labels"].dtype == np.uint8
    assert _equal(batch, columns, slice(None))


def test_aligned_slices_are_views_of_the_file(make_store, small_batches):
    split = make_store(64)[0].split("train")
    for column in split.slice(4, 8).values():
        assert not column.flags.owndata
        assert not column.flags.writeable
    assert np.shares_memory(split.slice(0, 4)["numerical"], split.slice(2, 6)["numerical"])


def test_without_numbers_or_groups(make_store, small_batches):
    split = make_store(20, numbers=0, group=False)[0].split("train")
    assert split.gather(np.array([3, 19]))["numerical"].shape == (2, 0)
    with pytest.raises(UserError, match="no group column"):
        split.groups(0, 1)


def test_any_arrow_reader_reads_it(make_store, small_batches, tmp_path):
    _, columns = make_store(61)
    table = pa.ipc.open_file(tmp_path / "store" / "train.arrow").read_all()
    np.testing.assert_array_equal(table["numerical"].to_pylist(), columns["numerical"])
    np.testing.assert_array_equal(np.ravel(table["group"].to_pylist()), columns["group"])


def test_vocabulary(make_store):
    store, _ = make_store(10)
    assert store.vocabulary("a").to_pylist() == list(range(9))
    assert store.vocabulary("b").to_pylist() == ["x", "y"]
    with pytest.raises(UserError, match=r"no categorical field 'c'.*a, b"):
        store.vocabulary("c")


def test_fingerprint_follows_the_contents(make_store):
    first, again = make_store(50)[0], make_store(50, name="again")[0]
    other_rows, other_schema = make_store(51, name="o")[0], make_store(50, size=11, name="p")[0]
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other_rows.fingerprint, other_schema.fingerprint}) == 3


def test_rows_out_of_range(make_store):
    split = make_store(10)[0].split("train")
    for rows in ([-1], [10]):
        with pytest.raises(IndexError):
            split.gather(np.array(rows))
    with pytest.raises(IndexError):
        split.slice(0, 11)


def test_no_store(tmp_path):
    with pytest.raises(UserError, match=r"no prepared data here.*hyperrec prepare"):
        Store.open(tmp_path / "nowhere")


def test_no_such_split(make_store):
    with pytest.raises(UserError, match=r"no split 'dev'.*train, validation, test"):
        make_store(10)[0].split("dev")


def test_older_version(make_store, tmp_path):
    make_store(10)
    path = tmp_path / "store" / "schema.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    told = "version 0, and this program reads versions 3 and 4; prepare"
    with pytest.raises(UserError, match=told):
        Store.open(tmp_path / "store")


def test_changed_schema(make_store, tmp_path):
    make_store(10)
    path = tmp_path / "store" / "schema.json"
    path.write_text(path.read_text().replace('"buy"', '"sell"'))
    with pytest.raises(UserError, match="changed after it was written"):
        Store.open(tmp_path / "store")


def test_missing_split_file(make_store, tmp_path):
    make_store(10)
    (tmp_path / "store" / "test.arrow").unlink()
    with pytest.raises(UserError, match=r"test\.arrow: damaged, the file is missing"):
        Store.open(tmp_path / "store")


def test_corrupt_record_batch_is_named(make_store, small_batches, tmp_path):
    _, columns = make_store(61)
    path = tmp_path / "store" / "train.arrow"
    content = bytearray(path.read_bytes())
    where = content.index(columns["numerical"][25].tobytes())
    content[where] ^= 1
    path.write_bytes(content)
    split = Store.open(tmp_path / "store").split("train")
    assert _equal(split.slice(0, 24), columns, slice(0, 24))
    with pytest.raises(
        UserError, match=r"train\.arrow.*record batch 3 \(rows 24 to 31, at byte \d+\)"
    ):
        split.gather(np.array([2, 27]))
    with pytest.raises(UserError, match="record batch 3"):
        split.verify()


def test_corrupt_vocabulary(make_store, tmp_path):
    make_store(10)
    path = tmp_path / "store" / "vocabulary.arrow"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"vocabulary\.arrow: damaged"):
        Store.open(tmp_path / "store").vocabulary("a")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_files_never_give_wrong_rows(make_store, small_batches, tmp_path, data):
    if not (tmp_path / "store").exists():
        make_store(40)
    columns = make_store(40, name="copy")[1]
    name = data.draw(st.sampled_from(["train.arrow", "schema.json", "vocabulary.arrow"]))
    path = tmp_path / "copy" / name
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]
    path.write_bytes(content)
    try:
        store = Store.open(tmp_path / "copy")
        batch = store.split("train").gather(np.arange(40))
        store.vocabulary("b")
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert _equal(batch, columns, slice(None))
    assert "\n" not in message


def test_an_error_leaves_the_old_store(make_store, tmp_path):
    store, _ = make_store(10)
    with (
        pytest.raises(ZeroDivisionError),
        StoreWriter(tmp_path / "store", store.schema, [pa.array([1]), pa.array(["x"])]),
    ):
        raise ZeroDivisionError
    assert Store.open(tmp_path / "store").fingerprint == store.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_full_disk(make_store, tmp_path, monkeypatch):
    store, columns = make_store(10)

    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_writer._SplitWriter, "_flush", refuse)
    with (
        pytest.raises(UserError, match="no space left on the disk; free some"),
        StoreWriter(tmp_path / "new", store.schema, [pa.array([1]), pa.array(["x"])]) as writer,
    ):
        writer.append("train", columns)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a prepared data set; choose another"):
        StoreWriter(tmp_path, Schema("x", (), (), ("click",)), [])
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_unwritable_output(make_store, tmp_path):
    store, _ = make_store(10)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        StoreWriter(tmp_path / "file" / "out", store.schema, [pa.array([1]), pa.array(["x"])])


def test_a_store_can_be_moved(make_store, tmp_path):
    store, _ = make_store(10)
    shutil.move(tmp_path / "store", tmp_path / "moved")
    assert Store.open(tmp_path / "moved").fingerprint == store.fingerprint
