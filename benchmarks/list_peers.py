"""What `benchmarks.lists` compares with: no learning, a model for each preference, LambdaMART."""

import dataclasses
import functools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq

from benchmarks.list_data import CUTOFF, Lists, ends_and_between, grid_of, scalarised
from configs import complete_journey
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.preference.expected_gain import structured_score
from hyperrec_jax.training.averaging import served, with_average
from hyperrec_jax.training.list_loss import list_loss
from hyperrec_jax.training.state import TrainState, first_state
from hyperrec_jax.training.step import train_step
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained

PLAIN = {"model.name": "sharedbottom", "model.norm": "pooled", "sampler.name": "fixed"}
"""The recipe's network without preference."""


def run_floor(store: Store, tables: Path) -> dict[str, Any]:
    """No learning: the household's past purchases of a product, and its popularity where none.

    The score of purchase is how often the household bought the product, ties by the product's
    sales of four weeks; that of discovery is those sales where the household never bought it; the
    preference mixes them, each over its mean.

    Args:
      store: The store.
      tables: Folder of the Parquet files that it was made of.
    """
    columns = ["household_product_count", "product_count_4w", "list_id"]
    table = pq.read_table(tables / "test.parquet", columns=columns)
    own, sales = (table[name].to_numpy().astype(np.float64) for name in columns[:2])
    test, grid = Lists.of(store, "test"), grid_of(store.schema.num_tasks)
    if store.schema.tasks != ("purchase", "discovery") or len(own) != test.gains.shape[1]:
        raise UserError("the floor is that of purchase and discovery, with the rows of the store")
    popular = sales / (1 + sales.max())
    each = np.stack([own + popular, popular * (own == 0)])
    each /= each.mean(axis=1, keepdims=True)
    return {
        "ndcg": test.ndcg(grid @ each),
        "preferences": np.arange(len(grid)),
        "validation": float("nan"),
        "calibration": np.full(len(each), np.nan),
        "cpu_seconds": 0.0,
    }


