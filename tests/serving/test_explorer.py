"""The explorer: its numbers against evaluation, its page in a browser."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hyperrec_jax.commands import explore
from hyperrec_jax.config.resolve import create_model
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.choice import suggest_preference
from hyperrec_jax.evaluation.outputs import make_score_fn, score_split
from hyperrec_jax.serving import Preprocessor
from hyperrec_jax.serving.explorer.answers import Explorer
from hyperrec_jax.serving.explorer.app import create_app
from hyperrec_jax.training.trained import load_trained
from tests.commands.test_serve import Client
from tests.conftest import tiny_config
from tests.reports.test_page import browser  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def preprocess(small_store):
    return Preprocessor.open(small_store.schema, small_store.path / "vocabulary.arrow")


@pytest.fixture(scope="module")
def trained(trained_run):
    return load_trained(trained_run)


@pytest.fixture(scope="module")
def explorer(trained, preprocess, small_store):
    return Explorer(trained, preprocess, small_store, "test", 10_000, grid=5)


@pytest.fixture(scope="module")
def client(explorer):
    with Client(create_app(explorer)) as client:
        yield client


def test_metrics_are_those_of_evaluation(explorer, trained, small_store):
    expected = trained.evaluate(small_store, "test", np.array([[0.2, 0.8]]))
    found = explorer.at(np.array([0.2, 0.8]), 0)
    np.testing.assert_allclose(found["value"], expected.auc[0], atol=1e-4)
    np.testing.assert_allclose(found["loss"], expected.log_loss[0], atol=1e-6)
    front = trained.evaluate(small_store, "test", 5)
    np.testing.assert_allclose(explorer.front.auc, front.auc, atol=1e-4)


def test_a_list_is_a_search_in_the_order_of_the_list_score(
    explorer, trained, small_store, preprocess
):
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
    for search in (0, 3):
        rows = explorer.searches[search]
        groups = split.groups(0, len(split))
        assert (np.flatnonzero(groups == groups[rows[0]]) == rows).all()
        shown = explorer.at(preferences[0], search)["list"]
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
        assert [item["equal"] - 1 for item in shown] == [equal.index(row) for row in order]
        ids = split.gather(order)["categorical"][:, 1]
        known = [preprocess.vocabulary[1][int(i) - 1].as_py() for i in ids]
        assert [item["values"]["item"] for item in shown] == known


def test_requests_of_the_page(client, explorer):
    answer = json.loads(client.get("/at?preference=2,8&search=1").text)
    assert answer == json.loads(json.dumps(explorer.at(np.array([0.2, 0.8]), 1)))
    chosen = json.loads(client.get("/suggest?goal=best:buy").text)["preference"]
    expected = suggest_preference(explorer.front, "best:buy").preference
    np.testing.assert_allclose(chosen, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/at?preference=0,0", "all weights are zero"),
        ("/at", "could not convert"),
        ("/at?preference=1,1&search=999", "no search 999"),
        ("/at?preference=1,1&search=x", "invalid literal"),
        ("/at?preference=1,1;2,1", "could not convert"),
        ("/at?preference=/etc/passwd", "could not convert"),
        ("/suggest?goal=most", "unknown; there are best, knee, ratio"),
    ],
)
def test_bad_requests_are_told(client, path, message):
    answer = client.get(path)
    assert answer.status == 422
    assert message in json.loads(answer.text)["error"]


def test_the_page_shows_its_numbers_in_a_browser(client, explorer, browser, tmp_path):  # noqa: F811
    result = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            client.url,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    equal = explorer.at(np.array([0.5, 0.5]), 0)
    for value in (*equal["value"], *equal["loss"], *equal["list"][0]["predictions"]):
        assert f"<td>{value:.4f}</td>" in result.stdout
    assert result.stdout.count("<circle") == 6


FAILING = """
let calls = 0;
const events = [], made = {}, answers = [
  () => Promise.reject(new TypeError("fetch failed")),
  () => Promise.resolve(new Response("Internal Server Error", {status: 500})),
  () => Promise.resolve(new Response('{"error": "no search 7"}', {status: 422})),
  () => Promise.resolve(new Response('{"list": []}')),  // not what the page can draw
  () => Promise.resolve(new Response(GOOD)),
];
const fetch = () => answers[calls++]();
class Node {}
const fake = () => new Proxy({value: "500"}, {get: (target, key) => target[key] ?? (
  key === "addEventListener" ? (name, handler) => events.push([name, handler]) :
  ["append", "setAttribute", "replaceChildren", "forEach"].includes(key) ? () => {} : undefined)});
const document = {
  querySelector: selector => made[selector] ??= fake(), querySelectorAll: fake,
  createElement: fake, createElementNS: fake,
};
"""


def test_the_page_goes_on_after_failed_requests(client, explorer, tmp_path):
    """The page's own script, with a document that takes everything and a network that fails."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js here; install it to run this test")
    page = client.get("/").text
    script = page.partition("<script>")[2].partition("</script>")[0]
    good = json.dumps(client.get("/at?preference=1,1").text)
    end = """
    (async () => {
      process.on("unhandledRejection", () => {});
      const wait = () => new Promise(done => setTimeout(done, 20));
      const update = events.find(([name]) => name === "input")[1];
      const told = [];
      for (let i = 0; i < answers.length; i++) {
        if (i) update().catch(() => {});
        await wait();
        told.push([calls, made["#error"].textContent]);
      }
      console.log(JSON.stringify(told));
    })();"""
    (tmp_path / "page.js").write_text(FAILING.replace("GOOD", good) + script + end)
    result = subprocess.run(
        [node, tmp_path / "page.js"], capture_output=True, text=True, timeout=60
    )
    assert json.loads(result.stdout) == [
        [1, "No answer (fetch failed): is the server still running?"],
        [2, "status 500"],
        [3, "no search 7"],
        [4, ""],
        [5, ""],
    ], result.stderr


def test_a_long_mistake_is_not_repeated_whole(client):
    for path in ("/at?preference=", "/at?preference=1,1&search=", "/suggest?goal="):
        answer = client.get(path + "x" * 5000)
        assert answer.status == 422
        assert len(json.loads(answer.text)["error"]) <= 300


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(UserError, match="--rows 0: give 1 or more"):
        explore.main(["--workdir", str(tmp_path), "--rows", "0"])


def test_a_model_without_preference_is_refused(trained, preprocess, small_store):
    config = tiny_config(small_store, model__name="sharedbottom")
    model = create_model(config, small_store.schema)
    other = dataclasses.replace(trained, network=model, config=config)
    with pytest.raises(UserError, match="model sharedbottom takes no preference"):
        Explorer(other, preprocess, small_store, "test", 100)


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
