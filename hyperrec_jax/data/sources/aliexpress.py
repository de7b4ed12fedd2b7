"""AliExpress search logs: impressions with click and conversion, five countries.

Source: https://tianchi.aliyun.com/dataset/74690 (Li et al., "Improving multi-scenario learning to
rank in e-commerce by exploiting task relationships in the label space", CIKM 2020).

Two forms are read and give the same store:

- The raw release: `aliexpress_US_datasets.zip`, or the `us_user_train.zip`, `us_item_train.zip`,
  `us_user_test.zip`, `us_item_test.zip` in it, or the CSV files in those. A user file has one row
  per search (33 columns), an item file one per impression (49 columns), neither has a header, and
  both begin with the search id, on which they are joined.
- The processed form of multi-task libraries: `train.csv` and `test.csv` with a header.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from hyperrec_jax.data.archives import copy_member, member_file, open_zip
from hyperrec_jax.data.chunk import Chunk
from hyperrec_jax.data.csv_reader import TextFile, file_identity, plain_file, read_csv
from hyperrec_jax.data.files import written_whole
from hyperrec_jax.data.source import NumericalColumn, Rows, Source
from hyperrec_jax.data.sources.registry import SOURCES, SourceCommand, add_input
from hyperrec_jax.errors import UserError

COUNTRIES = ("nl", "es", "fr", "us", "ru")
GROUP = "search_id"
TASKS = ("click", "conversion")
CATEGORICAL = tuple(f"categorical_{i}" for i in range(1, 17))
NUMERICAL = tuple(f"numerical_{i}" for i in range(1, 64))

# Columns of the raw files, numbered from 1 as in their documentation.
_USER_COLUMNS, _ITEM_COLUMNS = range(1, 34), range(1, 50)
_USER_CATEGORICAL = (*range(2, 9), 32, 33)
_USER_NUMERICAL = tuple(range(9, 32))
_ITEM_CATEGORICAL = (19, 34, 35, 36, 40, 41, 42)
_ITEM_NUMERICAL = tuple(i for i in range(2, 49) if i not in _ITEM_CATEGORICAL)
_LABEL = 49
_NO_CLICK, _CLICK, _CONVERSION = 0, 1, 2

_FILES = ("user_train", "item_train", "user_test", "item_test")


def aliexpress_source(path: Path, country: str) -> Source:
    """The search logs of one country as a source.

    Args:
      path: The folder with the files of either form, or the zip of the release.
      country: One of `COUNTRIES`.

    Raises:
      UserError: Files are missing (says which ones to download), or a zip is damaged.
    """
    if country not in COUNTRIES:
        raise UserError(f"country {country!r}: there are {', '.join(COUNTRIES)}")
    processed = {split: path / f"{split}.csv" for split in ("train", "test")}
    if all(file.is_file() for file in processed.values()):
        files = list(processed.values())
        splits = {split: _reader_of_processed(file) for split, file in processed.items()}
    else:
        release = _find_release(path, country)
        files = sorted({place.path for place in release.values()})
        splits = {
            split: _reader_of_raw(release[f"user_{split}"], release[f"item_{split}"], split)
            for split in ("train", "test")
        }
    return Source(
        name=f"aliexpress_{country}",
        categorical=CATEGORICAL,
        numerical=tuple(NumericalColumn(name) for name in NUMERICAL),
        tasks=TASKS,
        group=GROUP,
        splits=splits,
        identity=" ".join(file_identity(file) for file in files),
    )


# The processed form.


def _reader_of_processed(path: Path) -> Callable[[Path], Iterator[Rows]]:
    types = {name: pa.int64() for name in (GROUP, *CATEGORICAL, *TASKS)}
    types |= {name: pa.float32() for name in NUMERICAL}

    def read(staging: Path) -> Iterator[Rows]:
        for chunk in read_csv(plain_file(path), types, header=True):
            yield Rows(
                categorical=tuple(pa.array(chunk.ids(name)) for name in CATEGORICAL),
                numerical=chunk.numbers(NUMERICAL),
                labels=np.stack([chunk.labels(task) for task in TASKS], axis=1),
                groups=chunk.ids(GROUP),
            )

    return read


# The raw release.


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a file of the release lies: on disk, or a member of a zip."""

    path: Path
    member: str | None = None

    def text(self, staging: Path) -> TextFile:
        """The CSV file; a zip in a zip is first copied to the staging folder."""
        if self.member is None:
            return _csv_in_zip(self.path) if self.path.suffix == ".zip" else plain_file(self.path)
        if not self.member.endswith(".zip"):
            return member_file(self.path, self.member)
        copy = staging / PurePosixPath(self.member).name
        if not copy.exists():
            with written_whole(copy) as file:
                copy_member(self.path, self.member, file)
        inner = _csv_in_zip(copy)
        return dataclasses.replace(inner, name=f"{self.path}/{self.member}/{Path(inner.name).name}")


