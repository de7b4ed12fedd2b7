"""Fixtures that all tests share."""

import atexit
import os
import shutil
import tempfile

# Compiling is most of what the tests do. The compiler optimises less here, takes its older way to
# code for fused operations and makes one piece of each program, which is three times as fast.
# Commands in processes of their own find the variable; the end-to-end test of training drops it.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    + " --xla_cpu_parallel_codegen_split_count=1"
)
# Compiled programs carry no call stacks, which take a sixth of the time to compile.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
# Many tests and commands compile the same programs: one run of the suite shares them. Its workers
# find the variables set.
if "PYTEST_XDIST_WORKER" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import gc
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.serving.export import export
from hyperrec_jax.training.train import train

# In CI the same examples every time, so that a change is judged by itself; elsewhere new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

ROOT = Path(__file__).resolve().parents[1]

TINY_MODEL = {
    "model.embedding_dim": 4,
    "model.bottom_widths": (8,),
    "model.tower_widths": (4,),
    "train.batch_size": 256,
    "train.epochs": 2,
    "train.steps_per_dispatch": 4,
}
"""Overrides that make a run of a second or two."""

TINY_EXPERTS = {
    **{name: {"model.num_experts": 2} for name in ("pomoe", "omoe", "mmoe")},
    "ple": {"model.num_shared_experts": 1, "model.num_task_experts": 1},
    "metaheac": {"model.num_experts": 2, "model.num_critics": 2},
    "two_tower": {
        "model.user_fields": ("country", "age"),
        "model.item_fields": ("item", "price"),
        "model.vector_width": 4,
    },
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a trained run are slow; slow ones go first, so that two processes end together."""
    for item in items:
        if "trained_run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory() -> Iterator[None]:
    """Forgets compiled programs after a file where a process has grown large."""
    global _memory_limit
    yield
    if _memory() > _memory_limit:
        jax.clear_caches()
        gc.collect()
        # Not all of it goes back to the system; and clearing costs seconds.
        _memory_limit = max(_memory_limit, _memory() + 1e9)


_memory_limit = 2.5e9


def _memory() -> int:
    """Bytes that this process holds; 0 where the system does not tell."""
    file = Path("/proc/self/statm")  # Linux
    return int(file.read_text().split()[1]) * resource.getpagesize() if file.exists() else 0


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of real data; tests that read it are skipped where it is missing."""
    folder = Path(os.environ.get("HYPERREC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set HYPERREC_TEST_DATA to run this test")
    return folder


def write_own_data(folder: Path, rows: int = 4000) -> Path:
    """Writes a small CSV log with two learnable tasks; returns its description."""
    rng = np.random.default_rng(0)
    country, item = rng.integers(0, 4, rows), rng.integers(0, 20, rows)
    price, age = rng.lognormal(size=rows), rng.normal(size=rows)
    click = rng.random(rows) < 1 / (1 + np.exp(-(country - 1.5 + 0.1 * (item - 10) + age)))
    buy = click & (rng.random(rows) < 1 / (1 + np.exp(price - 1 + 0.5 * age)))
    lines = ["country,item,price,age,click,buy,session"]
    lines += [
        f"c{c},{i},{p:.4f},{a:.4f},{int(k)},{int(b)},{row // 5}"
        for row, (c, i, p, a, k, b) in enumerate(
            zip(country, item, price, age, click, buy, strict=True)
        )
    ]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    path = folder / "own.yaml"
    path.write_text(
        "files: {train: log.csv}\ntest_fraction: 0.2\ncategorical: [country, item]\n"
        "numerical: [{name: price, log1p: true}, age]\nlabels: [click, buy]\ngroup: session\n"
    )
    return path


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """2,880 training, 320 validation and 800 test rows, or nearly; two fields, two numericals."""
    folder = tmp_path_factory.mktemp("data")
    return prepare_store(csv_source(write_own_data(folder)), folder / "store", 0.1)


def tiny_config(store: Store, preset: str = "default", **overrides: Any) -> dict[str, Any]:
    """A config for `store` that trains in a second or two; `__` stands for a dot in a key."""
    flat = {key.replace("__", "."): value for key, value in overrides.items()}
    config = defaults.get_config(preset).to_dict()
    model = flat.get("model.name", config["model"]["name"])
    tiny = {"data.store": str(store.path)} | TINY_MODEL | TINY_EXPERTS.get(model, {})
    return overridden(config, tiny | flat)


@pytest.fixture(scope="session")
def trained_run(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny PO-MoE trained on `small_store`."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_config(small_store), folder, small_store)
    return folder


@pytest.fixture(scope="session")
def exported_model(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`trained_run` exported for serving."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(trained_run, folder)
    return folder
