"""The explorer: its numbers against evaluation, its page in a browser."""

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from hyperrec_jax.commands import explore
from hyperrec_jax.config.resolve import create_model
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.serving.explorer.answers import Explorer
from hyperrec_jax.serving.explorer.app import create_app
from hyperrec_jax.training.state import example_batch
from hyperrec_jax.training.trained import load_trained
from tests.commands.test_serve import Client
from tests.conftest import tiny_config
from tests.support.browser import browser, until, visit  # noqa: F401 - fixtures

EQUAL = np.array([0.5, 0.5])

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(trained_run):
    return load_trained(trained_run)


@pytest.fixture(scope="module")
def explorer(trained, small_store):
    return Explorer(trained, small_store, "test", 10_000, grid=5)


@pytest.fixture(scope="module")
def client(explorer):
    with Client(create_app(explorer)) as client:
        yield client


def test_metrics_are_those_of_evaluation(explorer, trained, small_store):
    preference = np.array([[0.2, 0.8]])
    expected, scores = trained.score(small_store, "test", preference)
    lists, _ = trained.lists(small_store, scores, "test", preference)
    found = explorer.at(preference[0], 0, EQUAL)["values"]
    np.testing.assert_allclose(found["predictions"], expected.auc[0], atol=1e-4)
    np.testing.assert_allclose(found["losses"], expected.log_loss[0], atol=1e-6)
    np.testing.assert_allclose(found["lists"], lists.first.ndcg[0], atol=1e-4)
    front = trained.evaluate(small_store, "test", 5)
    np.testing.assert_allclose(explorer.front.auc, front.auc, atol=1e-4)


def test_a_list_is_a_search_in_the_order_of_the_list_score(explorer, trained, small_store):
    split = small_store.split("test")
    preferences = np.array([[0.9, 0.1], [0.5, 0.5]])
    scores = score_split(
        make_score_fn(trained.network),
        trained.variables,
        split,
        preferences,
        trained.mesh,
        batch_size=256,
    )
    scorer = trained.list_scorer(small_store)
    field = explorer.details.examples["fields"].index("item")
    assert field == 0
    for search in (0, 3):
        rows = explorer.lists[search]
        groups = split.groups(0, len(split))
        assert (np.flatnonzero(groups == groups[rows[0]]) == rows).all()
        shown = explorer.at(preferences[0], search, preferences[1])["list"]
        asked = scores.logits[0 if scorer.place() == "preference" else 1][:, rows]
        fused = scorer.score(asked.T, preferences[0])
        order = rows[np.argsort(-fused)]
        np.testing.assert_allclose(
            [item["score"] for item in shown], np.sort(fused)[::-1], rtol=1e-5
        )
        probabilities = 1 / (1 + np.exp(-scores.logits[0][:, order].T))
        np.testing.assert_allclose(
            [item["predictions"] for item in shown], probabilities, atol=1e-6
        )
        assert [item["labels"] for item in shown] == split.gather(order)["labels"].tolist()
        equal = rows[
            np.argsort(-scorer.score(scores.logits[1][:, rows].T, preferences[1]))
        ].tolist()
        assert [item["before"] - 1 for item in shown] == [equal.index(row) for row in order]
        ids = split.gather(order)["categorical"][:, 1]
        known = small_store.vocabulary("item")
        assert [item["values"][field] for item in shown] == [
            str(known[int(i) - 1].as_py()) for i in ids
        ]


def test_the_first_list_has_positives_of_each_goal(explorer, small_store):
    labels = small_store.split("test").gather(explorer.lists[0])["labels"]
    assert labels.any(axis=0).all()
    assert [len(rows) for rows in explorer.lists] == [
        each["rows"] for each in explorer.details.examples["lists"]
    ]


def test_a_sample_holds_whole_lists(trained, small_store):
    split = small_store.split("test")
    groups = split.groups(0, len(split))
    cut = int(np.flatnonzero(groups[1:] == groups[:-1])[30]) + 1  # within a list
    explorer = Explorer(trained, small_store, "test", cut, grid=1)
    assert explorer.front.rows == int((groups[:cut] != groups[cut - 1]).sum())


