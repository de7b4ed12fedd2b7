"""Does the front obey the preference? Objectives and conditionings against an oracle.

    python -m benchmarks.fronts [--data census_income_kdd.csv.gz] [--datasets ...] [--variants ...]

Every variant is one model for all preferences, trained on synthetic data of low, medium and high
conflict and, with `--data`, on the census. The oracle is a plain mixture of experts with the same
trunk, trained apart for each preference (`benchmarks/oracle.py`). Where the trunk can serve
every goal at once nothing trades off; the synthetic models therefore hand their towers one number
per row.

Complete runs are read, not repeated: start the same command again after a stop. Validation rows
select the epoch; all figures are of the test rows, from a grid of 25 preferences, the mean over the
seeds:
  hypervolume    of 1 - AUC from (1, 1)
  % of oracle    hypervolume of the log losses from 1.1, where the oracle's run from 0 to 1, in per
                 cent of the oracle's; and the 95% interval of a paired bootstrap
  non-dominated  part of the grid, by AUC, by log loss, and by log loss where dominance must be
                 beyond noise
  Spearman       of log loss and weight, of the goal that obeys least; -1 obeys
  covered        part of the oracle's range of log loss, of the goal that it covers least
  time           of a training step, over that of the plain mixture of experts, both in turn
  share          of the parameters that depend on the preference
"""

import argparse
import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from benchmarks.oracle import train_apart
from benchmarks.parts import make_parts
from benchmarks.stores import open_or_prepare
from hyperrec_jax import models
from hyperrec_jax.commands import cli
from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import overridden
from hyperrec_jax.data import files
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import metrics, pareto
from hyperrec_jax.evaluation.bootstrap import bootstrap, interval
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.reports import tables as report
from hyperrec_jax.training import train as runner
from hyperrec_jax.training import workdir
from hyperrec_jax.training.dispatch import make_dispatch
from hyperrec_jax.training.trained import load_trained

GRID = 25
RESAMPLES = 200
ROUNDS = 9
REFERENCE = 1.1
Overrides = dict[str, Any]

