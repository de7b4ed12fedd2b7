"""A synthetic impression -> click -> conversion funnel of AliExpress' shape, with a known truth.

Every search has a user part (9 ids, 23 numbers) shared by its items, and every item a part of its
own (7 ids, 40 numbers). Two scores `a` and `b` are random two-layer functions of both parts,
standardised and, by orthogonal output weights, nearly uncorrelated. With `rho = 1 - 2 conflict`,

    P(click)              = sigmoid(bias_1 + 1.2 a)
    P(conversion | click) = sigmoid(bias_2 + 1.5 (rho a + sqrt(1 - rho^2) b))

so that with conflict 0 what attracts clicks also sells, with 0.5 the two are unrelated, and with 1
what attracts clicks keeps from buying. The probabilities are stored with the rows: their AUC on the
test split is the best that any model can reach there.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.source import NumericalColumn, Rows, Source
from hyperrec_jax.data.sources.registry import SOURCES, SourceCommand, add_numbers
from hyperrec_jax.errors import UserError

USER_FIELD_SIZES = (10, 5, 20, 35, 10, 10, 35, 185, 40)
ITEM_FIELD_SIZES = (40, 10, 10, 10, 10, 10, 10)
USER_FIELDS = (
    "country",
    "device",
    "age_group",
    "region",
    "membership",
    "entry_page",
    "interest",
    "city",
    "last_category",
)
ITEM_FIELDS = ("category", "brand", "colour", "size", "material", "shipping", "seller_tier")
USER_NUMBERS = (
    "user_visits",
    "user_clicks",
    "user_orders",
    "user_spent",
    "user_returns",
    "user_coupons",
    "user_reviews",
    "user_wishes",
    "user_cart",
    "user_tenure",
    "user_recency",
    "user_basket",
    "user_discount_share",
    "user_mobile_share",
    "user_night_share",
    "user_brand_loyalty",
    "user_price_level",
    "user_searches",
    "user_filters",
    "user_scroll_depth",
    "user_session_length",
    "user_messages",
    "query_length",
)
ITEM_NUMBERS = (
    "price",
    "discount",
    "rating",
    "reviews",
    "photos",
    "stock",
    "delivery_days",
    "delivery_fee",
    "weight",
    "warranty",
    "return_days",
    "days_online",
    *(
        f"{of}_{what}"
        for of in ("item", "brand", "seller", "category")
        for what in ("views", "clicks", "carts", "orders", "returns", "rating", "trend")
    ),
)
"""Names as a shop has them; what the numbers are follows from the seed alone."""
TASKS = ("click", "conversion")

_HIDDEN = 32
_CLICK_SCALE, _CONVERSION_SCALE = 1.2, 1.5
_MEAN_ITEMS = 10
_SEARCHES_PER_CHUNK = 2048
_TEST_SEARCHES = 1 << 40
"""First search id of the test split: no search is in two splits."""


@dataclasses.dataclass(frozen=True)
class SyntheticOptions:
    """What to generate.

    Attributes:
      rows: Rows of training and validation together.
      test_rows: Rows of the test split.
      conflict: 0 (the goals agree) to 1 (they contradict each other).
      click_rate: Share of clicks among impressions, in (0, 1).
      conversion_rate: Share of conversions among impressions, below `click_rate`.
      seed: Seed of everything random; the same options give the same rows, bit for bit.
    """

    rows: int = 200_000
    test_rows: int = 50_000
    conflict: float = 0.5
    click_rate: float = 0.15
    conversion_rate: float = 0.03
    seed: int = 0


def synthetic_source(options: SyntheticOptions) -> Source:
    """The synthetic funnel as a source.

    Raises:
      UserError: An option is out of its range.
    """
    if options.rows < 1 or options.test_rows < 1:
        raise UserError("synthetic: the numbers of rows must be positive")
    if not 0 <= options.conflict <= 1:
        raise UserError(f"synthetic: conflict {options.conflict} is not between 0 and 1")
    if not 0 < options.conversion_rate < options.click_rate < 1:
        raise UserError(
            f"synthetic: needs 0 < conversion rate ({options.conversion_rate}) < "
            f"click rate ({options.click_rate}) < 1"
        )
    world = _World(options)

    def train(staging: Path) -> Iterator[Rows]:
        return world.rows(options.rows, first_search=0)

    def test(staging: Path) -> Iterator[Rows]:
        return world.rows(options.test_rows, first_search=_TEST_SEARCHES)

    return Source(
        name="synthetic",
        categorical=USER_FIELDS + ITEM_FIELDS,
        numerical=tuple(map(NumericalColumn, USER_NUMBERS + ITEM_NUMBERS)),
        tasks=TASKS,
        group="search_id",
        splits={"train": train, "test": test},
        identity=json.dumps(dataclasses.asdict(options)),
    )


class _Features:
    """Random ids and numbers of one side (user or item), and their part in the hidden layer."""

    def __init__(self, rng: np.random.Generator, field_sizes: tuple[int, ...], numbers: int):
        # Popularity falls like 1 / rank, as values of real fields do.
        self._popularity = [np.cumsum(1 / np.arange(1, size + 1)) for size in field_sizes]
        self._tables = [rng.normal(size=(size, _HIDDEN)) for size in field_sizes]
        self._zeros = rng.uniform(0, 0.5, numbers)
        self._weights = rng.normal(size=(numbers, _HIDDEN)) / 0.3

    def draw(self, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids int64 [row, field] and numbers f32 [row, number]: in [0, 1], some columns often 0."""
        ids = [np.searchsorted(p, rng.random(rows) * p[-1], "right") for p in self._popularity]
        shape = (rows, len(self._zeros))
        numbers = np.clip(rng.normal(0.5, 0.25, shape), 0, 1) * (rng.random(shape) >= self._zeros)
        return np.stack(ids, axis=1), numbers.astype(np.float32)

    def hidden(self, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Contribution to the hidden layer before its non-linearity: [row, hidden]."""
        total = (numbers - 0.375) @ self._weights
        for table, column in zip(self._tables, ids.T, strict=True):
            total += table[column]
        return total


class _World:
    """The random functions behind the data, fixed by the seed."""

    def __init__(self, options: SyntheticOptions):
        self._options = options
        rng = np.random.default_rng([options.seed, 0])
        self._user = _Features(rng, USER_FIELD_SIZES, len(USER_NUMBERS))
        self._item = _Features(rng, ITEM_FIELD_SIZES, len(ITEM_NUMBERS))
        # Orthogonal output weights make the two scores (nearly) uncorrelated.
        self._output = np.linalg.qr(rng.normal(size=(_HIDDEN, 2)))[0]
        self._fan_in = np.sqrt(len(USER_FIELD_SIZES + ITEM_FIELD_SIZES) + len(USER_NUMBERS))
        self._mean, self._std = np.zeros(2), np.ones(2)
        sample = self._scores(rng, 8 * _SEARCHES_PER_CHUNK)[0]
        self._mean, self._std = sample.mean(0), sample.std(0)
        click, conversion = self._logits((sample - self._mean) / self._std)
        self._click_bias = _bias_for(click, np.ones(len(click)), options.click_rate)
        self._conversion_bias = _bias_for(
            conversion, _sigmoid(click + self._click_bias), options.conversion_rate
        )

    def rows(self, count: int, first_search: int) -> Iterator[Rows]:
        """Whole searches until there are `count` rows; the last search may be cut short."""
        chunk = 0
        while count > 0:
            search = first_search + chunk * _SEARCHES_PER_CHUNK
            rng = np.random.default_rng([self._options.seed, 1, search])
            items = 1 + rng.poisson(_MEAN_ITEMS - 1, _SEARCHES_PER_CHUNK)
            owner = np.repeat(np.arange(_SEARCHES_PER_CHUNK), items)[:count]
            scores, ids, numbers = self._scores(rng, _SEARCHES_PER_CHUNK, owner)
            click, conversion = self._logits(scores)
            click = _sigmoid(click + self._click_bias)
            conversion = _sigmoid(conversion + self._conversion_bias)
            chance = rng.random((len(owner), 2))
            clicked = chance[:, 0] < click
            labels = np.stack([clicked, clicked & (chance[:, 1] < conversion)], axis=1)
            yield Rows(
                categorical=tuple(pa.array(column) for column in ids.T.copy()),
                numerical=numbers,
                labels=labels.astype(np.uint8),
                groups=search + owner,
                true_probability=np.stack([click, click * conversion], 1).astype(np.float32),
            )
            count -= len(owner)
            chunk += 1

    def _scores(
        self, rng: np.random.Generator, searches: int, owner: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores [row, 2], ids [row, field], numbers [row, number]; `owner` [row] is the search of
        each row, one row per search by default."""
        owner = np.arange(searches) if owner is None else owner
        user_ids, user_numbers = self._user.draw(rng, searches)
        item_ids, item_numbers = self._item.draw(rng, len(owner))
        hidden = self._item.hidden(item_ids, item_numbers)
        hidden += self._user.hidden(user_ids, user_numbers)[owner]
        scores = (np.tanh(hidden / self._fan_in) @ self._output - self._mean) / self._std
        return (
            scores,
            np.concatenate([user_ids[owner], item_ids], axis=1),
            np.concatenate([user_numbers[owner], item_numbers], axis=1),
        )

    def _logits(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rho = 1 - 2 * self._options.conflict
        a, b = scores.T
        return _CLICK_SCALE * a, _CONVERSION_SCALE * (rho * a + np.sqrt(1 - rho**2) * b)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _bias_for(logits: np.ndarray, weights: np.ndarray, rate: float) -> float:
    """The bias with which `mean(weights * sigmoid(logits + bias))` is `rate`, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.mean(weights * _sigmoid(logits + middle)) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@SOURCES.register("synthetic")
def synthetic_command() -> SourceCommand:
    """The arguments of `hyperrec prepare synthetic`."""
    texts = {
        "rows": "rows of training and validation together",
        "test_rows": "rows of the test split",
        "conflict": "from 0, the goals agree, to 1, they contradict each other",
        "click_rate": "share of clicks among impressions",
        "conversion_rate": "share of conversions among impressions",
        "seed": "of everything that is random",
    }
    return SourceCommand(
        summary="a generated impression -> click -> conversion funnel with a known truth",
        description="Generates data of AliExpress' shape. The true probabilities are known, so "
        "that the best reachable AUC of each goal is printed at the end.",
        add_arguments=lambda parser: add_numbers(parser, SyntheticOptions(), texts),
        make=lambda chosen: synthetic_source(
            SyntheticOptions(**{name: getattr(chosen, name) for name in texts})
        ),
    )