def _csv_in_zip(path: Path) -> TextFile:
    with open_zip(path) as archive:
        members = [
            name for name in archive.namelist() if name.endswith(".csv") and "__" not in name
        ]
    if len(members) != 1:
        raise UserError(f"{path}: holds {len(members)} CSV files instead of one; download it again")
    return member_file(path, members[0])


def _find_release(path: Path, country: str) -> dict[str, _Place]:
    outer_name = f"aliexpress_{country.upper()}_datasets.zip"
    outer = path if path.suffix == ".zip" else path / outer_name
    places: dict[str, _Place] = {}
    if outer.is_file():
        with open_zip(outer) as archive:
            places = {
                PurePosixPath(member).stem: _Place(outer, member)
                for member in archive.namelist()
                if member.endswith((".zip", ".csv"))
            }
    for suffix in (".zip", ".csv"):
        places |= {p.stem: _Place(p) for p in path.glob(f"{country}_*{suffix}") if p.is_file()}
    names = [f"{country}_{file}" for file in _FILES]
    missing = [name for name in names if name not in places]
    if len(missing) == len(names):
        raise UserError(
            f"{path}: no AliExpress files of country {country!r} here; download {outer_name} from "
            f"https://tianchi.aliyun.com/dataset/74690 into this folder, or put train.csv and "
            "test.csv of the processed form there"
        )
    if missing:
        raise UserError(
            f"{path}: {', '.join(f'{name}.zip' for name in missing)} missing; download "
            f"{outer_name} from https://tianchi.aliyun.com/dataset/74690 again"
        )
    return {file: places[f"{country}_{file}"] for file in _FILES}


def _column(number: int) -> str:
    return f"column {number}"


def _types(columns: range, integers: tuple[int, ...]) -> dict[str, pa.DataType]:
    return {_column(i): pa.int64() if i in integers else pa.float32() for i in columns}


