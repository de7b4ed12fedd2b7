"""A log with all that a real one has: several kinds of goals and of fields, weights, a time split.

    python examples/own_log.py --output runs/own_log

It generates the log of a shop, prepares it, trains a small model, prints its front, exports it, and
predicts with what it exported.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from hyperrec_jax import fit, load, prepare
from hyperrec_jax.reports.tables import table

ITEMS = 40
TAGS = np.array(["new", "sale", "gift", "garden", "kitchen"])
FIRST_DAY = np.datetime64("2026-01-01", "ms")


def generate(rows: int, seed: int = 0) -> pl.DataFrame:
    """A log of `rows` impressions over 30 days, oldest first.

    Clicks depend on the item, on whether the user saw it before, and on the hour; purchases on the
    price; the seconds watched, known for nine rows in ten, on the picture.
    """
    random = np.random.default_rng(seed)
    item = random.integers(0, ITEMS, rows)
    price = random.lognormal(2, 0.5, ITEMS)[item]
    picture = random.normal(size=(ITEMS, 4))[item]
    seconds = np.sort(random.integers(0, 30 * 86_400, rows))
    evening = seconds % 86_400 >= 18 * 3600
    histories = [random.integers(0, ITEMS, random.integers(0, 9)) for _ in range(rows)]
    known = np.array([one in history for one, history in zip(item, histories, strict=True)])
    appeal = random.normal(size=ITEMS)[item] + 2 * known + evening - 1
    click = random.random(rows) < _sigmoid(appeal)
    purchase = click & (random.random(rows) < _sigmoid(1 - 0.2 * (price - 7)))
    watched = np.where(click, np.exp(2 + picture[:, 0] + random.normal(0, 0.3, rows)), 0).round(1)
    return pl.DataFrame(
        {
            "shown_at": FIRST_DAY + 1000 * seconds,
            "item_id": [f"item{one}" for one in item],
            "price": price.round(2),
            "history": [[f"item{one}" for one in history] for history in histories],
            "tags": ["|".join(TAGS[random.random(5) < 0.3]) for _ in range(rows)],
            "picture": picture.tolist(),
            "times_shown": random.integers(1, 4, rows),
            "click": click.astype(np.int8),
            "purchase": purchase.astype(np.int8),
            "watch_time": pl.Series(watched).set(pl.Series(random.random(rows) < 0.1), None),
        }
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/own_log"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()

    log = generate(arguments.rows)
    store = prepare(
        log,
        arguments.output / "data",
        goals=[
            "click",
            {"name": "purchase", "where": "click"},
            {"name": "watch_time", "kind": "value"},
        ],
        categorical=["item_id"],
        numerical=["price"],
        log1p=["price"],
        sets=[{"name": "tags", "separator": "|"}],
        sequences=[{"name": "history", "shares": "item_id", "max_length": 8}],
        vectors=[{"name": "picture", "size": 4}],
        time=["shown_at"],
        weight="times_shown",
        split={"by": "time", "column": "shown_at", "test": "5d", "validation": "3d"},
    )
    options = {
        "model.embedding_dim": 8,
        "model.num_experts": 2,
        "model.bottom_widths": (32,),
        "model.tower_widths": (16,),
        "train.batch_size": 256,
        "train.epochs": arguments.epochs,
    }
    model = fit(store, arguments.output / "run", options)
    front = model.evaluate(preferences=6)
    header = [f"weight of {goal}" for goal in model.goals]
    header += [f"{m} of {goal}" for m, goal in zip(front.primary, model.goals, strict=True)]
    print(table(header, np.hstack([front.preferences, front.value]).tolist()))

    served = load(model.export(arguments.output / "exported"))
    newest = log.tail(3).drop("click", "purchase", "watch_time", "times_shown")
    print("Predictions of the exported model for the newest rows, with equal weights:")
    print(served.predict(newest.to_dicts()))


if __name__ == "__main__":
    main()
