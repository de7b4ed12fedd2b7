"""The table of `benchmarks.lists`, from the results that it kept."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hyperrec_jax.evaluation.bootstrap import interval
from hyperrec_jax.evaluation.list_metrics import bootstrap, mean_over_lists
from hyperrec_jax.evaluation.pareto import hypervolume, non_dominated, spearman

NAMES = {
    "recipe": "two stages, conditioned (film)",
    "formula": "its first stage: sum of probabilities over their means",
    "recipe_greedy": "two stages, its lists ordered greedily",
    "formula_greedy": "its first stage, its lists ordered greedily",
    "recipe_plain_greedy": "**the default**, its lists ordered greedily",
    "recipe_plain_formula_greedy": "its first stage, its lists ordered greedily",
    "varied": "two stages with a score of single rows that is trained to vary",
    "varied_greedy": "the same, its lists ordered greedily",
    "recipe_plain": "**the default**: two stages, without conditioning",
    "recipe_plain_formula": "its first stage",
    "ids_formula": "its first stage with the ids of product, type, maker and store",
    "mmoe": "mmoe, two stages, without conditioning",
    "mmoe_formula": "its first stage: sum of probabilities over their means",
    "pomoe": "pomoe, two stages, conditioned by its gate alone",
    "pomoe_formula": "its first stage",
    "small": "two stages, conditioned, layers an eighth as wide",
    "small_formula": "its first stage",
    "small_plain": "the same without conditioning",
    "small_plain_formula": "its first stage",
    "towers": "two towers, two stages, conditioned",
    "towers_formula": "its first stage: the goals' vectors fused by their weighted sum",
    "towers_plain": "two towers, two stages, without conditioning",
    "towers_plain_formula": "its first stage",
    "towers_each": "two indexes, an item's vector for each goal, two stages, without conditioning",
    "towers_each_formula": "its first stage: two indexes fused",
    "ple_formula": "ple, sum of probabilities over their means",
    "nets": "the second stage without conditioning, one model for each preference",
    "floor": "no learning: past purchases and popularity",
    "lambdamart": "LightGBM LambdaMART, one model for each preference",
}
ONE_EACH = ("nets", "lambdamart")
"""Rows of one model for each preference."""
OURS = ("recipe", "mmoe", "pomoe", "small", "varied", "towers")
"""How the names of rows begin that are the recipe or parts of it, and no opponents."""
RESAMPLES = 1000


def write_table(
    path: Path,
    work: Path,
    name: str,
    grid: np.ndarray,
    units: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Writes what is there as a table in Markdown, in the place of the section of that name.

    Args:
      path: The page.
      work: Folder of the results.
      name: Name of the section.
      grid: All preferences, `[preference, goal]`.
      units: Household of each test list.
      kept: Which test lists are measured, `[list]`.
    """
    files = {row: sorted(work.glob(f"{row}.*.npz")) for row in NAMES}
    results = {row: [_lists_kept(file, kept) for file in of] for row, of in files.items() if of}
    section = "\n".join(_section(results, grid, units[kept])) + "\n"
    title = f"## {name}\n"
    before = path.read_text("utf-8") if path.exists() else HEADER
    start = before.find(title)
    if start < 0:
        path.write_text(before.rstrip("\n") + "\n\n" + title + section, "utf-8")
        return
    end = before.find("\n## ", start + 1)
    rest = before[end:] if end >= 0 else ""
    path.write_text(before[:start] + title + section + rest, "utf-8")


HEADER = """\
# Lists of The Complete Journey

Written by `python -m benchmarks.lists` (its docstring says what each row is, and the commands).
Test lists of households that training never saw; NDCG@10 of each goal under every preference. All
choices are made on validation lists. Hypervolume is above the worst ends of the reference row's
front, in per cent of it, at the preferences that the reference has; intervals (95 %) resample
households. Scalarised: mean over preferences of `sum_i r_i NDCG_i`. Off the best end: the best end
of any row less this row's. CPU seconds are of a machine that others used, too, compilation
included: a rough ratio within this table at most.
"""


def _lists_kept(file: Path, kept: np.ndarray) -> dict[str, Any]:
    """A result with the values of some lists alone."""
    result = dict(np.load(file))
    return result | {"ndcg": result["ndcg"][..., kept]}


