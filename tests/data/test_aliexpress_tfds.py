import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import hyperrec_jax.data.aliexpress_tfds  # noqa: F401 (registers the builder)
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.aliexpress import CATEGORICAL, aliexpress_source


def _source(tmp_path, split, manual):
    return tfds.data_source(
        "aliexpress_search/us",
        split=split,
        data_dir=tmp_path / "tfds",
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(manual_dir=manual)
        },
    )


def test_records_are_the_rows_of_the_store(write_raw, tmp_path):
    folder = write_raw(tmp_path / "raw", "zips")
    store = prepare_store(aliexpress_source(folder, "us"), tmp_path / "store", 0.0)
    for split in ("train", "test"):
        records, part = _source(tmp_path, split, folder), store.split(split)
        assert len(records) == len(part)
        columns = {key: np.stack([record[key] for record in records]) for key in records[0]}
        batch = part.slice(0, len(part))
        np.testing.assert_array_equal(columns["search_id"], part.groups(0, len(part)))
        np.testing.assert_array_equal(columns["numerical"], batch["numerical"])
        np.testing.assert_array_equal(columns["click"], batch["labels"][:, 0])
        np.testing.assert_array_equal(columns["conversion"], batch["labels"][:, 1])
        for i, name in enumerate(CATEGORICAL):
            ids = batch["categorical"][:, i]
            values = np.array([-1, *store.vocabulary(name).to_pylist()])[ids]
            np.testing.assert_array_equal(values[ids > 0], columns["categorical"][ids > 0, i])
            assert np.all(ids > 0) or split == "test"
    assert "tensorflow" not in sys.modules


def test_a_configuration_a_country():
    names = [config.name for config in tfds.builder_cls("aliexpress_search").BUILDER_CONFIGS]
    assert names == ["nl", "es", "fr", "us", "ru"]


def test_missing_files_say_what_to_download(tmp_path):
    with pytest.raises(AssertionError, match=r"aliexpress_<COUNTRY>_datasets\.zip"):
        _source(tmp_path, "train", tmp_path / "nowhere")