NARROW: Overrides = {
    "model.embedding_dim": 8,
    "model.bottom_widths": (32, 1),
    "model.tower_widths": (16,),
    "model.num_experts": 6,
    "model.code_widths": (16, 16),
    "model.dropout": 0.0,
    "optimizer.learning_rate": 3e-3,
    "optimizer.schedule": "cosine",
    "train.epochs": 4,
    "train.steps_per_dispatch": 29,  # a third of an epoch
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Where a front is looked for.

    Attributes:
      arguments: Of `hyperrec prepare`.
      trunk: Overrides that all models share.
      oracle_preferences: Models of the oracle.
      together: How many of these are trained side by side.
    """

    arguments: tuple[str, ...]
    trunk: Overrides
    oracle_preferences: int
    together: int


DATASETS = {
    **{
        f"synthetic_{level}": Dataset(("synthetic", "--conflict", str(conflict)), NARROW, GRID, 25)
        for level, conflict in (("low", 0.1), ("medium", 0.5), ("high", 0.85))
    },
    # The trunk of the original, which serves both goals.
    "synthetic_wide": Dataset(
        ("synthetic", "--conflict", "0.5"),
        {"model.num_experts": 6, "optimizer.learning_rate": 1e-3, "train.epochs": 3},
        oracle_preferences=3,
        together=1,
    ),
    "census": Dataset(
        ("census-income",),
        {
            "model.num_experts": 9,  # as many as ple has
            "model.num_shared_experts": 3,
            "model.num_task_experts": 3,
            "optimizer.learning_rate": 2e-3,
            "optimizer.schedule": "cosine",
            "train.epochs": 4,
        },
        oracle_preferences=3,
        together=1,
    ),
}

ORIGINAL: Overrides = {"preset": "original", "model.code_widths": (64, 256, 64)}
NO_COSINE: Overrides = {"objective.name": "linear", "objective.weight": None}
PLAIN: Overrides = {
    "model.name": "omoe",
    "objective.name": "uniform",
    "normaliser.name": "entropy",
}
"""The plain mixture of experts: the same trunk, one gate, no preference."""

ABLATION: dict[str, Overrides] = {
    "original": ORIGINAL,
    "+ no cosine": ORIGINAL | NO_COSINE,
    "+ losses over entropy": ORIGINAL | {"normaliser.name": "entropy"},
    "+ no cosine, losses over entropy": ORIGINAL | NO_COSINE | {"normaliser.name": "entropy"},
    # Batch norm then has all preferences in every batch, as it has in evaluation.
    "+ no cosine, one preference per row": ORIGINAL
    | NO_COSINE
    | {"train.preferences": None, "train.preference_per_row": True},
    "+ one gate per goal": ORIGINAL | {"model.gate_scope": "per_task"},
    "+ no dropout of generated weights": ORIGINAL | {"model.gate_dropout": 0.0},
    "+ softmax gate": ORIGINAL | {"model.gate_activation": "softmax"},
    "+ film on towers": ORIGINAL | {"model.tower_adapter": "film"},
    "+ 8 stratified preferences": ORIGINAL
    | {"train.preferences": 8, "sampler.name": "stratified", "sampler.concentration": 1.0},
    "+ anchored experts, softmax": ORIGINAL
    | {"model.gate_anchors": True, "model.gate_activation": "softmax"},
    "default - anchored experts": {"model.gate_anchors": False},
    "default - towers alike": {"model.towers_alike": False},
    "default - film on towers": {"model.tower_adapter": "none"},
    "default - pooled norm": {"model.norm": "batch"},
    "default - losses over entropy": {"normaliser.name": "none"},
    "default - preferences near the ends": {"sampler.concentration": 1.0},
    "default - preferences that cover the simplex": {"sampler.name": "dirichlet"},
    "default - one preference per batch": {"train.preferences": 1},
    "default - 8 preferences per batch": {"train.preferences": 8},
    "default - one preference per row": {"train.preference_per_row": True},
}
FRONT = {"normaliser.name": "front", "train.preferences": 8}
OBJECTIVES: dict[str, Overrides] = {
    "linear, front": FRONT,
    "linear, order": {"objective.order": 1.0},
    "cosine": {"objective.name": "cosine"},
    "chebyshev, front": FRONT | {"objective.name": "chebyshev"},
    "smooth_chebyshev, front": FRONT
    | {"objective.name": "smooth_chebyshev", "objective.temperature": 0.2},
    "hypervolume": {
        "objective.name": "hypervolume",
        "objective.weight": 0.05,
        "train.preferences": 16,
    },
    "epo": {"objective.name": "epo"},
    "pareto_mtl": {"objective.name": "pareto_mtl"},
}
CONDITIONINGS: dict[str, Overrides] = {
    "gate: generated layers": {"model.gate": "features"},
    "gate: preference alone": {"model.gate": "preference"},
    "gate: attention": {"model.gate": "attention"},
    "gate: depth 3": {"model.gate_depth": 3, "model.gate_hidden_relu": True},
    "gate: relu": {"model.gate_activation": "relu"},
    "gate: top 2": {"model.gate_activation": "top_k"},
    "gate: one per goal": {"model.gate_scope": "per_task"},
    "towers: low rank": {"model.tower_adapter": "low_rank"},
    "towers: read the preference": {
        "model.tower_adapter": "none",
        "model.preference_input": True,
    },
    "experts: low rank": {"model.expert_adapter": "low_rank"},
    "experts: film": {"model.expert_adapter": "film"},
    "experts: residual": {"model.expert_block": "residual"},
    "experts: cross": {"model.expert_block": "cross"},
    "phn": {"model.name": "phn"},
    "cosmos": {"model.name": "cosmos"},
}
UNCONDITIONED = {
    name: PLAIN | {"model.name": name} for name in ("singletask", "sharedbottom", "mmoe", "ple")
}
VARIANTS: dict[str, Overrides] = {"default": {}, "plain": PLAIN} | UNCONDITIONED
VARIANTS |= ABLATION | OBJECTIVES | CONDITIONINGS
PRODUCT: dict[str, Overrides] = {
    f"{objective} / {conditioning}": OBJECTIVES[objective] | CONDITIONINGS[conditioning]
    for objective, conditioning in itertools.product(OBJECTIVES, CONDITIONINGS)
}
VARIANTS |= PRODUCT
GROUPS = {
    "main": ("default", "gate: one per goal", "original", "plain"),
    "unconditioned": tuple(UNCONDITIONED),
    "ablation": tuple(ABLATION),
    "objectives": tuple(OBJECTIVES),
    "conditionings": tuple(CONDITIONINGS),
    "product": tuple(PRODUCT),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained variant on the test rows.

    Attributes:
      log_loss, auc: `[preference, goal]`.
      logits: `[preference, goal, row]`.
      share: Part of the parameters that depend on the preference.
    """

    log_loss: np.ndarray
    auc: np.ndarray
    logits: np.ndarray
    share: float


def make_config(overrides: Overrides, trunk: Overrides, seed: int) -> dict[str, Any]:
    """The nested config of a variant on a trunk; options that its model lacks are left out."""
    config = defaults.get_config(overrides.get("preset", "default"))
    changes = trunk | {key: value for key, value in overrides.items() if key != "preset"}
    settings = {"seed": seed, "train.patience": 0, "train.grid": 5}
    result = overridden(config.to_dict(), changes | settings)
    known = {"name", *models.model_options(result["model"]["name"])}
    result["model"] = {key: value for key, value in result["model"].items() if key in known}
    return result


def run(name: str, dataset: str, seed: int, store: Store, folder: Path) -> Run:
    """Trains and scores a variant, or reads its result."""
    path = folder / "result.npz"
    if not path.exists():
        config = make_config(VARIANTS[name], DATASETS[dataset].trunk, seed)
        runner.train(config, folder, store)
        trained = load_trained(folder)
        front, scores = trained.score(store, "test", GRID)
        with files.written_whole(path) as file:
            np.savez(
                file,
                log_loss=front.log_loss,
                auc=front.auc,
                logits=scores.logits,
                share=models.preference_share(trained.network, trained.variables["params"]),
            )
    with np.load(path) as arrays:
        return Run(
            **{key: arrays[key] for key in ("log_loss", "auc", "logits")},
            share=float(arrays["share"]),
        )


def training_time(name: str, dataset: str, store: Store, folder: Path) -> float:
    """Time of a training step over that of the plain mixture, both in turn; measured or read."""
    path = folder / "time.json"
    if not path.exists():
        works = {
            key: _steps(make_config(VARIANTS[key], DATASETS[dataset].trunk, 0), store)
            for key in ("plain", name)
        }
        seconds = measure.alternate(works, ROUNDS)
        workdir.write_json(path, {"ratio": seconds[name] / seconds["plain"]})
    return float(json.loads(path.read_text("utf-8"))["ratio"])


def _steps(config: dict[str, Any], store: Store) -> Callable[[], float]:
    """What trains on one and the same dispatch, and returns the seconds that it took."""
    training = make_parts(config, store)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, training.template)
    dispatch = make_dispatch(training.step, shardings)
    batches = jax.device_put(training.reader.read(0, config["train"]["steps_per_dispatch"]))
    state = training.init()

    def train() -> None:
        nonlocal state
        state = jax.block_until_ready(dispatch(state, batches)[0])

    train()  # compiles
    return lambda: measure.timed(train)


