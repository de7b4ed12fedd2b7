"""Speed and memory against the PyTorch original, the hardware's limit, and growing inputs.

    python -m benchmarks.speed [--parts train,evaluate,curves,profile,scaling,lazy] [--threads 2]
    python -m benchmarks.speed --accelerator

Everything has the original's defaults (batch 2,048, embedding 128, 6 experts (512, 256), towers
(128, 64)) on generated rows of AliExpress' shape. Each system runs in a process of its own, on as
many threads, one at a time: every round times all of them, and the tables hold medians. Memory is
the most that a process held, compiling included, without mapped files. The machine must be quiet:
beside other work PyTorch's threads wait for one another and it falls far behind.

`--accelerator` measures instead the time of an epoch of 12 million rows that live on the device.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generate import FIELD_SIZES, NUM_NUMERICAL, write_csv, write_store
from benchmarks.measure import MIB, Local, Remote, Runner, alternate, growth_exponent, table
from benchmarks.measure import machine as describe_machine
from hyperrec_jax.data.store import Store

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")
LOADER, MEMORY = "PyTorch, loader", "PyTorch, from memory"
UNFOLDED, FOLDED = "JAX, not folded", "JAX"
PEER_SOURCES = {LOADER: "loader", MEMORY: "memory"}
FOLDS = {UNFOLDED: "never", FOLDED: "auto"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the measurement.

    Attributes:
      rows: Training rows.
      test_rows: Rows that are scored.
      field_sizes: Ids of each field.
      num_numerical: Numbers a row.
      batch_size: Rows a step.
      steps: Steps a dispatch.
      dispatches: Dispatches timed at once.
      rounds: Times that each is measured.
      grids: Numbers of preferences.
      curve_steps: Length of the loss curves.
      dim, bottom, tower, experts: The model.
      product: Side of the square matrices whose product is the limit.
      growth: By dimension, the values that it takes.
      vocabularies: Cases for lazy Adam, `(fields, ids of each, embedding width)`; other fields stay
        small.
      variants: Cases for an accelerator's epoch, `(compute_dtype, batch size, steps per call)`.
      processes: Whether each system has a process of its own.
    """

    rows: int = 100_000
    test_rows: int = 6_144
    field_sizes: tuple[int, ...] = FIELD_SIZES
    num_numerical: int = NUM_NUMERICAL
    batch_size: int = 2_048
    steps: int = 8
    dispatches: int = 2
    rounds: int = 5
    grids: tuple[int, ...] = (1, 5, 25, 100)
    curve_steps: int = 120
    dim: int = 128
    bottom: tuple[int, ...] = (512, 256)
    tower: tuple[int, ...] = (128, 64)
    experts: int = 6
    product: int = 4096
    growth: dict[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {
            "rows": (100_000, 1_000_000, 10_000_000),
            "fields": (4, 16, 64),
            "experts": (2, 4, 8, 16),
            "tasks": (1, 2, 4, 8),
            "vocabulary": (100, 1_000, 10_000, 100_000),
        }
    )
    vocabularies: tuple[tuple[int, int, int], ...] = (
        (16, 1_000, 128),
        (16, 10_000, 128),
        (16, 100_000, 128),
        (1, 1_000_000, 16),
        (1, 10_000_000, 16),
    )
    variants: tuple[tuple[str, int, int], ...] = (
        ("float32", 2_048, 64),
        ("bfloat16", 2_048, 64),
        ("bfloat16", 16_384, 16),
    )
    processes: bool = True

    def overrides(self, **others: Any) -> dict[str, Any]:
        """Values of the config by dotted key; `__` in a keyword stands for the dot."""
        return {
            "model.embedding_dim": self.dim,
            "model.bottom_widths": self.bottom,
            "model.tower_widths": self.tower,
            "model.num_experts": self.experts,
            "train.batch_size": self.batch_size,
            "train.steps_per_dispatch": self.steps,
        } | {key.replace("__", "."): value for key, value in others.items()}

    def peer_options(self, **others: Any) -> dict[str, Any]:
        """The options of the peer's model."""
        return {
            "dim": self.dim,
            "bottom": self.bottom,
            "tower": self.tower,
            "experts": self.experts,
            "rate": 0.2,
        } | others


QUICK = Settings(
    rows=1024,
    test_rows=300,
    field_sizes=(5, 3),
    num_numerical=2,
    batch_size=128,
    steps=2,
    dispatches=1,
    rounds=1,
    grids=(1, 3),
    curve_steps=4,
    dim=4,
    bottom=(8,),
    tower=(4,),
    experts=3,
    product=64,
    growth={"rows": (512, 2048)},
    vocabularies=((1, 300, 4),),
    variants=(("float32", 128, 2),),
    processes=False,
)
"""Seconds, in this process: to try the command, not for its figures."""