def _section(results: dict[str, list[Any]], grid: np.ndarray, units: np.ndarray) -> list[str]:
    order = ("lambdamart", "formula_greedy", "formula")
    reference = next(name for name in order if name in results)
    shared = results[reference][0]["preferences"]
    fronts = {
        name: np.mean([mean_over_lists(_at(one, shared)) for one in kept], axis=0)
        for name, kept in results.items()
    }
    worst = fronts[reference].min(axis=0)

    def volume(front: np.ndarray) -> float:
        return hypervolume(1 - front, 1 - worst)

    best_ends = np.max([front.max(axis=0) for front in fronts.values()], axis=0)
    opponents = [name for name in results if not name.startswith(OURS)]
    each = {
        name: [volume(mean_over_lists(_at(one, shared))) for one in kept]
        for name, kept in results.items()
    }
    unit = each[reference][0]
    best = max(opponents, key=lambda name: float(np.mean(each[name])))
    lines = [
        "",
        f"Reference: {NAMES[reference].strip('*')}. Best opponent: {NAMES[best]}. "
        f"{len(np.unique(units)):,} households, {len(units):,} lists, {len(grid)} preferences "
        f"({len(shared)} for models that are trained for one). {datetime.date.today():%B %Y}.",
        "",
        "| | models | hypervolume, each seed | mean | of the best opponent's | scalarised | ends "
        "| off the best end | order | not dominated | largest jump | calibration | CPU s |",
        "|---|---:|---|---|---:|---:|---|---|---:|---:|---:|---|---:|",
    ]
    for name, kept in results.items():
        of_seeds = [mean_over_lists(one["ndcg"]) for one in kept]
        weights = grid[kept[0]["preferences"]]
        front = fronts[name]
        ends = front.max(axis=0)
        calibration = np.mean([one["calibration"] for one in kept], axis=0)
        samples = np.mean([_volumes(one, shared, units, volume) for one in kept], axis=0)
        low, high = interval(100 * samples / unit)
        lines.append(
            "| "
            + " | ".join(
                [
                    NAMES[name],
                    str(len(shared)) if name in ONE_EACH else "1",
                    ", ".join(f"{100 * value / unit:.1f}" for value in each[name]),
                    f"{100 * np.mean(each[name]) / unit:.1f} [{low:.1f}, {high:.1f}]",
                    f"{100 * np.mean(each[name]) / np.mean(each[best]):.1f}",
                    f"{(grid[shared] * front).sum(axis=1).mean():.4f}",
                    " / ".join(f"{value:.4f}" for value in ends),
                    " / ".join(f"{value:.4f}" for value in best_ends - ends),
                    _mean(of_seeds, lambda one, w=weights: _order(one, w)),
                    _mean(of_seeds, lambda one: float(non_dominated(-one).mean())),
                    _mean(of_seeds, lambda one, w=weights: _largest_jump(one, w), 3),
                    " / ".join(f"{value:.2f}" for value in calibration).replace("nan", "-"),
                    f"{np.mean([one['cpu_seconds'] for one in kept]):.0f}",
                ]
            )
            + " |"
        )
    lines += [
        "",
        "Differences of hypervolume, in points of the reference's, mean of the seeds:",
        "",
    ]
    pairs_of_rows = [
        ("recipe", "formula"),
        ("recipe", "recipe_plain"),
        ("recipe", "mmoe"),
        ("recipe_greedy", "formula_greedy"),
        ("recipe_plain_greedy", "formula_greedy"),
        ("recipe_plain_greedy", "recipe_plain_formula_greedy"),
        ("recipe_greedy", "recipe_plain_greedy"),
        ("varied", "formula_greedy"),
        ("varied", "formula"),
        ("varied_greedy", "formula_greedy"),
        ("recipe_plain", "recipe_plain_formula"),
        ("recipe_plain", "formula"),
        ("mmoe", "mmoe_formula"),
        ("small", "small_formula"),
        ("small_plain", "small_plain_formula"),
        ("small", "small_plain"),
        ("towers", "towers_formula"),
        ("towers", "towers_each_formula"),
        ("towers_plain", "towers_plain_formula"),
        ("towers", "towers_plain"),
        ("towers", "towers_each"),
        ("recipe", "nets"),
        ("recipe", best),
        ("recipe_plain", "nets"),
        ("recipe_plain", best),
        ("recipe_plain", reference),
        ("formula", reference),
    ]
    for one, other in dict.fromkeys(pairs_of_rows):
        if one in results and other in results and one != other:
            low, high = _difference(results[one], results[other], shared, units, volume, unit)
            pairs = _paired(each[one], each[other])
            middle = 100 * np.mean([a - b for a, b in pairs]) / unit
            lines.append(
                f"- {NAMES[one].replace('*', '')} minus {NAMES[other].replace('*', '')}: "
                f"{middle:+.2f} [{low:.2f}, {high:.2f}], {len(pairs)} seeds"
            )
    return lines


def _at(result: Any, shared: np.ndarray) -> np.ndarray:
    """NDCG at the shared preferences."""
    return result["ndcg"][np.searchsorted(result["preferences"], shared)]


def _paired(ours: list[Any], theirs: list[Any]) -> list[tuple[Any, Any]]:
    """The same seeds of two rows; an opponent of a single seed stands against each seed."""
    return list(zip(ours, theirs * len(ours) if len(theirs) == 1 else theirs, strict=False))


def _difference(
    ours: list[Any],
    theirs: list[Any],
    shared: np.ndarray,
    units: np.ndarray,
    volume: Callable[[np.ndarray], float],
    unit: float,
) -> tuple[float, float]:
    """Interval of the mean difference over seeds, resampling households, paired."""
    total = np.zeros(RESAMPLES)
    pairs = _paired(ours, theirs)
    for one, other in pairs:
        total += _volumes(one, shared, units, volume) - _volumes(other, shared, units, volume)
    low, high = interval(100 * total / len(pairs) / unit)
    return float(low), float(high)


def _volumes(
    result: Any, shared: np.ndarray, units: np.ndarray, volume: Callable[[np.ndarray], float]
) -> np.ndarray:
    """Hypervolume on the same resamples of households for every result, `[resample]`."""
    samples = bootstrap(_at(result, shared), units, resamples=RESAMPLES)
    return np.array([volume(one) for one in samples])


def _mean(fronts: list[np.ndarray], measure: Callable[[np.ndarray], float], digits: int = 2) -> str:
    return f"{np.mean([measure(front) for front in fronts]):.{digits}f}"


def _order(front: np.ndarray, weights: np.ndarray) -> float:
    """Smallest Spearman correlation of a goal's NDCG with its weight."""
    return min(spearman(weights[:, goal], front[:, goal]) for goal in range(front.shape[1]))


def _largest_jump(front: np.ndarray, weights: np.ndarray) -> float:
    """Largest change of a goal's NDCG to the preference that is nearest, in part of its range."""
    distance = np.abs(weights[:, None] - weights).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    neighbours = np.argwhere(distance <= distance.min() + 1e-9)
    changes = np.abs(front[neighbours[:, 0]] - front[neighbours[:, 1]])
    return float((changes.max(axis=0) / np.ptp(front, axis=0)).max())
