"""Calibration under each preference, before and after, against single-task models.

    hyperrec prepare synthetic
    python -m benchmarks.calibration --seeds 3 --output benchmarks/results/calibration.md

Trains `configs/synthetic.py` as it is, and with `model.name=singletask`; on the test rows it prints
the expected calibration error (20 bins of equally many rows) and the ratio of predicted to observed
positives, over 25 preferences, by the model's own outputs and by the calibrated ones.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from configs.synthetic import get_config
from hyperrec_jax.commands import cli
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.grid import grid_for
from hyperrec_jax.evaluation.measures import measure
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.reports.tables import table
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained

METRICS = ("ece", "calibration", "log_loss")
HEADER = (
    "model", "goal", "predictions", "ECE, mean of preferences", "worst preference",
    "predicted / observed", "log loss, mean",
)  # fmt: skip


def measured(store: Store, name: str, seed: int, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Metrics by `metric/goal`, `[preference]`, of `own` and of `calibrated` predictions."""
    config = get_config()
    config.seed, config.model.name = seed, name
    config.data.store = str(store.path)
    train(config.to_dict(), folder / f"{name}{seed}", store)
    model = load_trained(folder / f"{name}{seed}")
    grid = np.asarray(grid_for(model.network.conditioned, model.schema.num_tasks, 25))
    scores = model.score_rows(store, "test", grid)
    goals = create_goals(model.schema)
    return {
        "own": measure(goals, Scores(scores.logits, scores.labels, scores.weights)),
        "calibrated": measure(goals, scores),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, default=Path("data/synthetic"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    store = Store.open(arguments.store)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pomoe", "singletask"):
            found = [measured(store, name, seed, Path(folder)) for seed in range(arguments.seeds)]
            for goal in store.schema.tasks:
                rows += [_row(name, goal, kind, found) for kind in ("own", "calibrated")]
    text = table(HEADER, rows)
    print(text)
    if arguments.output:
        arguments.output.write_text(
            f"# Calibration under each preference\n\n{_about(arguments.seeds)}\n\n{text}\n", "utf-8"
        )
    return 0


def _row(name: str, goal: str, kind: str, found: list) -> list[str]:
    ece, ratio, loss = (
        np.array([one[kind][f"{metric}/{goal}"] for one in found]) for metric in METRICS
    )
    return [
        name, goal, kind, f"{ece.mean():.4f}", f"{ece.max(axis=1).mean():.4f}",
        f"{ratio.min(axis=1).mean():.3f} to {ratio.max(axis=1).mean():.3f}", f"{loss.mean():.5f}",
    ]  # fmt: skip


def _about(seeds: int) -> str:
    return (
        f"`python -m benchmarks.calibration --seeds {seeds}` on the generated data of "
        "`hyperrec prepare synthetic`, test rows, 25 preferences; means of the seeds. `own`: the "
        "model's outputs as they are; `calibrated`: what `predict` and the server answer."
    )


if __name__ == "__main__":
    cli.exit_on_user_error(main)
