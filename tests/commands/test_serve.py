"""The HTTP server: right answers under load, one line for each mistake."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

import hyperrec_jax
from benchmarks import serve_load
from hyperrec_jax.serving import batching, http
from hyperrec_jax.serving.limits import Limits
from hyperrec_jax.serving.listen import Server
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def log(small_store):
    return small_store.path.parent / "log.csv"


@pytest.fixture(scope="module")
def rows(log):
    return pl.read_csv(log).head(200).to_dicts()


@pytest.fixture(scope="module")
def predictor(exported_model):
    return hyperrec_jax.load(exported_model)


Answer = namedtuple("Answer", "status text")


class Client:
    """A server in a thread, and requests to it."""

    def __init__(self, app):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:{1}".format(*self._listener.getsockname())
        limits = Limits(drain_seconds=0, graceful_seconds=5)
        self._server = Server(app, limits, log_level="critical")
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *exception):
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()

    def get(self, path, body=None):
        try:
            with urllib.request.urlopen(self.url + path, body, timeout=30) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())

    def send_head(self, length, more=""):
        """A connection on which `length` bytes of a request to /predict are announced, or chunks
        where it is None."""
        connection = socket.create_connection(self._listener.getsockname())
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        connection.sendall(f"POST /predict HTTP/1.1\r\nHost: test\r\n{size}\r\n{more}\r\n".encode())
        return connection

    def predict(self, rows, preference=None):
        return self.get("/predict", json.dumps({"rows": rows, "preference": preference}).encode())


@pytest.fixture(scope="module")
def client(predictor):
    with Client(http.create_app(predictor, Limits(max_rows=50))) as client:
        yield client


def _metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_answers_are_the_models(client, predictor, rows):
    for preference, weights in (([3, 7], [3, 7]), ({"buy": 1, "click": 0}, [0, 1]), (None, [1, 1])):
        answer = client.predict(rows[:10], preference)
        assert answer.status == 200
        assert json.loads(answer.text)["tasks"] == ["click", "buy"]
        expected = predictor.predict(rows[:10], weights)
        np.testing.assert_allclose(json.loads(answer.text)["scores"], expected, rtol=0, atol=1e-6)


def test_requests_at_once_get_their_own_rows_under_their_own_preference(client, predictor, rows):
    rng = np.random.default_rng(0)
    jobs = [
        (rows[start : start + int(rng.integers(1, 40))], rng.dirichlet([1, 1]).tolist())
        for start in range(0, 150, 3)
    ]
    before = _metric(client, "hyperrec_batch_rows_count")
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda job: client.predict(*job),
                jobs,
            )
        )
    for (part, preference), answer in zip(jobs, answers, strict=True):
        expected = predictor.predict(part, preference)
        np.testing.assert_allclose(json.loads(answer.text)["scores"], expected, rtol=0, atol=1e-6)
    assert _metric(client, "hyperrec_batch_rows_count") - before < len(jobs)  # some went together


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("{", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        ("[]", 400, "the body must be"),
        ('{"rows": 3}', 400, "the body must be"),
        ('{"rows": []}', 400, "rows: empty"),
        ('{"rows": [1]}', 400, "row 1: 1 is not an object"),
        ('{"rows": [{}]}', 400, "row 1 lacks column 'country'"),
        ('{"rows": [ROW], "prefrence": [1, 1]}', 400, "unknown key 'prefrence'"),
        ('{"rows": [ROW], "preference": [1]}', 400, "1 weights for 2 goals"),
        ('{"rows": [ROW], "preference": [-1, 2]}', 400, "negative"),
        ('{"rows": [ROW], "preference": [0, 0]}', 400, "all weights are zero"),
        ('{"rows": [ROW], "preference": [NaN, 1]}', 400, "NaN is no number of JSON"),
        ('{"rows": [ROW], "preference": [[1, 0], [0, 1]]}', 400, "weights are numbers"),
        ('{"rows": [ROW], "preference": {"click": 1}}', 400, "a weight for each of"),
        ('{"rows": [ROW], "preference": "much"}', 400, "not a list of numbers"),
        ('{"rows": [ROW], "preference": []}', 400, "one number for each goal"),
        (
            '{"rows": [{"country": "c1", "item": "1", "price": NaN, "age": 1}]}',
            400,
            "not JSON (NaN",
        ),
        ('{"rows": [{"country": "c1", "item": [1], "price": 1, "age": 1}]}', 400, "'item'"),
        ('{"rows": [' + ", ".join(["ROW"] * 51) + "]}", 413, "more than the 50 that"),
        (" " * (64 << 20), 413, "larger than 8 MiB"),
    ],
)
def test_a_bad_request_is_told_in_one_line(client, rows, body, status, message):
    answer = client.get("/predict", body.replace("ROW", json.dumps(rows[0])).encode())
    assert answer.status == status
    assert message in json.loads(answer.text)["error"]
    assert "\n" not in json.loads(answer.text)["error"]


def test_a_client_that_leaves_is_no_error(client, rows, caplog):
    name = 'hyperrec_requests_total{status="400"}'
    before = _metric(client, name)
    with client.send_head(1000) as connection:
        connection.sendall(b'{"rows": ')
    deadline = time.monotonic() + 30
    while _metric(client, name) == before:
        assert time.monotonic() < deadline
    assert client.predict(rows[:2]).status == 200
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_other_methods_and_paths(client):
    assert client.get("/predict").status == 405
    assert client.get("/nothing").status == 404


def test_health_and_metrics(client, rows):
    health = json.loads(client.get("/healthz").text)
    assert health["status"] == "ok"
    assert health["columns"] == ["country", "item", "price", "age"]
    names = ("hyperrec_rows_total", 'hyperrec_requests_total{status="200"}')
    before = [_metric(client, name) for name in names]
    client.predict(rows[:7])
    assert [_metric(client, name) for name in names] == [before[0] + 7, before[1] + 1]


def test_a_failing_model_does_not_stop_the_server(predictor, rows, monkeypatch):
    with Client(http.create_app(predictor)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(batching.Batcher, "_score", lambda self, jobs: 1 / 0)
            assert client.predict(rows[:2]).status == 500
        assert client.predict(rows[:2]).status == 200


def test_too_many_waiting_rows_are_refused(predictor, rows, monkeypatch):
    monkeypatch.setattr(batching, "MAX_QUEUED_ROWS", 5)
    with Client(http.create_app(predictor)) as client:
        answer = client.predict(rows[:6])
        assert answer.status == 503
        assert client.predict(rows[:5]).status == 200


def test_the_load_generator_finds_no_wrong_answer(exported_model, log, capsys, tmp_path):
    options = ["--seconds", "0.5", "--connections", "6", "--rows-a-request", "3", "--rounds", "1"]
    options += ["--against", str(ROOT), "--output", str(tmp_path / "load.md")]
    assert serve_load.main(["--model", str(exported_model), "--rows", str(log), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [name.strip() for name in lines[1].split("|")]
    values = dict(zip(names, lines[3].split("|"), strict=True))
    assert float(values["requests/s"].replace(",", "")) > 10
    assert float(values["old requests/s"].replace(",", "")) > 10
    text = (tmp_path / "load.md").read_text()
    assert "\n".join(lines[1:]) in text
    assert " 0 wrong answers." in text


def test_serving_needs_no_training_code(exported_model, trained_run, rows):
    """With only requirements-serve.txt at hand: the training code's answers, and a quiet end."""
    script = ROOT / "tests" / "serving" / "run_serving_only.py"
    command = [sys.executable, script, ROOT / "requirements-serve.txt", exported_model]
    expected = hyperrec_jax.load(trained_run).predict(rows, [0.3, 0.7])
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            url = server.stdout.readline().split()[-4]
            body = json.dumps({"rows": rows, "preference": [3, 7]}).encode()
            # The port is open before the model is compiled: the request waits for it.
            with urllib.request.urlopen(f"{url}/predict", body, timeout=120) as answer:
                scores = json.load(answer)["scores"]
            server.send_signal(signal.SIGINT)
            _, messages = server.communicate(timeout=60)
        finally:
            server.kill()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    assert server.returncode == 0
    assert messages == ""


@pytest.mark.slow
def test_a_taken_port_and_a_missing_model_are_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port, message in ((taken.getsockname()[1], "can't be listened on"), (0, "no exported")):
            result = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "hyperrec_jax",
                    "serve",
                    "--model",
                    tmp_path,
                    "--port",
                    f"{port}",
                ],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert result.returncode == 2
            assert message in result.stderr
            assert len(result.stderr.splitlines()) == 1
