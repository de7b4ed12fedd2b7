"""The server's limits and measures, on a model that answers at once or when it is told to."""

import contextlib
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.server_bodies import RunningApp, ServerTarget, linear_predictor
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import batching, bodies, http
from hyperrec_jax.serving.limits import Limits
from hyperrec_jax.serving.listen import bind
from hyperrec_jax.serving.measures import UNSEEN_ROWS, UnseenShares
from hyperrec_jax.serving.predictor import Scored
from tests.commands.test_serve import Client

pytestmark = pytest.mark.slow

ROW = {"country": "at", "item": 7, "price": 1.0, "age": 41}
BODY = json.dumps({"rows": [ROW]}).encode()


@pytest.fixture(scope="module")
def app():
    running = RunningApp(http.create_app(linear_predictor()))
    yield running
    running.close()


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    found = [float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")]
    assert found, name
    return sum(found)


def read_answer(connection):
    """Head and body of an answer, up to its length."""
    connection.settimeout(30)
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(1 << 16)
        assert more, received
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(1 << 16)
    return head.decode().lower(), body.decode()


HUGE = "9" * 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": "1e300"}, "rows: row 2, column 'item': 1e+300 is not an integer"),
        (
            {"price": "1e39"},
            "rows: row 2, column 'price': 1e+39 is too large; a model reads numbers as float32",
        ),
        ({"price": "-1e39"}, "rows: row 2, column 'price': -1e+39 is too large"),
        ({"age": "1e39"}, "rows: row 2, column 'age': 1e+39 is too large"),
        ({"age": "1e999"}, "rows: row 2, column 'age': inf is not a finite number"),
        ({"age": HUGE}, "rows: row 2, column 'age': '9999"),
        ({"item": HUGE}, "rows: row 2, column 'item': '9999"),
        ({"country": '"\\ud800"'}, r"rows: row 2, column 'country': '\ud800' is not valid text"),
        ({"price": "NaN"}, "the body is not JSON (NaN is no number of JSON"),
        ({"age": "3.4e38"}, "rows: row 2: the model's answer is not a finite number"),
        ({"country": '{"a": 1}'}, "rows: row 2, column 'country': {'a': 1} is neither text nor"),
        ({"preference": f"[{HUGE}, 1]"}, "preference: a weight is too large"),
        ({"preference": f'{{"click": {HUGE}, "buy": 1}}'}, "preference: a weight is too large"),
        ({"preference": '["\\ud800", 1]'}, "preference: weights are numbers"),
        ({"preference": "[null, 1]"}, "preference: weights are numbers"),
        ({"preference": "[NaN, 1]"}, "the body is not JSON (NaN"),
        ({"preference": f'"{"x" * 5000}"'}, "preference: 'xxxx"),
        ({"\\ud800": "1"}, r"unknown key '\ud800'; there are rows, columns and preference"),
        ({"k" * (2 << 20): "1"}, "the body is not JSON, or a part of it is longer"),
        ({"k" * 10_000: "1"}, "unknown key 'kkkk"),
    ],
)
def test_what_is_valid_or_nearly_valid_json_is_refused_by_name(app, change, message):
    ((name, value),) = change.items()
    fields = {field: json.dumps(content) for field, content in ROW.items()}
    rest = ""
    if name in ROW:
        fields[name] = value
    else:
        rest = f', "{name}": {value}'
    row = ", ".join(f'"{field}": {content}' for field, content in fields.items())
    body = f'{{"rows": [{json.dumps(ROW)}, {{{row}}}]{rest}}}'
    status, answer = app.post("/predict", [body.encode()])
    error = json.loads(answer)["error"]
    assert error.startswith(message)
    assert status == 400
    assert len(error) < 300
    assert "\n" not in error