def run_nets(store: Store, seed: int, work: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """The second stage of a shared bottom for each second preference apart."""
    config = complete_journey.get_config()
    config.update_from_flattened_dict(PLAIN | overrides | {"seed": seed})
    config.data.store = str(store.path)
    epochs, folder = config.list.epochs, work / f"run-nets-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    config.list.epochs = 0
    began = time.process_time()
    train(config.to_dict(), folder, store)
    start = load_trained(folder).variables
    config.list.epochs = epochs
    run = resolve(config.to_dict(), store.schema, store.split("train"))
    lists = run.lists
    assert lists is not None
    run = dataclasses.replace(
        run, optimizer=lists.optimizer, total_steps=lists.total_steps, average=lists.average
    )
    score = make_score_fn(run.model)
    grid, test = grid_of(store.schema.num_tasks), Lists.of(store, "test")
    validation, chosen = Lists.of(store, "validation"), ends_and_between(grid)
    scales = lists.scales

    @jax.jit
    def steps(preference: jax.Array, state: TrainState, batches: dict[str, jax.Array]) -> Any:
        def fixed(key: jax.Array, count: int, progress: Any) -> jax.Array:
            return jnp.broadcast_to(preference, (count, len(preference)))

        one = dataclasses.replace(run, lists=dataclasses.replace(lists, sampler=fixed))
        step = with_average(functools.partial(train_step, loss=list_loss), one)
        return jax.lax.scan(lambda state, batch: step(one, state, batch), state, batches)

    def scored(state: TrainState, rows: Split, weights: np.ndarray) -> np.ndarray:
        variables = served(run, state).variables
        logits = score_split(
            score, variables, rows, weights[None], run.mesh, batch_size=4096
        ).logits[0]
        return structured_score(logits.T, weights.astype(np.float32), scales)[None]

    ndcg, values = [], []
    for weights in grid[chosen]:
        state = first_state(run).replace(
            params=start["params"],
            batch_stats=start["batch_stats"],
            opt_state=run.optimizer.init(start["params"]),
            average=start["params"] if run.average else {},
        )
        best = (
            scalarised(validation.ndcg(scored(state, validation.rows, weights)), weights[None]),
            state,
        )
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
        values.append(best[0])
        ndcg.append(test.ndcg(scored(best[1], test.rows, weights))[0])
    return _record_of_each(grid, chosen, ndcg, values, began)


def run_lambdamart(store: Store) -> dict[str, Any]:
    """LightGBM's LambdaMART, one model for each second preference."""
    import lightgbm

    names = ("train", "validation", "test")
    train_lists, validation, test = (Lists.of(store, name) for name in names)
    grid = grid_of(store.schema.num_tasks)
    chosen = ends_and_between(grid)
    small = [i for i, size in enumerate(store.schema.field_sizes) if size <= 300]
    scale = np.array([_best_dcg(goal, train_lists.groups) for goal in train_lists.gains])

    def data(lists: Lists, reference: Any = None) -> tuple[Any, np.ndarray, np.ndarray]:
        columns = lists.rows.slice(0, len(lists.rows))
        ids = columns["categorical"][:, small].astype(np.float32)
        order = np.argsort(lists.groups, kind="stable")
        features = np.concatenate([columns["numerical"], ids], axis=1)[order]
        # One gain for each combination of labels, each goal in units of its mean best DCG.
        combination = (lists.gains * 2 ** np.arange(len(lists.gains))[:, None]).sum(axis=0)
        _, list_of_row, sizes = np.unique(lists.groups, return_inverse=True, return_counts=True)
        has = np.stack([np.bincount(list_of_row, goal) > 0 for goal in lists.gains])
        categorical = list(range(columns["numerical"].shape[1], features.shape[1]))
        made = lightgbm.Dataset(
            features,
            combination[order].astype(int),
            group=sizes,
            categorical_feature=categorical,
            reference=reference,
            params={"feature_pre_filter": False},  # which depends on min_data_in_leaf
            free_raw_data=False,
        )
        return made, features[np.argsort(order)], has[:, list_of_row[order]]

    def gains_of(weights: np.ndarray) -> list[float]:
        bits = np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights)) & 1
        return list((bits * weights / scale).sum(axis=1))

    train_data, _, train_has = data(train_lists)
    held_data, held_features, held_has = data(validation, train_data)
    test_features = data(test)[1]

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
            "learning_rate": 0.05,
            **settings,
        }
        # LightGBM divides by the best DCG of a list's mixed gain: without these weights a list that
        # has nothing of a goal would give that goal's weight to the others.
        train_data.set_weight(weights @ train_has)
        held_data.set_weight(weights @ held_has)
        model = lightgbm.train(
            parameters,
            train_data,
            500,
            [held_data],
            callbacks=[lightgbm.early_stopping(20, verbose=False)],
        )
        scores = np.asarray(model.predict(held_features))[None]
        return model, scalarised(validation.ndcg(scores), weights[None])

    began = time.process_time()
    middle = np.full(grid.shape[1], 1 / grid.shape[1])
    candidates: list[dict[str, Any]] = [
        {"num_leaves": leaves, "min_data_in_leaf": rows, "cat_smooth": smooth}
        for leaves in (15, 31)
        for rows, smooth in ((20, 10), (200, 10), (200, 500))
    ]
    settings = max(candidates, key=lambda each: fit(middle, each)[1])
    tuned = time.process_time() - began
    ndcg, values, began = [], [], time.process_time()
    for weights in grid[chosen]:
        model, value = fit(weights, settings)
        values.append(value)
        ndcg.append(test.ndcg(np.asarray(model.predict(test_features))[None])[0])
    record = _record_of_each(grid, chosen, ndcg, values, began)
    return record | {"tuning_seconds": tuned, "settings": json.dumps(settings)}


def _record_of_each(
    grid: np.ndarray,
    chosen: np.ndarray,
    ndcg: list[np.ndarray],
    values: list[float],
    began: float,
) -> dict[str, Any]:
    """The result of one model for each of some preferences.

    Args:
      grid: All preferences, `[preference, goal]`.
      chosen: Numbers of those that have a model.
      ndcg: NDCG of the test lists by each model, `[goal, list]`.
      values: What each model was chosen by, on the validation lists.
      began: CPU seconds of the process when the first model began.
    """
    return {
        "ndcg": np.stack(ndcg),
        "preferences": chosen,
        "validation": float(np.mean(values)),
        "calibration": np.full(grid.shape[1], np.nan),
        "cpu_seconds": time.process_time() - began,
    }


def _best_dcg(gains: np.ndarray, groups: np.ndarray) -> float:
    """Mean DCG of the best order of the lists with a positive, for gains of 0 and 1."""
    _, list_of_row = np.unique(groups, return_inverse=True)
    positives = np.bincount(list_of_row, gains).astype(int)
    sums = np.cumsum(1 / np.log2(np.arange(CUTOFF) + 2))
    return float(sums[np.minimum(positives[positives > 0], CUTOFF) - 1].mean())
