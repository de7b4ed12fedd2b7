"""Trains and evaluates all models on all data sets, and writes one table.

    python -m benchmarks.reproduce --data DIR --datasets census_income,aliexpress_nl \\
        --models all --seeds 5

`DIR` holds what `hyperrec prepare` takes as `--input` (for AliExpress the downloaded
archives, for the census its files). Runs that are complete are read, not repeated: start the same
command again after a stop. Every figure of ours in the table was measured by this command; the
published ones stand beside them.
"""

import argparse
import dataclasses
import importlib
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.stores import open_or_prepare
from hyperrec_jax import models
from hyperrec_jax.commands import cli
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.reports import tables as report
from hyperrec_jax.training import workdir
from hyperrec_jax.training.log import read_metrics
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained

SOURCES = {
    "census_income": ["census-income"],
    **{f"aliexpress_{c}": ["aliexpress", "--country", c] for c in ("nl", "es", "fr", "us", "ru")},
}
ALIASES = {"census": "census_income"}
FUNNELS = tuple(name for name in SOURCES if name.startswith("aliexpress"))
FUNNEL_MODELS = ("esmm",)
"""Models that take goal 2 for an event after goal 1; elsewhere they mean nothing."""

# AUC of click and of conversion among all impressions (CTCVR). Netherlands, Spain and France:
# MTReclib; USA: Hyper-Recommendation.
PUBLISHED = {
    "aliexpress_nl": {
        "singletask": (0.7222, 0.8590),
        "sharedbottom": (0.7228, 0.8511),
        "omoe": (0.7254, 0.8611),
        "mmoe": (0.7234, 0.8606),
        "ple": (0.7292, 0.8591),
        "aitm": (0.7240, 0.8577),
        "metaheac": (0.7263, 0.8615),
    },
    "aliexpress_es": {
        "singletask": (0.7266, 0.8855),
        "sharedbottom": (0.7287, 0.8866),
        "omoe": (0.7253, 0.8859),
        "mmoe": (0.7285, 0.8898),
        "ple": (0.7273, 0.8913),
        "aitm": (0.7290, 0.8885),
        "metaheac": (0.7299, 0.8883),
    },
    "aliexpress_fr": {
        "singletask": (0.7259, 0.8737),
        "sharedbottom": (0.7245, 0.8700),
        "omoe": (0.7257, 0.8781),
        "mmoe": (0.7216, 0.8811),
        "ple": (0.7276, 0.8805),
        "aitm": (0.7236, 0.8763),
        "metaheac": (0.7249, 0.8813),
    },
    "aliexpress_us": {
        "singletask": (0.7061, 0.8637),
        "sharedbottom": (0.7029, 0.8698),
        "omoe": (0.7049, 0.8701),
        "mmoe": (0.7043, 0.8758),
        "ple": (0.7138, 0.8675),
        "aitm": (0.7048, 0.8730),
        "metaheac": (0.7089, 0.8743),
        "pomoe": (0.7076, 0.8703),
    },
    # PyTorch originals, one seed, best of 4 epochs selected on the test rows.
    "census_income": {
        "singletask": (0.9406, 0.9946),
        "sharedbottom": (0.9389, 0.9947),
        "omoe": (0.9400, 0.9944),
        "mmoe": (0.9433, 0.9946),
        "ple": (0.9428, 0.9945),
        "aitm": (0.9405, 0.9946),
        "metaheac": (0.9401, 0.9878),
    },
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One trained model on the test rows.

    Attributes:
      auc: AUC of each goal, at equal weights for a model that takes a preference.
      log_loss: Likewise.
      hypervolume: Hypervolume of the whole grid.
      parameters: Number of trained parameters.
      rows_per_second: Median over the training calls.
    """

    auc: list[float]
    log_loss: list[float]
    hypervolume: float
    parameters: int
    rows_per_second: float


def make_config(dataset: str, model: str, seed: int, arguments: argparse.Namespace) -> Any:
    """The config of one run: the data set's, the model, and the options of this command."""
    config = importlib.import_module(f"configs.{dataset}").get_config(arguments.preset)
    if config.model.name != model:  # the options of the preset's model are not this one's
        config.model = ConfigDict({"name": model})
    config.seed = seed
    config.train.epochs = arguments.epochs
    config.train.patience = 0  # all epochs; the validation rows select one
    config.optimizer.learning_rate = arguments.learning_rate
    if arguments.experts and "num_experts" in models.model_options(model):
        config.model.num_experts = arguments.experts
    if arguments.experts and model == "ple":  # half shared, half a goal's own, as MTReclib has it
        config.model.num_shared_experts = config.model.num_task_experts = arguments.experts // 2
    if not models.model_class(model).conditioned:
        config.objective = ConfigDict({"name": "uniform"})
    return config.to_dict()


def run(config: dict[str, Any], store: Store, folder: Path, grid: int) -> Result:
    """Trains and evaluates one config, or reads its result."""
    path = folder / "result.json"
    if path.exists():
        return Result(**json.loads(path.read_text("utf-8")))
    train(config, folder, store)
    trained = load_trained(folder)
    tasks = store.schema.num_tasks
    grid_front = trained.score(store, "test", grid)[0]
    equal = trained.evaluate(store, "test", np.full((1, tasks), 1 / tasks))
    rates = [r["rows_per_second"] for r in read_metrics(folder) if r["kind"] == "train"]
    result = Result(
        auc=equal.auc[0].tolist(),
        log_loss=equal.log_loss[0].tolist(),
        hypervolume=grid_front.hypervolume,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"])),
        rows_per_second=statistics.median(rates),
    )
    workdir.write_json(path, dataclasses.asdict(result))
    return result


def summarise(dataset: str, tasks: Sequence[str], results: dict[str, list[Result]]) -> list[Any]:
    """One row a model: mean and standard deviation over the seeds."""

    def spread(values: Sequence[float]) -> str:
        deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.4f}{deviation}"

    rows = []
    for model, runs in results.items():
        published = PUBLISHED.get(dataset, {}).get(model)
        row: list[Any] = [model, len(runs)]
        for index in range(len(tasks)):
            row.append(spread([result.auc[index] for result in runs]))
            row.append(f"{published[index]:.4f}" if published else "-")
        row += [spread([result.log_loss[index] for result in runs]) for index in range(len(tasks))]
        row.append(spread([result.hypervolume for result in runs]))
        row += [runs[0].parameters, round(statistics.median(r.rows_per_second for r in runs))]
        rows.append(row)
    return rows