def oracle(dataset: str, seed: int, store: Store, folder: Path) -> np.ndarray:
    """Test logits `[preference, goal, row]` of the models trained apart, trained or read.

    After the first seed only some preferences are trained, to tell the spread over seeds.
    """
    path = folder / f"oracle_{seed}.npy"
    settings = DATASETS[dataset]
    if not path.exists():
        config = make_config(PLAIN | {"objective.name": "linear"}, settings.trunk, seed)
        config["sampler"] |= {"name": "fixed", "preferences": (1.0,) * store.schema.num_tasks}
        preferences = oracle_preferences(dataset, seed, store.schema.num_tasks)
        logits = train_apart(config, store, preferences, settings.together)
        folder.mkdir(parents=True, exist_ok=True)
        with files.written_whole(path) as file:
            np.save(file, logits)
    return np.load(path)


def oracle_preferences(dataset: str, seed: int, num_tasks: int) -> np.ndarray:
    """The preferences of the oracle's models, `[preference, goal]`.

    All of them for the first seed; for each later one only both ends and the middle.
    """
    preferences = evaluation_grid(num_tasks, DATASETS[dataset].oracle_preferences)
    return preferences if seed == 0 else preferences[_few(preferences)]


@dataclasses.dataclass(frozen=True)
class Oracle:
    """Models trained apart, on the test rows.

    Attributes:
      labels: `[goal, row]`.
      preferences: Their preferences, `[preference, goal]`.
      log_loss, auc: `[preference, goal]`.
      samples: Log losses on the resamples of the bootstrap, `[resample, preference, goal]`.
      conflict: Whether the front is more than noise of training.
    """

    labels: np.ndarray
    preferences: np.ndarray
    log_loss: np.ndarray
    auc: np.ndarray
    samples: np.ndarray
    conflict: pareto.Conflict

    @property
    def ends(self) -> np.ndarray:
        """Losses of the first and the last model and, between, of what suits each other goal."""
        return self.log_loss[self.log_loss.argmin(axis=0)]


