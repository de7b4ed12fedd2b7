"""The page: what it says and holds, and that it escapes; a browser drives it in another file."""

import base64
import csv
import dataclasses
import html.parser
import json
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.image import imread

from hyperrec_jax.data.schema import CategoricalField
from hyperrec_jax.evaluation import comparison
from hyperrec_jax.reports import page as html_report
from hyperrec_jax.reports.details import changed_options, expert_use_of
from hyperrec_jax.reports.plots import plot
from hyperrec_jax.reports.raw_values import RawValues
from hyperrec_jax.reports.verdict import choices, of_view, verdict
from hyperrec_jax.reports.views import View
from tests.conftest import tiny_config
from tests.models.test_models import make_model

pytestmark = pytest.mark.slow

NASTY = '<img src=x onerror="alert(1)">$_{'


class _Parser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.ids, self.links, self.text, self.handlers = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append(value)

    def handle_data(self, data):
        self.text.append(data)


def _parse(page):
    parser = _Parser()
    parser.feed(page)
    return parser


def _facts(page):
    """The numbers that the scripts of a page read."""
    return json.loads(page.partition('id="facts">')[2].partition("</script>")[0])


def test_the_page_stands_alone_and_holds_it_all(evaluated):
    front, extra = evaluated
    page = html_report.render(front, extra)
    parser = _parse(page)
    text = " ".join(parser.text)
    for title in ("Preferences", "Calibration", "Expert use", "Training", "Config"):
        assert title in text
    assert len(parser.ids) == len(set(parser.ids))
    assert all(link.startswith(("#", "data:")) for link in parser.links)
    assert all(link[1:] in parser.ids for link in parser.links if link.startswith("#"))
    assert "connect-src 'none'" in page
    assert "connect-src 'self'" in html_report.render(front, extra, live=True)
    assert "The MIT License" in page  # of the library of its charts
    assert page == html_report.render(front, extra)
    assert len(page) < 500_000


def test_the_numbers_of_the_charts_are_those_of_the_front(evaluated_with_lists):
    front, extra = evaluated_with_lists
    facts = _facts(html_report.render(front, extra))
    lists, predictions, losses = facts["views"]
    np.testing.assert_allclose(facts["preferences"], front.preferences, atol=1e-6)
    np.testing.assert_allclose(lists["values"], front.lists.first.ndcg, atol=1e-6)
    np.testing.assert_allclose(predictions["values"], front.auc, atol=1e-6)
    np.testing.assert_allclose(losses["values"], front.loss, atol=1e-6)
    np.testing.assert_allclose(
        [predictions["low"], predictions["high"]], front.auc_interval, atol=1e-5
    )
    assert lists["measures"] == ["ndcg@10/click", "ndcg@10/buy"]  # as `hyperrec suggest` takes them
    assert set(lists["doubt"]) == {str(place) for place in range(5)}
    assert all(np.array(lists["doubt"]["2"])[[0, 1, 3, 4]].ravel() > 0)


def test_examples_are_lists_in_the_order_of_each_preference(evaluated_with_lists, small_store):
    front, extra = evaluated_with_lists
    groups = small_store.split("test").groups(0, front.rows)
    labels = small_store.split("test").slice(0, front.rows)["labels"]
    for place, example in enumerate(extra.examples["lists"]):
        rows = np.flatnonzero(groups == int(example["list"]))
        assert example["rows"] == len(rows)
        assert labels[rows].any(axis=0).all() or place  # the first has a positive of each goal
        scores = front.lists.first.scores[:, rows]
        for scored, ranked in zip(scores, example["rank"], strict=True):
            assert np.array_equal(np.argsort(np.argsort(-scored, kind="stable")) + 1, ranked)
        assert np.array_equal(example["labels"], labels[rows])
    assert extra.examples["fields"][0] == "item"  # a word by which people know items


def test_segments_are_measured_where_there_are_enough_rows(evaluated_with_lists, evaluated):
    front, extra = evaluated
    (country,) = [each for each in extra.segments if each["field"] == "country"]
    assert sum(country["count"]) == front.rows
    assert set(country["names"]) == {"c0", "c1", "c2", "c3"}
    assert np.shape(country["values"]) == (4, 5, 2)
    assert country["of"] == "predictions"  # countries differ within a list
    assert all(value[0][0] is None or 0.3 < value[0][0] < 1 for value in country["values"])


def test_the_verdict_comes_first_and_lists_before_predictions(evaluated_with_lists):
    front, extra = evaluated_with_lists
    first, *others = verdict(front)
    change = front.lists.first.ndcg[-1] - front.lists.first.ndcg[0]
    assert change[0] > 0  # no price on so few rows
    assert first.startswith(
        f"From click-first to buy-first this model moves NDCG@10 of click by {change[0]:+.4f} and "
        f"NDCG@10 of buy by {change[1]:+.4f}"
    )
    assert any(line.startswith("The predictions: ") for line in others)
    text = html_report.render(front, extra)
    assert text.index(first) < text.index('id="workspace"')
    nothing = dataclasses.replace(front, lists=None, preferences=None, samples=None)
    assert verdict(nothing) == ["This model takes no preference: its front is one point."]


