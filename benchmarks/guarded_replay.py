"""Do guards hold later? Chooses on the validation rows, and checks each period of the test rows.

    hyperrec prepare complete-journey
    hyperrec train --config configs/complete_journey.py --workdir runs/complete_journey
    python -m benchmarks.guarded_replay --workdir runs/complete_journey \\
        --rows data/complete_journey_tables/test.parquet --period week \\
        --output benchmarks/results/guarded_replay.md

For each ordered pair of goals the most of the first is asked for while the second loses at most
`--limit` per cent of NDCG@10 against equal weights: once by the bound of the paired bootstrap, once
by the estimate alone. A period in which the second loses more is a violation; of a few hundred
lists that may be chance, so those beyond the noise of the period's own lists are counted, too.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperrec_jax.commands import cli
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_metrics import bootstrap, list_metrics
from hyperrec_jax.evaluation.list_scorer import FUSIONS, centre, scorer_scores
from hyperrec_jax.reports.tables import table
from hyperrec_jax.training import workdir
from hyperrec_jax.training.guarded import suggest_guarded
from hyperrec_jax.training.trained import Trained, load_trained

Floats = NDArray[np.float64]


class Replay(NamedTuple):
    """What became of a choice.

    Attributes:
      goal: What was maximised.
      guarded: What was guarded.
      way: `bound` or `estimate`.
      weight: Weight of the goal in the preference that was chosen.
      gain: Relative change of the goal over all test lists.
      change: Relative change of what was guarded over all test lists.
      changes: The same in each period, `[period]`.
      highest: What it is at most in each period but for the noise of its lists, with the confidence
        of the bound, `[period]`.
    """

    goal: str
    guarded: str
    way: str
    weight: float
    gain: float
    change: float
    changes: Floats
    highest: Floats

    def broken(self, limit: float) -> int:
        """In how many periods more than a part of the baseline's value was lost."""
        return int((self.changes < -limit).sum())

    def broken_beyond_noise(self, limit: float) -> int:
        """In how many of them that is more than the noise of the period's own lists."""
        return int((self.highest < -limit).sum())


def replay(
    trained: Trained,
    store: Store,
    periods: NDArray[np.generic],
    limit: float,
    confidence: float = 0.95,
    resamples: int = 1000,
    grid: int = 25,
) -> list[Replay]:
    """Chooses for each pair of goals, in both ways, and looks at each period.

    Args:
      trained: A model of data with lists.
      store: Its data.
      periods: The period of each test row, `[row]`.
      limit: Part of the baseline's NDCG that may be lost, in (0, 1).
      confidence: Level of the bound.
      resamples: Number of resamples.
      grid: Number of preferences that the search begins with.
    """
    goals = trained.schema.tasks
    found = []
    for goal, guarded in itertools.permutations(goals, 2):
        choice = suggest_guarded(
            trained,
            store,
            f"max:{goal}",
            [f"{guarded}>=-{100 * limit:g}%"],
            confidence=confidence,
            resamples=resamples,
            grid=grid,
        )
        other = choice.preference if choice.by_estimate is None else choice.by_estimate
        chosen = np.stack([choice.preference, other, np.full(len(goals), 1 / len(goals))])
        ndcg, period_of_list = _ndcg(trained, store, chosen, periods)
        gained, kept = goals.index(goal), goals.index(guarded)
        for place, way in enumerate(("bound", "estimate")):
            whole = np.nanmean(ndcg[place], axis=-1) / np.nanmean(ndcg[2], axis=-1) - 1
            changes, highest = [], []
            for period in np.unique(periods):
                lists = ndcg[:, kept : kept + 1, period_of_list == period]
                means = np.nanmean(lists, axis=-1)[:, 0]
                drawn = bootstrap(lists, resamples=resamples)[..., 0]
                changes.append(means[place] / means[2] - 1)
                highest.append(np.quantile(drawn[:, place] / drawn[:, 2] - 1, confidence))
            found.append(
                Replay(
                    goal,
                    guarded,
                    way,
                    float(chosen[place, gained]),
                    float(whole[gained]),
                    float(whole[kept]),
                    np.array(changes),
                    np.array(highest),
                )
            )
    return found


