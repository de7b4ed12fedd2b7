"""The log of requests: what it holds, how many it takes, and when it can't be written."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.server_bodies import linear_predictor
from hyperrec_jax.commands import serve
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import http, request_log
from hyperrec_jax.serving.policy_watch import WatchedPolicy
from hyperrec_jax.serving.request_log import RequestLog
from tests.commands.test_serve import Client
from tests.serving.test_server import ROW, metric, until

POLICY = """
version: 3
preferences: {own: {click: 0.3, buy: 0.7}}
default: own
"""


def new_log(predictor, folder, sample=1.0):
    return RequestLog(folder, sample, predictor.preprocess.schema, "model@1")


def test_a_file_has_what_was_asked_and_answered(tmp_path):
    predictor = linear_predictor()
    (tmp_path / "policy.yaml").write_text(POLICY)
    watched = WatchedPolicy(tmp_path / "policy.yaml", predictor.tasks)
    requests = new_log(predictor, tmp_path / "log")
    rows = [ROW, ROW | {"item": 10, "age": 20}]
    with Client(http.create_app(predictor, policies=watched, requests=requests)) as client:
        told = client.get("/predict?segment=app", json.dumps({"rows": rows}).encode())
        own = client.get("/predict", json.dumps({"rows": rows[:1], "preference": [1, 1]}).encode())
        assert client.get("/predict", b"{}").status == 400
    # The end of a server writes what waits.
    (file,) = (tmp_path / "log").iterdir()
    first, second = pq.read_table(file).to_pylist()
    encoded = predictor.preprocess(rows)
    assert first["id/item"] == encoded.categorical[:, 1].tolist()
    assert first["number/age"] == encoded.numerical[:, 1].tolist()
    scores = np.array(json.loads(told.text)["scores"])
    assert first["prediction/buy"] == scores[:, 1].astype(np.float32).tolist()
    assert {k: first[k] for k in ("segment", "policy_version", "policy_preference", "reason")} == {
        "segment": "app",
        "policy_version": "3",
        "policy_preference": "own",
        "reason": "default",
    }
    assert (first["model"], first["sample"]) == ("model@1", 1.0)
    assert (first["propensity"], second["propensity"]) == (1, 1)
    assert second["reason"] == "request"
    assert second["policy_preference"] is None
    assert (second["weight/click"], second["weight/buy"]) == (0.5, 0.5)
    assert second["prediction/click"] == [json.loads(own.text)["scores"][0][0]]


def test_files_are_only_added_and_a_failure_loses_no_request(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(request_log, "SECONDS", 0.02)
    predictor, folder = linear_predictor(), tmp_path / "log"
    requests = new_log(predictor, folder)
    body = json.dumps({"rows": [ROW]}).encode()
    with Client(http.create_app(predictor, requests=requests)) as client:
        assert client.get("/predict", body).status == 200
        until(lambda: len(list(folder.glob("*.parquet"))) == 1)
        (before,) = folder.glob("*.parquet")
        content = before.read_bytes()
        assert client.get("/predict", body).status == 200
        yes = 'hyperrec_logged_requests_total{written="yes"}'
        until(lambda: 'written="yes"} 2.0' in client.get("/metrics").text)
        assert before.read_bytes() == content
        shutil.rmtree(folder)
        assert client.get("/predict", body).status == 200
        until(lambda: "1 requests of the log are lost" in caplog.text)
        assert metric(client, yes) == 2
        assert metric(client, 'hyperrec_logged_requests_total{written="no"}') == 1


def test_the_sample_is_a_share_and_the_memory_bounded(tmp_path, monkeypatch):
    predictor = linear_predictor()
    requests = new_log(predictor, tmp_path, 0.1)
    requests._random.seed(0)
    assert 900 < sum(requests.taken() for _ in range(10_000)) < 1100
    monkeypatch.setattr(request_log, "MOST_ROWS", 3)
    rows = predictor.preprocess([ROW, ROW])
    logged = request_log.Logged(None, None, None, np.zeros(2), rows, None)
    assert requests.add(logged)
    assert not requests.add(logged)


@pytest.mark.parametrize("sample", [0.0, 1.5, -1.0])
def test_a_share_out_of_range_is_told(tmp_path, sample):
    with pytest.raises(UserError, match=r"--sample .*: give a share above 0 and at most 1"):
        new_log(linear_predictor(), tmp_path, sample)


def test_bad_options_are_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"--request-log .*can't be written"):
        new_log(linear_predictor(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(UserError, match="--sample: goes with --request-log"):
        serve.main(["--model", str(tmp_path), "--sample", "0.5"])