def test_numbers_beyond_32_bits_are_refused_by_the_predictor():
    predictor = linear_predictor()
    for price, message in ((1e39, "too large"), (-1e39, "too large"), (1e18, None)):
        rows = [ROW, ROW | {"price": price}]
        if message:
            with pytest.raises(UserError, match=f"row 2, column 'price': .*{message}"):
                predictor.predict(rows)
        else:
            assert np.isfinite(predictor.predict(rows)).all()
    with pytest.raises(UserError, match="row 2: the model's answer is not a finite number"):
        predictor.predict([ROW, ROW | {"age": 3.4e38}], [[1, 2], [1, 0]])
    with pytest.raises(UserError, match=r"row 2, column 'country': .* is not valid text"):
        predictor.predict([ROW, ROW | {"country": "\udfff"}])
    with pytest.raises(UserError, match="preference: a weight is too large"):
        predictor.predict([ROW], [10**400, 1])
    with pytest.raises(UserError) as refused:
        predictor.predict([ROW], "x" * 10_000)
    assert len(str(refused.value)) < 200


def test_health_is_answered_while_a_large_body_is_decoded(monkeypatch):
    decoding, go_on, threads = threading.Event(), threading.Event(), []
    decode = http.decode_request

    def slow(body, *arguments):
        threads.append(threading.current_thread().name)
        decoding.set()
        assert go_on.wait(30)
        return decode(body, *arguments)

    monkeypatch.setattr(http, "decode_request", slow)
    with Client(http.create_app(linear_predictor())) as client, ThreadPoolExecutor() as pool:
        large = pool.submit(client.get, "/predict", BODY + b" " * (1 << 20))
        assert decoding.wait(30)
        assert client.get("/healthz").status == 200
        assert metric(client, "hyperrec_requests_in_flight") == 1
        assert metric(client, "hyperrec_body_bytes") == len(BODY) + (1 << 20)
        go_on.set()
        assert large.result().status == 200
        assert metric(client, "hyperrec_requests_in_flight") == 0
        assert metric(client, "hyperrec_body_bytes") == 0
    assert threads[0].startswith("hyperrec-decode")