def write_table(
    dataset: str, tasks: Sequence[str], rows: list[Any], command: str, folder: Path
) -> str:
    """Writes `<dataset>.md` and `.csv`; returns the Markdown."""
    header = ["model", "seeds"]
    for task in tasks:
        header += [f"AUC {task}", "reference"]
    header += [f"log loss {task}" for task in tasks] + ["hypervolume", "parameters", "rows/s"]
    versions = ", ".join(f"{key} {value}" for key, value in workdir.versions().items())
    text = (
        f"# {dataset}, test rows\n\n`{command}`\n\n"
        "Mean ± standard deviation over seeds; the epoch is selected on the validation rows. "
        "AUC and log loss at equal weights, hypervolume of the whole grid, for models that take "
        "a preference. Reference: the PyTorch implementations, from the papers' repositories "
        "(census: one seed, best of 4 epochs on the test rows).\n\n"
        f"{report.table(header, rows)}\n\n{versions}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"reproduce_{dataset}.md").write_text(text, "utf-8")
    lines = [",".join(str(cell) for cell in line) for line in [header, *rows]]
    (folder / f"reproduce_{dataset}.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--data", type=Path, required=True, help="folder of the source files")
    result.add_argument("--datasets", default="census_income", help="names, comma between")
    result.add_argument("--models", default="all", help="names, comma between, or all")
    result.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1")
    result.add_argument("--epochs", type=int, default=4)
    result.add_argument("--learning-rate", type=float, default=1e-3)
    result.add_argument("--experts", type=int, help="of all models that have some")
    result.add_argument("--grid", type=int, default=5, help="preferences at evaluation")
    result.add_argument("--preset", default="default", help="of the config")
    result.add_argument("--output", type=Path, default=Path("runs/reproduce"))
    result.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    command = "python -m benchmarks.reproduce " + " ".join(argv or sys.argv[1:])

    datasets = [ALIASES.get(name, name) for name in arguments.datasets.split(",")]
    names = models.model_names() if arguments.models == "all" else arguments.models.split(",")
    for dataset in datasets:
        if dataset not in SOURCES:
            raise UserError(f"no data set {dataset!r}; there are {', '.join(SOURCES)}")
    for name in names:
        models.model_class(name)  # a wrong name is told now, not hours from now
    for dataset in datasets:
        path = arguments.output / "stores" / dataset
        store = open_or_prepare(path, SOURCES[dataset], arguments.data)
        fitting = [name for name in names if dataset in FUNNELS or name not in FUNNEL_MODELS]
        results: dict[str, list[Result]] = {name: [] for name in fitting}
        for seed in range(arguments.seeds):
            for name in fitting:
                config = make_config(dataset, name, seed, arguments)
                folder = arguments.output / dataset / name / f"seed_{seed}"
                results[name].append(run(config, store, folder, arguments.grid))
                print(f"{dataset} {name} seed {seed}: {results[name][-1]}", flush=True)
        rows = summarise(dataset, store.schema.tasks, results)
        print(write_table(dataset, store.schema.tasks, rows, command, arguments.results))
    return 0


if __name__ == "__main__":
    cli.exit_on_user_error(main)
