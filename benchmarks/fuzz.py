"""Reads mutated files and requests: each must end in success, or in one clear line.

    python -m benchmarks.fuzz --examples 2000

Every example changes a valid file at one to eight places (a bit, a byte, a piece that is cut,
doubled or moved, a token that readers trip over) and reads it as the commands do. What counts as a
finding: any exception but `UserError`, a message of several lines, more than 20 s of the processor,
a store that gives other rows than were written, and an answer of the server that is neither right
nor a refusal (see `benchmarks.server_bodies`). An example is a function of target, seed and
number: `--only csv:17` repeats it alone.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.measure import machine, table
from benchmarks.option_values import OptionTarget
from benchmarks.server_bodies import ServerTarget
from hyperrec_jax.data.columns import SPLITS
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.aliexpress import aliexpress_source
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
ROWS = 60
SLOW = 20.0
TOKENS = (
    *(b'"', b",", b"\n", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"-", b"'", b"#", b"\\"),
    *(b"1e999", b"nan", b"-inf", b"99999999999999999999", b"0x1", b" ", b"\xe2\x80\xa8"),
    *(b"../", b"/etc/passwd", b"{", b"}", b"[", b"]", b": ", b"null", b"true", b"- ", b"|"),
    *(b"&a [*a]", b"!!python/object:os.system", b"<<: *a", b"PK\x03\x04", b"PK\x05\x06"),
)


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Changes a file at one to eight places."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
        at = generator.randrange(len(data) + 1)
        size = generator.choice((1, 2, 4, 16, 256))
        piece = bytes(data[at : at + size])
        match generator.randrange(7):
            case 0 if piece:
                data[at] ^= 1 << generator.randrange(8)
            case 1 if piece:
                data[at] = generator.randrange(256)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = piece
            case 4:
                to = generator.randrange(len(data) + 1)
                data[to : to + size] = piece
            case 5 if generator.random() < 0.2:
                del data[at:]
            case _:
                data[at:at] = generator.choice(TOKENS)
    return bytes(data)


class Fuzzed(Protocol):
    """What is fuzzed: `run` is one example, and raises what the code under test raises."""

    def run(self, generator: random.Random) -> None: ...


class Target:
    """A kind of file, and what reads it.

    Args:
      folder: A folder of its own, which `write` fills with valid files.
      files: Those that are mutated, one at a time.
      read: Reads the folder as a command does, into an output folder.
    """

    def __init__(self, folder: Path, files: Sequence[str], read: Callable[[Path, Path], None]):
        self._folder = folder
        self._originals = {name: (folder / name).read_bytes() for name in files}
        self._read = read

        self.read()  # what is valid is read

    def run(self, generator: random.Random) -> None:
        """One example; raises what the reader raises."""
        name = generator.choice(list(self._originals))
        (self._folder / name).write_bytes(mutate(self._originals[name], generator))
        try:
            self.read()
        finally:
            (self._folder / name).write_bytes(self._originals[name])

    def read(self) -> None:
        """Reads the files as they are."""
        output = self._folder.with_name("output")
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                self._read(self._folder, output)
        finally:
            for path in output.parent.glob("output*"):
                shutil.rmtree(path)


def own_files(root: Path) -> Path:
    """A CSV log and its description."""
    root.mkdir()
    rng = np.random.default_rng(0)
    lines = ["country,item,price,click,buy,session"]
    lines += [
        f"c{row % 5},{rng.integers(9)},{rng.random():.3f},{row % 2},{row % 3 % 2},{row // 4}"
        for row in range(ROWS)
    ]
    (root / "log.csv").write_text("\n".join(lines) + "\n")
    (root / "own.yaml").write_text(
        "files: {train: log.csv}\ntest_fraction: 0.2\ncategorical: [country, item]\n"
        "numerical: [{name: price, log1p: true}]\nlabels: [click, buy]\ngroup: session\n"
    )
    return root


def release(root: Path) -> Path:
    """A raw AliExpress release as zips, and unzipped."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for part, columns, searches in (("user", 33, ROWS // 4), ("item", 49, ROWS)):
            ids = np.arange(searches) % (ROWS // 4)
            values = rng.integers(0, 3, (searches, columns - 1))
            rows = np.column_stack([ids, values])
            text = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
            name = f"us_{part}_{split}"
            with zipfile.ZipFile(root / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{name}.csv", text)
    return root


def targets(root: Path) -> Mapping[str, Fuzzed]:
    """All targets, below a folder."""

    def prepare_own(folder: Path, output: Path) -> None:
        prepare_store(csv_source(folder / "own.yaml"), output)

    def prepare_release(folder: Path, output: Path) -> None:
        prepare_store(aliexpress_source(folder, "us"), output)

    def read_store(folder: Path, output: Path) -> None:
        store = Store.open(folder)
        for name in SPLITS:
            split = store.split(name)
            for column, values in split.gather(np.arange(len(split))).items():
                if not np.array_equal(values, rows[name][column]):
                    raise AssertionError(f"other rows than were written: {name}, {column}")
        store.vocabulary("country")

    store = prepare_store(csv_source(own_files(root / "own") / "own.yaml"), root / "store")
    rows = {
        name: {k: v.copy() for k, v in store.split(name).gather(np.arange(len(s))).items()}
        for name, s in ((name, store.split(name)) for name in SPLITS)
    }
    shutil.copytree(root / "store", root / "options")
    release(root / "zip")
    (root / "zip of zips").mkdir()
    with zipfile.ZipFile(root / "zip of zips" / "aliexpress_US_datasets.zip", "w") as outer:
        for path in sorted((root / "zip").iterdir()):
            outer.write(path, path.name)
    return {
        "csv": Target(root / "own", ["log.csv"], prepare_own),
        "description": Target(root / "own", ["own.yaml"], prepare_own),
        "zip": Target(root / "zip", ["us_item_train.zip", "us_user_test.zip"], prepare_release),
        "zip of zips": Target(
            root / "zip of zips", ["aliexpress_US_datasets.zip"], prepare_release
        ),
        "store": Target(root / "store", ["train.arrow", "vocabulary.arrow"], read_store),
        "store schema": Target(root / "store", ["schema.json"], read_store),
        "server body": ServerTarget(mutate),
        "options": OptionTarget(Store.open(root / "options")),
    }


def example(target: Fuzzed, name: str, seed: int, number: int) -> str:
    """How an example ends: `read`, `refused`, or what is wrong about it."""
    began = time.process_time()
    ending = "read"
    try:
        target.run(random.Random(f"{name}:{seed}:{number}"))
    except UserError as error:
        ending = "refused" if "\n" not in str(error) else "a message of several lines"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        ours = [
            f for f in traceback.extract_tb(error.__traceback__) if "hyperrec_jax" in f.filename
        ]
        place = f"{Path((ours or [where])[-1].filename).name}:{(ours or [where])[-1].lineno}"
        ending = f"{type(error).__name__} at {place}: {str(error).splitlines()[:1]}"
    return (
        ending if time.process_time() - began < SLOW else f"more than {SLOW:.0f} s of the processor"
    )


def _notes(path: Path) -> str:
    """What stands below the table of an earlier run: written by hand, and kept."""
    text = path.read_text("utf-8") if path.exists() else ""
    _, heading, rest = text.partition("\n## Found and mended\n")
    return heading + rest


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--examples", type=int, default=1000, help="of each target (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--only", help="one example, as TARGET:NUMBER")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/fuzz.md")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        every = targets(Path(folder))
        if arguments.only:
            name, number = arguments.only.split(":")
            print(example(every[name], name, arguments.seed, int(number)))
            return 0
        endings: dict[str, Counter[str]] = {name: Counter() for name in every}
        for name, target in every.items():
            for number in range(arguments.examples):
                ending = example(target, name, arguments.seed, number)
                endings[name][ending] += 1
                if ending not in ("read", "refused"):
                    print(f"{name}:{number}: {ending}", flush=True)
    findings = {name: c.total() - c["read"] - c["refused"] for name, c in endings.items()}
    rows = [
        [name, *(f"{n:,}" for n in (c.total(), c["read"], c["refused"], findings[name]))]
        for name, c in endings.items()
    ]
    command = f"python -m benchmarks.fuzz --examples {arguments.examples} --seed {arguments.seed}"
    header = ["what", "examples", "read", "refused in one line", "findings"]
    arguments.output.write_text(
        f"# Fuzz\n\n`{command}`\n\n{machine(('pyarrow', 'polars'), os.cpu_count() or 1)}\n\n"
        f"{table(header, rows)}\n{_notes(arguments.output)}",
        "utf-8",
    )
    total = sum(findings.values())
    print(f"{total} findings, written to {arguments.output}")
    return int(total > 0)


if __name__ == "__main__":
    raise SystemExit(main())