def volume(losses: np.ndarray, oracle: np.ndarray) -> float:
    """Hypervolume of losses `[preference, goal]`, where the oracle's `[model, goal]` are 0 to 1."""
    best, span = oracle.min(axis=0), np.ptp(oracle, axis=0)
    return pareto.hypervolume((losses - best) / span, REFERENCE)


def read_oracle(dataset: str, seeds: int, store: Store, folder: Path) -> Oracle:
    """The oracle of all seeds, trained or read; seed 0 is the front."""
    test = store.split("test")
    labels = test.slice(0, len(test))["labels"].T
    logits = [oracle(dataset, seed, store, folder) for seed in range(seeds)]
    scores = [Scores(values, labels) for values in logits]
    losses = [score.table(metrics.log_loss) for score in scores]
    ends_and_middle = [loss if seed else loss[_few(loss)] for seed, loss in enumerate(losses)]
    return Oracle(
        labels,
        oracle_preferences(dataset, 0, store.schema.num_tasks),
        losses[0],
        scores[0].table(metrics.auc),
        bootstrap(labels, logits[0], resamples=RESAMPLES).loss,
        pareto.conflict_test(np.stack(ends_and_middle)),
    )


def summarise(
    names: Sequence[str], dataset: str, seeds: int, store: Store, folder: Path, *, timed: bool
) -> tuple[list[list[Any]], dict[str, Run], Oracle]:
    """Rows of the table, the runs of seed 0 by name, and the oracle."""
    truth = read_oracle(dataset, seeds, store, folder)
    preferences = evaluation_grid(store.schema.num_tasks, GRID)
    whole = volume(truth.log_loss, truth.log_loss)
    all_runs = {
        name: [
            run(name, dataset, seed, store, folder / _slug(name) / str(seed))
            for seed in range(seeds)
        ]
        for name in dict.fromkeys(["plain", *names])
    }
    rows: list[list[Any]] = [
        [
            f"oracle, {len(truth.log_loss)} models",
            pareto.hypervolume(1 - truth.auc, 1.0),
            "100",
            pareto.non_dominated_fraction(1 - truth.auc),
            pareto.non_dominated_fraction(truth.log_loss),
            pareto.non_dominated_fraction(truth.log_loss, truth.samples),
            pareto.preference_correlation(truth.preferences, truth.log_loss).max(),
            1.0,
            *truth.auc.max(axis=0).tolist(),
            "-",
            "-",
        ]
    ]
    for name, runs in all_runs.items():
        samples = [bootstrap(truth.labels, run.logits, resamples=RESAMPLES).loss for run in runs]
        ratios = [
            np.mean([volume(points, apart) for points in same]) / volume(apart, apart)
            for *same, apart in zip(*samples, truth.samples, strict=True)
        ]
        low, high = interval(np.array(ratios))
        mean = np.mean([volume(run.log_loss, truth.log_loss) for run in runs]) / whole
        obedience = [
            pareto.preference_correlation(preferences, run.log_loss).max()
            for run in runs
            if len(run.log_loss) == len(preferences)
        ]
        rows.append(
            [
                name,
                _mean(pareto.hypervolume(1 - run.auc, 1.0) for run in runs),
                f"{mean:.1%} [{low:.1%}, {high:.1%}]",
                _mean(pareto.non_dominated_fraction(1 - run.auc) for run in runs),
                _mean(pareto.non_dominated_fraction(run.log_loss) for run in runs),
                _mean(
                    pareto.non_dominated_fraction(run.log_loss, same)
                    for run, same in zip(runs, samples, strict=True)
                ),
                _mean(obedience) if obedience else None,
                _mean(pareto.range_covered(run.log_loss, truth.ends).min() for run in runs),
                *np.mean([run.auc.max(axis=0) for run in runs], axis=0).tolist(),
                f"{training_time(name, dataset, store, folder / _slug(name)):.2f}"
                if timed
                else None,
                f"{runs[0].share:.1%}",
            ]
        )
    return rows, {name: runs[0] for name, runs in all_runs.items()}, truth


