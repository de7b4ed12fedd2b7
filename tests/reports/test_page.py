"""The page: what it holds, that it escapes, and that a browser sorts its table."""

import base64
import csv
import dataclasses
import html.parser
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from hyperrec_jax.evaluation import comparison
from hyperrec_jax.reports import page as html_report
from hyperrec_jax.reports.details import details, expert_use_of
from hyperrec_jax.reports.plots import plot
from hyperrec_jax.training.trained import load_trained
from tests.models.test_models import make_model

pytestmark = pytest.mark.slow

NASTY = '<img src=x onerror="alert(1)">$_{'


@pytest.fixture(scope="module")
def evaluated(trained_run, small_store):
    trained = load_trained(trained_run)
    front, scores = trained.score(small_store, "test", 5, resamples=30)
    split = small_store.split("test")
    extra = details(trained_run, trained, split, scores, front)
    return front, extra


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


def test_the_page_stands_alone_and_holds_it_all(evaluated):
    front, extra = evaluated
    page = html_report.render(front, extra)
    parser = _parse(page)
    text = " ".join(parser.text)
    for title in ("Front", "Preferences", "Calibration", "Expert use", "Training", "Config"):
        assert title in text
    assert parser.tags.count("svg") == 5
    assert len(parser.ids) == len(set(parser.ids))
    assert all(link.startswith(("#", "data:")) for link in parser.links)
    assert all(link[1:] in parser.ids for link in parser.links if link.startswith("#"))
    assert page == html_report.render(front, extra)


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
    schema, split = small_store.schema, small_store.split("test")
    options = {"num_experts": 3} if gates else {}
    model, variables, _ = make_model(
        name, schema.num_tasks, options, schema.field_sizes, schema.num_numerical
    )
    trained = SimpleNamespace(network=model, variables=variables, schema=schema)
    use = expert_use_of(trained, split, None)
    ignores = dataclasses.replace(front, preferences=None)
    page = html_report.render(ignores, dataclasses.replace(extra, expert_use=use))
    if not gates:
        assert use is None
        assert "Expert use" not in page
        return
    assert use.shape == (1, gates, 3)
    np.testing.assert_allclose(use.sum(axis=-1), 1, rtol=1e-5)
    assert "gate of click" in page


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
        extra, source=NASTY, config={NASTY: NASTY}, versions={"a": "</td><i>"}
    )
    parser = _parse(html_report.render(front, extra))
    assert not {"img", "b", "i"} & set(parser.tags)
    assert parser.handlers == []
    assert parser.tags.count("script") == 1
    assert NASTY in "".join(parser.text)


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
    assert "Against the weight" not in page
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
    assert page.count(">AUC cart</text>") == 2  # of three pairs


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here; install it to run this test")
    return found


def test_a_browser_sorts_the_table(browser, evaluated, tmp_path):
    front, extra = evaluated
    page = html_report.render(front, extra)
    click = 'document.querySelectorAll("#front th button")[2].click();'
    (tmp_path / "report.html").write_text(page.replace("</script>", f"{click}</script>"))
    result = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"file://{tmp_path}/report.html",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    body = result.stdout.split("<tbody>")[1].split("</tbody>")[0]
    column = [
        float(re.findall(r'data-value="([^"]+)"', row)[2]) for row in body.split("</tr>")[:-1]
    ]
    assert column == sorted(front.auc[:, 0])
    assert column != front.auc[:, 0].tolist()


def test_lists_come_first_where_there_are_any(evaluated, trained_run, small_store, tmp_path):
    front, extra = evaluated
    trained = load_trained(trained_run)
    scores = trained.score(small_store, "test", 5)[1]
    lists, _ = trained.lists(small_store, scores, "test", front.preferences, resamples=30)
    with_lists = dataclasses.replace(front, lists=lists)
    page = html_report.render(with_lists, extra)
    parser = _parse(page)
    assert parser.tags.count("svg") == 6
    assert len(parser.ids) == len(set(parser.ids))
    assert page.index("<h2>Lists</h2>") < page.index("<h2>Front</h2>")
    assert "trade-off of lists" in page
    assert f"<td>{lists.first.ndcg[2, 1]:.4f}</td>" in page
    assert "<h2>Lists</h2>" not in html_report.render(front, extra)
    plot(front, tmp_path / "one.png")
    plot(with_lists, tmp_path / "two.png")
    (one, other) = (imread(tmp_path / name).shape for name in ("one.png", "two.png"))
    assert other[0] == 2 * one[0]  # a row of pictures of the lists above
