"""Preparing the raw AliExpress release against the pandas way, on a generated release.

    python benchmarks/prepare.py --rows 2000000

The pandas way is that of the multi-task libraries: `read_csv` of both files, `merge` on the search
id, a Python loop over the labels, `to_csv`. It stops at CSV files; the store is ready to train on.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

USER_COLUMNS, ITEM_COLUMNS = 33, 49
USER_IDS, ITEM_IDS = (*range(2, 9), 32, 33), (19, 34, 35, 36, 40, 41, 42)
ITEMS_A_SEARCH = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000, help="impressions (default: 300,000)")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each (default: 1)")
    parser.add_argument("--run", choices=("pandas", "store"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        {"pandas": pandas_way, "store": store_way}[arguments.run](arguments.folder)
        print(_peak_kib())
        return
    with tempfile.TemporaryDirectory() as folder:
        train, test = arguments.rows * 2 // 3, arguments.rows // 3
        generate_release(Path(folder), {"train": train, "test": test})
        print(f"{'way':<8}{'seconds':>10}{'rows/s':>12}{'peak MiB':>10}")
        seconds: dict[str, list[float]] = {"pandas": [], "store": []}
        for _ in range(arguments.rounds):
            for way, times in seconds.items():
                shutil.rmtree(Path(folder, "store"), ignore_errors=True)  # else it is kept
                # A process each: peak memory is of the process.
                start = time.perf_counter()
                output = subprocess.run(
                    [sys.executable, __file__, "--run", way, "--folder", folder],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
                times.append(time.perf_counter() - start)
                peak = int(output.split()[-1]) / 1024
                print(
                    f"{way:<8}{times[-1]:>10.1f}{arguments.rows / times[-1]:>12,.0f}{peak:>10.0f}"
                )
        medians = {way: statistics.median(times) for way, times in seconds.items()}
        print(f"ratio of medians {medians['pandas'] / medians['store']:.1f}")


def _peak_kib() -> int:
    """Peak resident memory, mapped files included; `ru_maxrss` counts the parent's as well."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status has no VmHWM")


def generate_release(folder: Path, rows: dict[str, int]) -> None:
    """Writes `us_{user,item}_{train,test}.zip` as the release has them."""
    rng = np.random.default_rng(0)
    for split, count in rows.items():
        searches = rng.permutation(count // ITEMS_A_SEARCH + 1)
        # The release's two files are not in one order.
        user = _table(rng, rng.permutation(searches), USER_COLUMNS, USER_IDS)
        item = _table(rng, np.repeat(searches, ITEMS_A_SEARCH)[:count], ITEM_COLUMNS, ITEM_IDS)
        item[ITEM_COLUMNS] = rng.choice(3, count, p=(0.97, 0.025, 0.005))
        for kind, table in (("user", user), ("item", item)):
            name = f"us_{kind}_{split}"
            table.to_csv(folder / f"{name}.csv", header=False, index=False)
            with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(folder / f"{name}.csv", f"{name}.csv")
            (folder / f"{name}.csv").unlink()


def _table(
    rng: np.random.Generator, searches: np.ndarray, columns: int, ids: tuple[int, ...]
) -> pd.DataFrame:
    table = {1: searches}
    for column in range(2, columns + 1):
        if column in ids:
            table[column] = rng.integers(0, 40, len(searches))
        else:
            table[column] = rng.random(len(searches)).round(6) * (rng.random(len(searches)) < 0.6)
    return pd.DataFrame(table)


def pandas_way(folder: Path) -> None:
    """What the processed form was made with."""
    for split in ("train", "test"):
        user = pd.read_csv(folder / f"us_user_{split}.zip", header=None)
        item = pd.read_csv(folder / f"us_item_{split}.zip", header=None)
        user.columns = ["search_id"] + [f"user_{i}" for i in range(2, USER_COLUMNS + 1)]
        item.columns = ["search_id"] + [f"item_{i}" for i in range(2, ITEM_COLUMNS + 1)]
        data = pd.merge(item, user, on="search_id", how="inner")
        click, conversion = [], []
        for label in data[f"item_{ITEM_COLUMNS}"]:
            click.append(1 if label >= 1 else 0)
            conversion.append(1 if label == 2 else 0)
        ids = [f"user_{i}" for i in USER_IDS] + [f"item_{i}" for i in ITEM_IDS]
        numbers = [
            name for name in data.columns[1:] if name not in ids and name != f"item_{ITEM_COLUMNS}"
        ]
        data = data[["search_id", *ids, *numbers]].copy()
        data["click"], data["conversion"] = click, conversion
        data.to_csv(folder / f"{split}_pandas.csv", index=False)


def store_way(folder: Path) -> None:
    from hyperrec_jax.commands.prepare import main as prepare

    prepare(
        ["aliexpress", "--input", str(folder), "--country", "us", "--output", f"{folder}/store"]
    )


if __name__ == "__main__":
    main()
