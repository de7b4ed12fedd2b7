"""The AliExpress search logs as a TensorFlow Datasets builder, no TensorFlow needed.

    import tensorflow_datasets as tfds
    import hyperrec_jax.data.aliexpress_tfds  # registers the builder

    train = tfds.data_source(
        "aliexpress_search/us",
        split="train",
        download_and_prepare_kwargs={
            "download_config": tfds.download.DownloadConfig(manual_dir="downloads")
        },
    )

A random-access source of NumPy dictionaries with the raw values, in the order of the release. Where
TensorFlow is installed, `tfds.load("aliexpress_search/us", builder_kwargs={"file_format":
"tfrecord"})` gives a `tf.data.Dataset`. Training reads the store of `hyperrec prepare`
instead: whole batches cut from mapped memory, not records decoded one by one.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hyperrec_jax.data.source import ReadRows
from hyperrec_jax.data.sources.aliexpress import (
    CATEGORICAL,
    COUNTRIES,
    GROUP,
    NUMERICAL,
    TASKS,
    aliexpress_source,
)


class AliexpressSearch(tfds.core.GeneratorBasedBuilder):
    """Impressions of AliExpress' product search with click and conversion, by country."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (the interface of the base class)
        tfds.core.BuilderConfig(name=country, description=f"Searches from {country.upper()}.")
        for country in COUNTRIES
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Download aliexpress_<COUNTRY>_datasets.zip (NL, ES, FR, US or RU) from
    https://tianchi.aliyun.com/dataset/74690, which needs a free account, into the manual folder.
    """

    def __init__(self, *, file_format: Any = "array_record", **kwargs: Any):
        # The default of the base class, tfrecord, can't be written without TensorFlow.
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            homepage="https://tianchi.aliyun.com/dataset/74690",
            features=tfds.features.FeaturesDict(
                {
                    GROUP: tfds.features.Scalar(np.int64),
                    "categorical": tfds.features.Tensor(shape=(len(CATEGORICAL),), dtype=np.int64),
                    "numerical": tfds.features.Tensor(shape=(len(NUMERICAL),), dtype=np.float32),
                    **{task: tfds.features.Scalar(np.uint8) for task in TASKS},
                }
            ),
            # The order of the release is kept: rows of one search stay together.
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        source = aliexpress_source(Path(dl_manager.manual_dir), self.builder_config.name)
        return {split: self._generate_examples(read) for split, read in source.splits.items()}

    def _generate_examples(self, read: ReadRows) -> Iterator[tuple[int, dict[str, Any]]]:
        key = 0
        with tempfile.TemporaryDirectory() as staging:
            for rows in read(Path(staging)):
                assert rows.groups is not None
                ids = np.stack([values.to_numpy() for values in rows.categorical], axis=1)
                for group, categorical, numerical, labels in zip(
                    rows.groups, ids, rows.numerical, rows.labels, strict=True
                ):
                    yield (
                        key,
                        {
                            GROUP: group,
                            "categorical": categorical,
                            "numerical": numerical,
                            **dict(zip(TASKS, labels, strict=True)),
                        },
                    )
                    key += 1