class _Users:
    """The rows of a user file, on disk, found by search id.

    The file is parsed once into two plain matrices; nothing but the search ids and their order (24
    bytes per search while they are sorted) is ever in memory at once.
    """

    def __init__(self, text: TextFile, folder: Path):
        if not (folder / "order.npy").exists():
            folder.mkdir(exist_ok=True)
            _stage_users(text, folder)
        self._order = np.load(folder / "order.npy", mmap_mode="r")
        self._searches = np.load(folder / "searches.npy", mmap_mode="r")
        shape = (len(self._searches), -1)
        self.categorical = np.memmap(folder / "categorical", np.int64, "r").reshape(shape)
        self.numerical = np.memmap(folder / "numerical", np.float32, "r").reshape(shape)

    def find(self, searches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row of each search id, and whether there is one: int64, bool [search]."""
        # Neighbouring impressions share their search: look each search up once.
        begins = np.flatnonzero(np.diff(searches, prepend=searches[0] - 1))
        position = np.minimum(
            np.searchsorted(self._searches, searches[begins]), len(self._searches) - 1
        )
        lengths = np.diff(begins, append=len(searches))
        found = np.repeat(self._searches[position] == searches[begins], lengths)
        return np.repeat(self._order[position], lengths), found


def _stage_users(text: TextFile, folder: Path) -> None:
    types = _types(_USER_COLUMNS, (1, *_USER_CATEGORICAL))
    chunks = []
    with (
        written_whole(folder / "categorical") as categorical,
        written_whole(folder / "numerical") as numerical,
    ):
        for chunk in read_csv(text, types, header=False):
            chunks.append(chunk.ids(_column(1)))
            fields = [chunk.ids(_column(i)) for i in _USER_CATEGORICAL]
            categorical.write(np.stack(fields, axis=1).tobytes())
            numerical.write(chunk.numbers([_column(i) for i in _USER_NUMERICAL]).tobytes())
    searches = np.concatenate(chunks)
    order = np.argsort(searches, kind="stable")
    searches = searches[order]
    repeated = np.flatnonzero(searches[1:] == searches[:-1])
    if repeated.size:
        first, second = order[repeated[0]] + 1, order[repeated[0] + 1] + 1
        raise UserError(
            f"{text.name}: rows {first} and {second}, column 'column 1': both have the search id "
            f"{searches[repeated[0]]}; remove one of them"
        )
    for name, array in (("searches.npy", searches), ("order.npy", order)):
        with written_whole(folder / name) as file:
            np.save(file, array)


def _reader_of_raw(user: _Place, item: _Place, split: str) -> Callable[[Path], Iterator[Rows]]:
    def read(staging: Path) -> Iterator[Rows]:
        users = _Users(user.text(staging), staging / f"users_{split}")
        text = item.text(staging)
        types = _types(_ITEM_COLUMNS, (1, *_ITEM_CATEGORICAL, _LABEL))
        dropped = 0
        for chunk in read_csv(text, types, header=False):
            rows, missing = _join(chunk, users)
            dropped += missing
            if len(rows.labels):
                yield rows
        if dropped:
            tqdm.write(
                f"{text.name}: {dropped:,} impressions dropped, the user file lacks their search",
                file=sys.stderr,
            )

    return read


def _join(chunk: Chunk, users: _Users) -> tuple[Rows, int]:
    """Joined rows in the order of the item file, and how many had no user row."""
    searches = chunk.ids(_column(1))
    item_ids = np.stack([chunk.ids(_column(i)) for i in _ITEM_CATEGORICAL], axis=1)
    item_numbers = chunk.numbers([_column(i) for i in _ITEM_NUMERICAL])
    feedback = chunk.labels(_column(_LABEL), (_NO_CLICK, _CLICK, _CONVERSION))
    user, found = users.find(searches)
    missing = len(found) - int(found.sum())
    if missing:
        user, searches, feedback = user[found], searches[found], feedback[found]
        item_ids, item_numbers = item_ids[found], item_numbers[found]
    ids = np.concatenate([users.categorical[user], item_ids], axis=1)
    rows = Rows(
        categorical=tuple(pa.array(column) for column in np.ascontiguousarray(ids.T)),
        numerical=np.concatenate([users.numerical[user], item_numbers], axis=1),
        labels=np.stack([feedback >= _CLICK, feedback == _CONVERSION], axis=1).astype(np.uint8),
        groups=searches,
    )
    return rows, missing


@SOURCES.register("aliexpress")
def aliexpress_command() -> SourceCommand:
    """The arguments of `hyperrec prepare aliexpress`."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        add_input("folder with the files, or the zip itself")(parser)
        parser.add_argument("--country", required=True, choices=COUNTRIES)

    return SourceCommand(
        summary="AliExpress search logs of one country (click, conversion)",
        description="Reads the Tianchi release, https://tianchi.aliyun.com/dataset/74690 (a free "
        "account is needed to download): aliexpress_US_datasets.zip, or what is in it, zipped or "
        "not. Also reads the processed form, train.csv and test.csv with the columns search_id, "
        "categorical_1..16, numerical_1..63, click, conversion.",
        add_arguments=arguments,
        make=lambda chosen: aliexpress_source(chosen.input, chosen.country),
    )