def test_requests_of_the_page(client, explorer):
    answer = json.loads(client.get("/at?preference=2,8&list=1&baseline=3,1").text)
    expected = explorer.at(np.array([0.2, 0.8]), 1, np.array([0.75, 0.25]))
    assert answer == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/at?preference=0,0", "all weights are zero"),
        ("/at", "could not convert"),
        ("/at?preference=1,1&list=999", "no list 999"),
        ("/at?preference=1,1&list=x", "invalid literal"),
        ("/at?preference=1,1;2,1", "could not convert"),
        ("/at?preference=/etc/passwd", "could not convert"),
        ("/at?preference=1,1&baseline=1,1,1", "baseline"),
    ],
)
def test_bad_requests_are_told(client, path, message):
    answer = client.get(path)
    assert answer.status == 422
    assert message in json.loads(answer.text)["error"]


def test_the_page_shows_its_numbers_in_a_browser(client, explorer, visit):  # noqa: F811
    page = visit(client.url)
    equal = explorer.at(EQUAL, 0, EQUAL)
    page.wait_for_selector("#list tbody tr")
    cells = page.locator("#measures td").all_inner_texts()
    for values in equal["values"].values():
        assert {f"{value:.4f}" for value in values} <= set(cells)
    page.locator("#weight").focus()
    page.keyboard.press("ArrowRight")  # between the preferences of the grid
    until(page, "state.point.place === null && !busy")
    weights = page.evaluate("state.point.weights")
    assert weights == pytest.approx([0.499, 0.501])
    found = explorer.at(np.array(weights), 0, EQUAL)
    assert page.locator("#list tbody tr").count() == sum(i["rank"] <= 10 for i in found["list"])
    assert page.locator("#measures tr:nth-child(1) td:nth-child(2)").inner_text() == (
        f"{found['values']['lists'][0]:.4f}"
    )


def _answer(route, request, with_):
    route.fulfill(**with_) if with_ else route.abort()


def test_the_page_goes_on_after_failed_requests(client, visit):  # noqa: F811
    page = visit(client.url)
    page.wait_for_selector("#list tbody tr")
    answers = [
        ({"status": 500, "body": "Internal Server Error"}, "status 500"),
        ({"status": 422, "json": {"error": "no list 7"}}, "no list 7"),
        (None, "is the explorer still running?"),
    ]
    for answer, told in answers:
        page.route("**/at?*", functools.partial(_answer, with_=answer))
        page.evaluate("choose([0.3, 0.7])")
        until(page, f"$('#status').textContent.includes({told!r})")
        page.unroute("**/at?*")
    page.evaluate("choose([0.2, 0.8])")
    until(page, "$('#status').textContent === '' && !busy")
    visit.told.clear()  # the browser's own lines on the failed requests


def test_a_long_mistake_is_not_repeated_whole(client):
    for path in ("/at?preference=", "/at?preference=1,1&list="):
        answer = client.get(path + "x" * 5000)
        assert answer.status == 422
        assert len(json.loads(answer.text)["error"]) <= 300


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(UserError, match="--rows 0: give 1 or more"):
        explore.main(["--workdir", str(tmp_path), "--rows", "0"])


def test_lists_of_a_model_without_preference_follow_it(trained, small_store, monkeypatch):
    config = tiny_config(small_store, model__name="sharedbottom")
    model = create_model(config, small_store.schema)
    batch, equal = example_batch(small_store.schema), np.full(2, 0.5, np.float32)
    variables = model.init(jax.random.key(0), batch, equal, False)
    other = dataclasses.replace(trained, network=model, config=config, variables=variables)
    explorer = Explorer(other, small_store, "test", 100, grid=5)
    assert (explorer.front.auc == explorer.front.auc[0]).all()
    ends = explorer.front.lists.first.ndcg[[0, -1]]
    assert not np.isclose(*ends).any()  # another order, whatever the untrained network says
    monkeypatch.setattr(type(small_store.schema), "plain", False)
    with pytest.raises(UserError, match="model sharedbottom takes no preference, and its goals"):
        Explorer(other, small_store, "test", 100)


def test_the_command_tells_mistakes_in_one_line(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "hyperrec_jax",
            "explore",
            "--workdir",
            tmp_path,
            "--port",
            "0",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert "no run is there" in result.stderr