def test_a_price_is_told_as_one():
    weights = np.linspace(0, 1, 11)
    values = np.stack([0.8 - 0.02 * weights**2, 0.6 + 0.15 * weights], axis=1)
    made = views_of(values, 0.001 * np.random.default_rng(0).normal(size=(50, 11, 2)))
    (line,) = of_view(made)
    assert line == (
        "From click-first to buy-first this model gives up 0.020 NDCG@10 of click for 0.150 "
        "NDCG@10 of buy, beyond the noise of these rows."
    )
    best, none = choices(made)
    assert best.startswith("Best guarded choice for buy: weights 0.40 / 0.60, 0.015 NDCG@10 above")
    assert none.startswith("No preference is surely better for click than equal weights")


def test_a_guarded_choice_is_the_best_that_surely_keeps_the_others():
    rng = np.random.default_rng(0)
    weights = np.linspace(0, 1, 11)
    values = np.stack([0.8 - 0.1 * weights**2, 0.6 + 0.1 * weights], axis=1)
    made = views_of(values, 0.001 * rng.normal(size=(200, 1, 2)) * np.ones((200, 11, 2)))
    # All resamples move alike, so that differences are known exactly: .8 less 1 % is .792.
    assert made.guarded(1, 0.01, 0) == 2
    assert made.guarded(0, 0.5, 0) == 0  # nothing is better for the first goal
    noisy = views_of(values, 0.05 * rng.normal(size=(200, 11, 2)))
    assert noisy.guarded(1, 0.01, 0) == 0
    assert dataclasses.replace(made, samples=None).guarded(1, 0.01, 0) is None


def views_of(values, noise):
    """A view of two goals under eleven preferences."""
    weights = np.linspace(0, 1, len(values))
    return View(
        "lists",
        ("click", "buy"),
        ("ndcg@10/click", "ndcg@10/buy"),
        ("NDCG@10",) * 2,
        (True, True),
        np.stack([1 - weights, weights], axis=1),
        values,
        np.ones(len(values), bool),
        values + noise,
    )


def test_the_config_is_what_differs_from_the_defaults(small_store):
    from hyperrec_jax.training.workdir import flatten

    config = tiny_config(small_store, train__epochs=7, model__num_experts=3)
    changed = changed_options(flatten(config))
    assert changed["train.epochs"] == 7
    assert changed["model.num_experts"] == 3
    assert changed["model.name"] == "pomoe"
    assert "optimizer.learning_rate" not in changed
    assert "model.gate_depth" not in changed
    assert len(changed) < 15


def test_the_download_is_the_front(evaluated):
    front, extra = evaluated
    page = html_report.render(front, extra)
    (encoded,) = re.findall(r"base64,([\w+/=]+)", page)
    rows = list(csv.DictReader(base64.b64decode(encoded).decode().splitlines()))
    assert [float(row["auc/click"]) for row in rows] == front.auc[:, 0].tolist()


def test_other_models_stand_beside(evaluated):
    front, extra = evaluated
    result = comparison.compare(front, {NASTY: front})
    page = html_report.render(front, dataclasses.replace(extra, comparison=result))
    parser = _parse(page)
    text = "".join(parser.text)
    assert NASTY in text
    assert not {"img"} & set(parser.tags)
    assert "click: regret " in text
    assert "Against other models" not in html_report.render(front, extra)


def test_intervals_hold_their_points_and_experts_share(evaluated):
    front, extra = evaluated
    low, high = front.auc_interval
    assert ((low < front.auc) & (front.auc < high)).all()
    low, high = front.loss_interval
    assert ((low < front.log_loss) & (front.log_loss < high)).all()
    assert extra.expert_use.shape == (5, 1, 2)
    np.testing.assert_allclose(extra.expert_use.sum(axis=-1), 1)
    assert np.ptp(extra.expert_use, axis=0).max() > 0


@pytest.mark.parametrize(("name", "gates"), [("mmoe", 2), ("sharedbottom", 0)])
def test_expert_use_without_a_preference(evaluated, small_store, name, gates):
    front, extra = evaluated
    schema, batch = small_store.schema, small_store.split("test").slice(0, 700)
    options = {"num_experts": 3} if gates else {}
    model, variables, _ = make_model(
        name, schema.num_tasks, options, schema.field_sizes, schema.num_numerical
    )
    trained = SimpleNamespace(network=model, variables=variables, schema=schema)
    use = expert_use_of(trained, batch, None)
    ignores = dataclasses.replace(front, preferences=None)
    page = html_report.render(ignores, dataclasses.replace(extra, expert_use=use))
    if not gates:
        assert use is None
        assert "Expert use" not in page
        return
    assert use.shape == (1, gates, 3)
    np.testing.assert_allclose(use.sum(axis=-1), 1, rtol=1e-5)
    assert np.shape(_facts(page)["experts"]["use"]) == (1, gates, 3)