class Bench:
    """What the parts share: the data, the systems and how they are opened.

    Args:
      settings: Sizes.
      folder: For generated data.
      threads: Number of threads of each system.
      output: The Markdown file; pictures go beside it.
    """

    def __init__(self, settings: Settings, folder: Path, threads: int, output: Path):
        self.settings, self.folder = settings, folder
        self.threads, self.output = threads, output
        self._opened: dict[str, Runner] = {}

    @functools.cached_property
    def store(self) -> Path:
        """The generated store of AliExpress' shape, with CSV files beside it."""
        settings = self.settings
        store = self.write_store("store", settings.rows, other_rows=settings.test_rows)
        for split in ("train", "test"):
            write_csv(store.split(split), store.schema, self.folder / f"{split}.csv")
        return store.path

    def write_store(self, name: str, rows: int, **shape: Any) -> Store:
        """A generated store; `shape` goes to `generate.write_store` in place of the settings."""
        settings = self.settings
        default: dict[str, Any] = {
            "field_sizes": settings.field_sizes,
            "num_numerical": settings.num_numerical,
        }
        return write_store(self.folder / name, rows, **default | shape)

    def open(self, factory: Callable[..., Any], *arguments: Any) -> Runner:
        """A runner, in a process of its own unless the settings say otherwise."""
        kind = Remote if self.settings.processes else Local
        return kind(factory, *arguments, threads=self.threads)

    def open_jax(self, store: Path, **overrides: Any) -> Runner:
        from benchmarks.jax_runner import JaxRunner

        return self.open(JaxRunner, store, self.settings.overrides(**overrides))

    def open_peer(self, source: str, **options: Any) -> Runner:
        from benchmarks.torch_peer import TorchRunner

        return self.open(
            TorchRunner,
            self.store,
            self.folder,
            source,
            self.settings.batch_size,
            self.settings.peer_options(**options),
        )

    def system(self, name: str) -> Runner:
        """One of the compared systems, opened and warmed up at its first use."""
        if name not in self._opened:
            if name in PEER_SOURCES:
                runner = self.open_peer(PEER_SOURCES[name])
                runner("train", 2)
            else:
                runner = self.open_jax(self.store, model__fold=FOLDS[name])
                runner("train", 1)
            self._opened[name] = runner
        return self._opened[name]

    def close(self) -> dict[str, int]:
        """Ends all systems' processes; the peak memory of each system, in bytes."""
        peaks = {name: runner.close() for name, runner in self._opened.items()}
        if self.settings.processes:  # else all share a memory, and the next part may use them
            self._opened.clear()
        return peaks


def train_part(bench: Bench) -> str:
    """Training rows/s of all systems, and what bounds ours."""
    settings = bench.settings
    steps = settings.dispatches * settings.steps
    rows = steps * settings.batch_size
    works: dict[str, Callable[[], float]] = {
        name: functools.partial(bench.system(name), "train", steps) for name in PEER_SOURCES
    } | {
        name: functools.partial(bench.system(name), "train", settings.dispatches) for name in FOLDS
    }
    ours = bench.system(FOLDED)
    works["the step alone"] = lambda: ours("step_alone", settings.dispatches)
    works["reading alone"] = lambda: ours("read_alone", settings.dispatches)
    limits: list[float] = []

    def measure_limit() -> float:
        limits.append(ours("product_limit", settings.product))
        return limits[-1]

    measure_limit()
    rates = {name: rows / seconds for name, seconds in alternate(works, settings.rounds).items()}
    measure_limit()
    limit = max(limits)
    flops = {name: bench.system(name)("product_flops") for name in FOLDS}
    flops |= dict.fromkeys(PEER_SOURCES, flops[UNFOLDED])
    flops["the step alone"] = flops[FOLDED]
    peaks = bench.close()
    lines = []
    for name, rate in rates.items():
        share = f"{rate * flops[name] / limit:.0%}" if name in flops else ""
        lines.append(
            (
                name,
                f"{rate:,.0f}",
                f"{rate / rates[LOADER]:.2f}",
                f"{rate / rates[MEMORY]:.2f}",
                f"{flops[name] / 1e6:.2f}" if name in flops else "",
                share,
                f"{peaks[name] / MIB:,.0f}" if name in peaks else "",
            )
        )
    header = (
        "system", "rows/s", "x loader", "x memory", "MFLOP a row in products",
        "of the product limit", "peak MiB",
    )  # fmt: skip
    return (
        f"## Training\n\n{table(header, lines)}\n\n"
        f"Batch {settings.batch_size:,}, {settings.rows:,} rows in the store and in the CSV file. "
        f"The limit: a float32 matrix product of side {settings.product:,} reaches "
        f"{limit / 1e9:.0f} GFLOP/s, with which the products of the folded step alone would "
        f"take {limit / flops[FOLDED]:,.0f} rows/s."
    )