def test_eight_mebibytes_of_nested_lists_are_refused(app):
    for filling in (b"[],", b"[" * 900 + b"]" * 900 + b","):
        body = b'{"rows": [' + filling * ((8 << 20) // len(filling) - 10) + b"[]]}"
        status, answer = app.post("/predict", [body])
        assert (status, json.loads(answer)["error"]) == (
            400,
            f"rows: row 1: {'[]' if filling == b'[],' else '[' * 80 + '...'} is not an object, "
            "{column: value}",
        )


def test_a_body_that_does_not_arrive_is_given_up():
    limits = Limits(body_seconds=0.3)
    with Client(http.create_app(linear_predictor(), limits)) as client:
        with client.send_head(1000) as connection:
            connection.sendall(b"{")
            head, body = read_answer(connection)
            assert " 408 " in head
            assert "connection: close" in head
            assert "did not arrive within 0.3 seconds" in body
            assert connection.recv(1) == b""
        assert metric(client, 'hyperrec_requests_total{status="408"}') == 1
        assert metric(client, "hyperrec_body_bytes") == 0


def test_half_sent_bodies_hold_no_more_than_they_may():
    half = b" " * (1 << 20)
    with Client(http.create_app(linear_predictor(), Limits(body_mib=8))) as client:
        connections = [client.send_head(2 * len(half)) for _ in range(20)]
        for connection in connections:
            connection.sendall(half)
        until(lambda: metric(client, "hyperrec_body_bytes") > 7 << 20)
        assert metric(client, "hyperrec_requests_in_flight") == 20
        assert client.get("/healthz").status == 200
        statuses = []
        for connection in connections:
            assert metric(client, "hyperrec_body_bytes") <= 8 << 20
            connection.sendall(half)
            with connection:
                head, _ = read_answer(connection)
                statuses.append(head.split()[1])
                assert ("retry-after: 1" in head) == (statuses[-1] == "503")
        # Of 20 bodies 8 at most were held, by halves; those that were are no JSON.
        assert set(statuses) == {"503", "400"}
        assert statuses.count("503") >= 12
        until(lambda: metric(client, "hyperrec_body_bytes") == 0)
        assert client.get("/predict", BODY).status == 200


def test_a_body_without_an_end_is_cut(monkeypatch):
    monkeypatch.setattr(bodies, "DISCARDED_BYTES", 1 << 20)
    with Client(http.create_app(linear_predictor())) as client:
        with client.send_head(None) as connection:
            sent, chunk = 0, b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            with contextlib.suppress(OSError):  # a reset, or a broken pipe
                while sent < 100 << 20:
                    connection.sendall(chunk)
                    sent += 0x10000
        # What the kernel's buffers took was not read by the server.
        assert (8 << 20) < sent < (32 << 20)
        until(lambda: 'status="413"} 1.0' in client.get("/metrics").text)
        assert metric(client, "hyperrec_body_bytes") == 0


def test_a_client_that_asks_before_it_sends_hears_at_once():
    with Client(http.create_app(linear_predictor())) as client:
        with client.send_head(1 << 40, "Expect: 100-continue\r\n") as connection:
            head, body = read_answer(connection)
        assert " 413 " in head
        assert "larger than 8 MiB" in body


def test_too_many_requests_at_once_are_told_to_come_back():
    scoring, go_on = threading.Event(), threading.Event()
    go_on.set()

    def wait():
        scoring.set()
        assert go_on.wait(30)

    app = http.create_app(linear_predictor(wait), Limits(max_in_flight=1))
    with Client(app) as client, ThreadPoolExecutor() as pool:
        go_on.clear()
        first = pool.submit(client.get, "/predict", BODY)
        until(lambda: metric(client, "hyperrec_requests_in_flight") == 1 and scoring.is_set())
        with client.send_head(len(BODY)) as connection:
            connection.sendall(BODY)
            head, body = read_answer(connection)
        assert " 503 " in head
        assert "retry-after: 1" in head
        assert "too many requests" in body
        assert client.get("/healthz").status == 200
        go_on.set()
        assert first.result().status == 200
        assert metric(client, 'hyperrec_requests_total{status="503"}') == 1


def test_a_failure_is_counted_and_logged(monkeypatch, caplog):
    with Client(http.create_app(linear_predictor())) as client:
        monkeypatch.setattr(batching.Batcher, "_score", lambda self, jobs: 1 / 0)
        answer = client.get("/predict", BODY)
        assert answer.status == 500
        assert json.loads(answer.text)["error"].startswith("the server failed to answer")
        assert metric(client, 'hyperrec_requests_total{status="500"}') == 1
    assert "ZeroDivisionError" in caplog.text


def test_latency_counts_the_wait_for_the_event_loop(monkeypatch):
    decode, started = http.decode_quickly, threading.Event()

    def slow(*arguments):  # a small body: in the event loop itself
        started.set()
        time.sleep(0.3)
        return decode(*arguments)

    with Client(http.create_app(linear_predictor())) as client, ThreadPoolExecutor() as pool:
        with client.send_head(len(BODY)) as one, client.send_head(len(BODY)) as two:
            until(lambda: metric(client, "hyperrec_requests_in_flight") == 2)
            monkeypatch.setattr(http, "decode_quickly", slow)
            first = pool.submit(client.get, "/predict", BODY)
            assert started.wait(30)  # the loop is blocked; both bodies come meanwhile
            for connection in (one, two):
                connection.sendall(BODY)
            assert " 200 " in read_answer(one)[0]
            assert " 200 " in read_answer(two)[0]
            assert first.result().status == 200
        # One after the other: 0.3, 0.6 and 0.9 s at least, from when each head was there.
        assert metric(client, "hyperrec_request_seconds_sum") >= 1.8
        waits = metric(client, "hyperrec_loop_wait_seconds_count")
        assert metric(client, 'hyperrec_loop_wait_seconds_bucket{le="0.1"}') < waits


def test_unseen_values_are_counted_by_field_and_warned_of(caplog):
    unseen = json.dumps({"rows": [ROW | {"item": 99}] * 900 + [ROW] * 100}).encode()
    seen = json.dumps({"rows": [ROW] * 1000}).encode()
    with Client(http.create_app(linear_predictor())) as client:
        assert metric(client, 'hyperrec_unseen_share{field="item"}') == 0
        assert client.get("/predict", unseen).status == 200
        assert metric(client, 'hyperrec_unseen_values_total{field="item"}') == 900
        assert metric(client, 'hyperrec_unseen_values_total{field="country"}') == 0
        assert metric(client, 'hyperrec_unseen_share{field="item"}') == 0.9
        (warning,) = (r.getMessage() for r in caplog.records if "never saw" in r.getMessage())
        assert warning.startswith("POST /predict: field 'item': 90.0% of 1,000 rows have a value")
        client.get("/predict", unseen)
        assert caplog.text.count("never saw") == 1  # once, until it has been low again
        client.get("/predict", seen)
        assert metric(client, 'hyperrec_unseen_share{field="item"}') == 0
        assert metric(client, 'hyperrec_unseen_values_total{field="item"}') == 1800
        client.get("/predict", unseen)
        assert caplog.text.count("never saw") == 2


def test_shares_are_those_of_the_last_rows(caplog):
    rng = np.random.default_rng(0)
    shares = UnseenShares(linear_predictor().preprocess.schema)
    history = np.zeros((0, 2), bool)
    for _ in range(60):
        unseen = rng.random((int(rng.integers(1, 200)), 2)) < [0.05, 0.1]
        history = np.concatenate([history, unseen])
        found = shares.add(len(unseen), unseen.sum(axis=0))
        ends = [history[-size:].mean(axis=0) for size in range(UNSEEN_ROWS, UNSEEN_ROWS + 200)]
        if len(history) >= UNSEEN_ROWS:
            assert any(np.allclose(found, end) for end in ends)
        else:
            np.testing.assert_allclose(found, history.mean(axis=0))
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_rows": 0}, "--max-rows 0: give 1 to 65,536"),
        ({"max_rows": 65_537}, "--max-rows 65537: give 1 to 65,536"),
        ({"max_in_flight": 0}, "--max-in-flight 0: give 1 or more"),
        ({"body_seconds": 0.0}, "--body-seconds 0: give a number above 0"),
        ({"body_seconds": float("nan")}, "--body-seconds nan: give a number above 0"),
        ({"body_mib": 7}, "--body-mib 7: give 8 or more"),
        ({"drain_seconds": -1.0}, "--drain-seconds -1: give 0 or more"),
        ({"drain_seconds": float("inf")}, "--drain-seconds inf: give 0 or more"),
        ({"graceful_seconds": 0}, "--graceful-seconds 0: give 1 or more"),
    ],
)
def test_a_limit_out_of_its_range_is_refused(change, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Limits(**change)


def test_the_fuzz_notices_what_is_no_refusal(monkeypatch):
    target = ServerTarget(lambda body, generator: body)
    target.send(BODY, random.Random(0))
    made_up = Scored(np.full((1, 2), 0.25), None)
    monkeypatch.setattr(batching.Batcher, "_score", lambda self, jobs: made_up)
    with pytest.raises(AssertionError, match="other scores than the model's"):
        target.send(BODY, random.Random(0))
    monkeypatch.setattr(batching.Batcher, "_score", lambda self, jobs: 1 / 0)
    with pytest.raises(AssertionError, match="status 500"):
        target.send(BODY, random.Random(0))
    target.close()


def test_ports_of_ipv6_and_names_are_listened_on():
    with bind("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with bind("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("", 0, "--host is empty"),
        ("127.0.0.1", 70_000, "--port 70000: give 0 to 65535"),
        ("127.0.0.1", -1, "--port -1: give 0 to 65535"),
        ("no such host", 0, "can't be listened on"),
        ("a" * 300, 0, "can't be listened on"),
    ],
)
def test_what_can_not_be_listened_on_is_told(host, port, message):
    with pytest.raises(UserError, match=message):
        bind(host, port)