def test_what_comes_from_data_is_escaped(evaluated):
    front, extra = evaluated
    nasty = {"click": NASTY, "buy": "</script><b>"}
    renamed = {
        name: {
            f"{key.partition('/')[0]}/{nasty[key.partition('/')[2]]}": v for key, v in old.items()
        }
        for name, old in (("measures", front.measures), ("better", front.better))
    }
    front = dataclasses.replace(front, tasks=tuple(nasty.values()), **renamed)
    extra = dataclasses.replace(
        extra,
        source=NASTY,
        workdir=NASTY,
        changed={NASTY: NASTY},
        versions={"a": "</td><i>"},
        examples={"fields": [NASTY], "lists": []},
    )
    page = html_report.render(front, extra)
    assert _facts(page)["goals"] == list(nasty.values())
    parser = _parse(page)
    assert not {"img", "b", "i"} & set(parser.tags)
    assert parser.handlers == []
    assert parser.tags.count("script") == 2
    assert NASTY in "".join(parser.text)


def test_ids_are_told_as_values(small_store):
    fields = (
        CategoricalField("item", 3),
        CategoricalField("page", 9, hashed=True),
        CategoricalField("city", 2, min_count=5),
    )
    schema = dataclasses.replace(small_store.schema, categorical=fields, numerical=())
    raw = RawValues(schema, [pa.array(["hat", "shoe"]), pa.array([]), pa.array([7])])
    batch = {"categorical": np.array([[0, 8, 1], [2, 3, 0]])}
    assert raw.columns(batch) == [["(new)", "shoe"], ["hash 8", "hash 3"], ["7", "(rare or new)"]]
    assert raw.naming(raw.columns(batch)) == [0, 1, 2]


def test_one_class_no_preference_and_three_tasks(evaluated):
    front, extra = evaluated
    measures = front.measures | {"auc/buy": np.full(len(front.loss), np.nan)}
    areas = front.samples.auc.copy()
    areas[..., 1] = np.nan
    samples = front.samples._replace(auc=areas)
    one_class = dataclasses.replace(front, measures=measures, positives=(100, 0), samples=samples)
    page = html_report.render(one_class, extra)
    assert "AUC of buy is undefined" in page
    plain = dataclasses.replace(extra, expert_use=None)
    ignores = dataclasses.replace(front, preferences=None, samples=None)
    page = html_report.render(ignores, plain)
    assert _facts(page)["preferences"] is None
    of = {"click": "click", "cart": "buy", "buy": "buy"}
    names = [(name, task) for name in ("auc", "log_loss", "calibration") for task in of]
    three = dataclasses.replace(
        front,
        tasks=("click", "cart", "buy"),
        positives=(300, 200, 100),
        preferences=np.random.default_rng(0).dirichlet([1, 1, 1], 5),
        samples=None,
        labelled=front.labelled[:1] * 3,
        kinds=("binary",) * 3,
        primary=("auc",) * 3,
        better={f"{name}/{task}": front.better[f"{name}/click"] for name, task in names},
        measures={f"{name}/{task}": front.measures[f"{name}/{of[task]}"] for name, task in names},
        loss=front.loss[:, [0, 1, 1]],
    )
    curves = {place: {0: pair[0], 1: pair[1], 2: pair[1]} for place, pair in extra.curves.items()}
    page = html_report.render(three, dataclasses.replace(plain, curves=curves))
    facts = _facts(page)
    assert facts["views"][0]["labels"] == ["AUC"] * 3
    assert np.shape(facts["preferences"]) == (5, 3)
    assert set(facts["calibration"]["0"]) == {"0", "1", "2"}


def test_lists_come_first_where_there_are_any(evaluated, evaluated_with_lists, tmp_path):
    front, extra = evaluated
    with_lists, _ = evaluated_with_lists
    page = html_report.render(*evaluated_with_lists)
    parser = _parse(page)
    assert len(parser.ids) == len(set(parser.ids))
    assert [view["name"] for view in _facts(page)["views"]] == ["lists", "predictions", "losses"]
    assert f"<td>{with_lists.lists.first.ndcg[2, 1]:.4f}</td>" in page
    assert "<h2>Lists</h2>" not in html_report.render(front, extra)
    plot(front, tmp_path / "one.png")
    plot(with_lists, tmp_path / "two.png")
    (one, other) = (imread(tmp_path / name).shape for name in ("one.png", "two.png"))
    assert other[0] == 2 * one[0]  # a row of pictures of the lists above