def evaluate_part(bench: Bench) -> str:
    """Row-preferences/s of all systems by size of the grid."""
    settings = bench.settings
    names = [*PEER_SOURCES, *FOLDS]
    for name in PEER_SOURCES:
        bench.system(name)("prepare_evaluation")
    for name in FOLDS:  # compiles
        for grid in settings.grids:
            bench.system(name)("evaluate", grid)
    seconds = {
        grid: alternate(
            {name: functools.partial(bench.system(name), "evaluate", grid) for name in names},
            min(settings.rounds, 3),
        )
        for grid in settings.grids
    }
    peaks = bench.close()
    rates = {
        name: [settings.test_rows * grid / seconds[grid][name] for grid in settings.grids]
        for name in names
    }
    lines = [
        (
            name,
            *(f"{rate:,.0f}" for rate in rates[name]),
            *(f"{r / p:.1f}" for r, p in zip(rates[name], rates[LOADER], strict=True)),
            f"{peaks[name] / MIB:,.0f}",
        )
        for name in names
    ]
    header = (
        "row-preferences/s",
        *(f"{grid} preferences" for grid in settings.grids),
        *(f"x loader, {grid}" for grid in settings.grids),
        "peak MiB",
    )
    first, last = settings.grids[0], settings.grids[-1]
    return (
        f"## Evaluation\n\n{table(header, lines)}\n\n"
        f"{settings.test_rows:,} rows, metrics included. {last} preferences take "
        f"{seconds[last][FOLDED] / seconds[first][FOLDED]:.2f} times as long as {first}."
    )


def curves_part(bench: Bench) -> str:
    """Loss curves of both from the same weights, on the same batches and preferences."""
    settings = bench.settings
    curves, lines = {}, []
    variants: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "without dropout": ({"rate": 0.0}, {"model__dropout": 0.0, "model__gate_dropout": 0.0}),
        "with dropout, drawn apart": ({}, {}),
    }
    for title, (rates, overrides) in variants.items():
        peer = bench.open_peer("memory", **rates)
        ours = bench.open_jax(bench.store, **overrides)
        losses, preferences = ours("curve", peer("weights"), settings.curve_steps)
        theirs = peer("curve", 0, preferences)
        for runner in (peer, ours):
            runner.close()
        curves[title] = theirs, losses
        window = min(10, settings.curve_steps)
        smooth = [_running_mean(curve, window) for curve in (theirs, losses)]
        lines.append(
            (
                title,
                f"{np.abs(theirs[0] - losses[0]).max():.1e}",
                f"{np.abs(theirs - losses).max():.1e}",
                f"{np.abs(smooth[0] - smooth[1]).max():.1e}",
                f"{smooth[0][-1].mean():.4f}",
                f"{smooth[1][-1].mean():.4f}",
            )
        )
    picture = bench.output.with_name(f"{bench.output.stem}_curves.png")
    _draw_curves(curves, picture)
    header = (
        "largest difference", "first step", "all steps", f"mean of {window} steps",
        "last, PyTorch", "last, JAX",
    )  # fmt: skip
    return (
        f"## Loss curves\n\n{table(header, lines)}\n\n"
        f"{settings.curve_steps} steps from the same weights, on the same batches and preferences; "
        f"the cross-entropy of each goal.\n\n![Loss curves]({picture.name})"
    )


def _running_mean(curve: np.ndarray, window: int) -> np.ndarray:
    total = np.cumsum(np.concatenate([np.zeros((1, curve.shape[1])), curve]), axis=0)
    return (total[window:] - total[:-window]) / window


def _draw_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (title, pair) in zip(
        figure.subplots(1, len(curves), sharey=True), curves.items(), strict=True
    ):
        for curve, name, style in zip(pair, ("PyTorch", "JAX"), ("-", "--"), strict=True):
            for task in range(curve.shape[1]):
                axes.plot(curve[:, task], style, color=f"C{task}", label=f"goal {task + 1}, {name}")
        axes.set(title=title, xlabel="step")
    axes.figure.axes[0].set_ylabel("cross-entropy")
    axes.legend()
    FigureCanvasAgg(figure).print_png(path)