def _few(preferences: np.ndarray) -> list[int]:
    """Ends and middle of a grid."""
    return [0, len(preferences) // 2, len(preferences) - 1]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def section(dataset: str, rows: list[list[Any]], truth: Oracle, tasks: Sequence[str]) -> str:
    """The table of a data set, under what the conflict test says."""
    header = [
        "variant", "hypervolume", "% of oracle", "non-dominated, AUC", "log loss", "beyond noise",
        "Spearman",
        "covered", *(f"best AUC {task}" for task in tasks), "time", "share",
    ]  # fmt: skip
    spans = ", ".join(
        f"{task} {span:.4f} (deviation over seeds {deviation:.4f})"
        for task, span, deviation in zip(
            tasks, truth.conflict.span, truth.conflict.deviation, strict=True
        )
    )
    verdict = (
        "The goals trade off"
        if truth.conflict.found
        else "No trade-off beyond three deviations: an order of the preferences here is noise"
    )
    return (
        f"## {dataset}\n\n{verdict}. Span of the oracle's log loss: {spans}.\n\n"
        f"{report.table(header, rows)}"
    )


def draw(fronts: dict[str, tuple[Oracle, dict[str, Run]]], path: Path) -> None:
    """The fronts of a few variants, one panel a data set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(fronts), 4.4), layout="constrained")
    panels = figure.subplots(1, len(fronts), squeeze=False)[0]
    for axes, (dataset, (truth, runs)) in zip(panels, fronts.items(), strict=True):
        axes.plot(*truth.auc[:, :2].T, "k+", markersize=9, label="oracle: one model per preference")
        for name, style in (("default", "o"), ("original", "s"), ("plain", "*")):
            if name in runs:
                axes.plot(*runs[name].auc[:, :2].T, style, markersize=5, alpha=0.8, label=name)
        axes.set(xlabel="test AUC, goal 1", ylabel="test AUC, goal 2", title=dataset)
        axes.grid(alpha=0.3)
    panels[0].legend(loc="lower left", frameon=False)
    FigureCanvasAgg(figure).print_png(path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.fronts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--data", type=Path, help="the census file; without it, no census")
    result.add_argument("--datasets", default="all", help=f"of {', '.join(DATASETS)}")
    result.add_argument(
        "--variants",
        default="main",
        help=f"names, or groups of {', '.join(GROUPS)}, semicolons between",
    )
    result.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1, at least 2")
    result.add_argument(
        "--no-time", action="store_false", dest="time", help="do not time a training step"
    )
    result.add_argument("--output", type=Path, default=Path("runs/fronts"))
    result.add_argument("--results", type=Path, default=Path("benchmarks/results/fronts.md"))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    command = "python -m benchmarks.fronts " + " ".join(argv or sys.argv[1:])
    if arguments.seeds < 2:
        raise UserError("--seeds: the conflict test needs at least 2")
    names: list[str] = []
    for name in arguments.variants.split(";"):
        names += GROUPS.get(name, (name,))
    every = [name for name in DATASETS if name != "census" or arguments.data]
    datasets = every if arguments.datasets == "all" else arguments.datasets.split(",")
    for kind, chosen, known in (("variant", names, VARIANTS), ("data set", datasets, DATASETS)):
        if unknown := set(chosen) - set(known):
            raise UserError(f"no {kind} {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    versions = ", ".join(f"{key} {value}" for key, value in workdir.versions().items())
    sections = [f"# Fronts\n\n`{command}`\n\n{versions}"]
    fronts = {}
    for dataset in datasets:
        store = prepare_store(dataset, arguments.data, arguments.output)
        folder = arguments.output / dataset
        rows, firsts, truth = summarise(
            names, dataset, arguments.seeds, store, folder, timed=arguments.time
        )
        fronts[dataset] = truth, firsts
        sections.append(section(dataset, rows, truth, store.schema.tasks))
        print(f"\n{sections[-1]}", flush=True)
        picture = arguments.results.with_suffix(".png")
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        draw(fronts, picture)
        text = [*sections, f"![Fronts]({picture.name})"]
        arguments.results.write_text("\n\n".join(text) + "\n", "utf-8")
    return 0


def prepare_store(dataset: str, data: Path | None, output: Path) -> Store:
    """Opens the store of a data set, after preparing it where it is missing."""
    if dataset != "census":
        data = None
    elif data is None:
        raise UserError("census: --data is missing, the file of Census-Income KDD")
    return open_or_prepare(output / "stores" / dataset, DATASETS[dataset].arguments, data)


if __name__ == "__main__":
    cli.exit_on_user_error(main)