def _ndcg(
    trained: Trained, store: Store, preferences: Floats, periods: NDArray[np.generic]
) -> tuple[Floats, NDArray[np.generic]]:
    """NDCG@10 of each test list, `[preference, goal, list]`, and its period, `[list]`."""
    scorer, rows = trained.list_scorer(store), store.split("test")
    at = scorer.place()
    asked = preferences if at == "preference" else centre(preferences.shape[1])[None]
    scores = trained.score_rows(store, "test", np.asarray(asked))
    shape = (len(preferences), *scores.logits.shape[1:])
    scored = scorer_scores(
        scorer, np.broadcast_to(scores.logits, shape), preferences, FUSIONS[0], at
    )
    groups = rows.groups(0, len(rows))
    per_list = list_metrics(scored, scores.labels, groups, metrics=("ndcg",))
    _, first = np.unique(groups, return_index=True)
    return per_list.values["ndcg"], periods[first]


def report(found: Sequence[Replay], limit: float) -> str:
    """The table, and how often each way broke its guard."""
    rows = [
        [
            one.goal,
            one.guarded,
            one.way,
            f"{one.weight:.3f}",
            f"{one.gain:+.2%}",
            f"{one.change:+.2%}",
            f"{one.changes.min():+.2%}",
            f"{one.broken(limit)} of {len(one.changes)}",
            one.broken_beyond_noise(limit),
        ]
        for one in found
    ]
    header = ["most of", "guarded", "by", "its weight", "gain", "change", "worst period", "broken"]
    header.append("beyond noise")
    lines = [table(header, rows), ""]
    for way in ("bound", "estimate"):
        own = [one for one in found if one.way == way]
        total = sum(len(one.changes) for one in own)
        broken = sum(one.broken(limit) for one in own)
        beyond = sum(one.broken_beyond_noise(limit) for one in own)
        whole = sum(one.change < -limit for one in own)
        lines.append(
            f"By the {way}: {broken} of {total} periods lose more than {limit:.1%} "
            f"({broken / total:.1%}), {beyond} of them beyond the noise of their own lists; over "
            f"all periods {whole} of {len(own)} guards are broken."
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the replay.

    Raises:
      UserError: the rows are not those of the store's test split.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="test rows, with their period")
    parser.add_argument("--period", default="week", help="column of the period")
    parser.add_argument("--limit", type=float, default=1.0, help="per cent that may be lost")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    trained = load_trained(arguments.workdir)
    store = workdir.open_store(trained.config, arguments.store)
    rows = pl.read_parquet(arguments.rows, columns=[arguments.period, "list_id"])
    groups = store.split("test").groups(0, len(store.split("test")))
    ids = rows["list_id"].to_numpy()
    if len(ids) != len(groups) or not np.array_equal(ids[1:] != ids[:-1], np.diff(groups) != 0):
        raise UserError(f"{arguments.rows}: are not the test rows of {store.path}, in their order")
    limit = arguments.limit / 100
    periods = rows[arguments.period].to_numpy()
    found = replay(trained, store, periods, limit, arguments.confidence)
    text = report(found, limit)
    print(text)
    if arguments.output:
        head = "# Guards in later periods\n\n`python -m benchmarks.guarded_replay`, "
        head += f"{trained.config['model']['name']}, a guard of {arguments.limit:g} %, confidence "
        head += f"{arguments.confidence:g}, {len(np.unique(periods))} periods\n\n"
        arguments.output.write_text(f"{head}{text}\n")
    return 0


if __name__ == "__main__":
    cli.exit_on_user_error(lambda: main(sys.argv[1:]))