def profile_part(bench: Bench) -> str:
    """Where the time of our step goes."""
    pieces, seconds = bench.system(FOLDED)("profile", bench.settings.dispatches)
    bench.close()
    lines = [(piece.name, f"{1e3 * piece.seconds:.1f}", f"{piece.share:.0%}") for piece in pieces]
    return (
        f"## Where the step's time goes\n\n{table(('part', 'ms', 'share'), lines)}\n\n"
        f"A step takes {1e3 * seconds:.0f} ms under XLA's trace, which times every operation on "
        "every thread; a part's time is that of all threads over their number."
    )


def scaling_part(bench: Bench) -> str:
    """Rows/s and memory for growing inputs, with the fitted growth."""
    lines = []
    for dimension, values in bench.settings.growth.items():
        results = [_grown(bench, dimension, value) for value in values]
        costs, peaks = zip(*results, strict=True)
        exponents = growth_exponent(values, costs), growth_exponent(values, peaks)
        for value, cost, peak in zip(values, costs, peaks, strict=True):
            fitted = (f"{b:.2f}" if value == values[-1] else "" for b in exponents)
            lines.append(
                (dimension, f"{value:,}", f"{1 / cost:,.0f}", f"{peak / MIB:,.0f}", *fitted)
            )
    header = (
        "growing", "value", "rows/s", "peak MiB", "seconds a row ~ value^", "memory ~ value^",
    )  # fmt: skip
    return (
        f"## Growth\n\n{table(header, lines)}\n\n"
        "From the store through the pipeline; the other dimensions stay at the defaults (`fields` "
        "of 50 ids each, `vocabulary`: ids of each field)."
    )


def _grown(bench: Bench, dimension: str, value: int) -> tuple[float, int]:
    """Seconds a row and peak memory of training with one dimension at a value."""
    settings = bench.settings
    rows = max(16, settings.steps) * settings.batch_size
    shape: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    if dimension == "rows":
        rows = value
    elif dimension == "fields":
        shape["field_sizes"] = (50,) * value
    elif dimension == "experts":
        overrides["model__num_experts"] = value
    elif dimension == "tasks":
        shape["num_tasks"] = value
        overrides["sampler__concentration"] = tuple(np.resize((1.0, 1.2), value).tolist())
    elif dimension == "vocabulary":
        shape["field_sizes"] = (value,) * len(settings.field_sizes)
    store = bench.write_store("grown", rows, **shape)
    result = _trained(bench, store, **overrides)
    shutil.rmtree(store.path)
    return result


def _trained(bench: Bench, store: Store, **overrides: Any) -> tuple[float, int]:
    """Seconds a row and peak memory of training on a store."""
    settings = bench.settings
    runner = bench.open_jax(store.path, **overrides)
    runner("train", 1)
    seconds = statistics.median(runner("train", 1) for _ in range(settings.rounds))
    return seconds / (settings.steps * settings.batch_size), runner.close()


def lazy_part(bench: Bench) -> str:
    """Training with large vocabularies, Adam dense and lazy."""
    settings = bench.settings
    lines = []
    for fields, ids, dim in settings.vocabularies:
        store = bench.write_store(
            "vocabulary",
            max(16, settings.steps) * settings.batch_size,
            field_sizes=(ids,) * fields + settings.field_sizes[fields:],
        )
        (dense, dense_peak), (lazy, lazy_peak) = (
            _trained(bench, store, model__embedding_dim=dim, optimizer__lazy_rows=lazy_rows)
            for lazy_rows in (0, 1)
        )
        shutil.rmtree(store.path)
        lines.append(
            (
                f"{fields} x {ids:,}, width {dim}",
                f"{1e3 * settings.batch_size * dense:,.0f}",
                f"{1e3 * settings.batch_size * lazy:,.0f}",
                f"{dense / lazy:.1f}",
                f"{dense_peak / MIB:,.0f}",
                f"{lazy_peak / MIB:,.0f}",
            )
        )
    header = (
        "fields x ids", "ms a step, dense", "ms a step, lazy", "dense / lazy",
        "peak MiB, dense", "peak MiB, lazy",
    )  # fmt: skip
    return (
        f"## Lazy Adam\n\n{table(header, lines)}\n\n"
        f"Batch {settings.batch_size:,}, ids drawn evenly; the other fields are small. Lazy: "
        "`optimizer.lazy_rows=1`, so that every field with more ids than a batch has rows is."
    )


def accelerator_part(bench: Bench) -> str:
    """Time of an epoch whose rows live on the device, and evaluation there."""
    settings = bench.settings
    store = bench.write_store("store", settings.rows, other_rows=settings.test_rows).path
    lines = []
    for dtype, batch_size, steps in settings.variants:
        options: dict[str, Any] = {
            "model__compute_dtype": dtype,
            "train__batch_size": batch_size,
            "train__steps_per_dispatch": steps,
        }
        runner = bench.open_jax(store, data__resident="always", **options)
        runner("train", 1)
        epoch = runner("epoch")
        limit = runner("product_limit", 2 * settings.product)
        share = settings.rows / epoch * runner("product_flops") / limit
        scoring = []
        for grid in settings.grids:
            runner("evaluate", grid)
            scoring.append(settings.test_rows * grid / runner("evaluate", grid))
        device, device_bytes = runner("description")
        runner.close()
        streaming = bench.open_jax(store, data__resident="never", **options)
        streaming("train", 1)
        streamed = (
            settings.dispatches * steps * batch_size / streaming("train", settings.dispatches)
        )
        streaming.close()
        lines.append(
            (
                f"{dtype}, batch {batch_size:,}",
                f"{epoch:.2f}",
                f"{settings.rows / epoch:,.0f}",
                f"{streamed:,.0f}",
                f"{share:.0%} of {limit / 1e12:,.3f}",
                "" if math.isnan(device_bytes) else f"{device_bytes / MIB:,.0f}",
                *(f"{rate:,.0f}" for rate in scoring),
            )
        )
    header = (
        "variant", "s an epoch", "rows/s", "rows/s streamed from the store",
        "of the product limit, TFLOP/s", "device peak MiB",
        *(f"row-preferences/s, grid {grid}" for grid in settings.grids),
    )  # fmt: skip
    return (
        f"## {device}: an epoch of {settings.rows:,} rows on the device\n\n{table(header, lines)}"
        f"\n\n{len(settings.field_sizes)} fields, {settings.num_numerical} numericals; ids as the "
        "store has them, numericals in the variant's type; the order of the rows is drawn anew "
        "each epoch. "
        f"Evaluation: {settings.test_rows:,} rows streamed from the store, metrics included."
    )


PARTS: dict[str, Callable[[Bench], str]] = {
    "train": train_part,
    "evaluate": evaluate_part,
    "curves": curves_part,
    "profile": profile_part,
    "scaling": scaling_part,
    "lazy": lazy_part,
}


@contextlib.contextmanager
def _working_folder(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        yield Path(temporary)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints each table as it is done, and writes all of them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of each system (default: 2)")
    parser.add_argument("--accelerator", action="store_true", help="an epoch on the device instead")
    parser.add_argument("--rows", type=int, help="training rows (default: 100,000; 12,000,000)")
    parser.add_argument("--rounds", type=int, help="times that each is measured (default: 5)")
    parser.add_argument("--growth", help="dimensions of the part scaling (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the command")
    parser.add_argument("--folder", type=Path, help="where temporary data goes (up to 3.5 GB)")
    parser.add_argument("--output", type=Path, help="the Markdown file (default: in results/)")
    options = parser.parse_args(arguments)
    parts = {"accelerator": accelerator_part} if options.accelerator else PARTS
    chosen = list(parts) if options.accelerator else options.parts.split(",")
    if unknown := set(chosen) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")

    settings = QUICK if options.quick else Settings()
    threads = options.threads
    if options.accelerator:
        threads = os.cpu_count() or 1
        if not options.quick:
            settings = dataclasses.replace(settings, rows=12_000_000, test_rows=262_144)
    if options.rows:
        settings = dataclasses.replace(settings, rows=options.rows)
    if options.rounds:
        settings = dataclasses.replace(settings, rounds=options.rounds)
    if options.growth:
        wanted = options.growth.split(",")
        if unknown := set(wanted) - set(settings.growth):
            parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(settings.growth)}")
        growth = {name: settings.growth[name] for name in wanted}
        settings = dataclasses.replace(settings, growth=growth)
    name = "speed_accelerator.md" if options.accelerator else "speed.md"
    output = options.output or RESULTS / name
    output.parent.mkdir(parents=True, exist_ok=True)
    sections = ["# Speed", describe_machine(PACKAGES, threads)]
    print(sections[-1], flush=True)
    with _working_folder(options.folder) as folder:
        bench = Bench(settings, folder, threads, output)
        for part in chosen:
            sections.append(parts[part](bench))
            print(f"\n{sections[-1]}", flush=True)
            output.write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    main()
