"""Policies: what they decide, what is refused, and a change of one under load."""

import dataclasses
import datetime
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.server_bodies import linear_predictor
from hyperrec_jax.api.policies import differences
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import http, policy_file, policy_watch
from hyperrec_jax.serving.policy_file import read_policy
from hyperrec_jax.serving.policy_watch import WatchedPolicy
from tests.commands.test_serve import Client
from tests.conftest import ROOT
from tests.serving.test_server import ROW, metric, until

GOALS = ("click", "buy")
POLICY = """
version: 1
preferences:
  balanced: {click: 1, buy: 1}
  buy_first: {click: 0.3, buy: 0.7}
  click_first: {click: 0.8, buy: 0.2}
bounds: {buy: [0.2, 0.9]}
rules:
  - {segment: app, from: 2026-11-27, until: 2026-11-30, preference: buy_first}
  - {segment: app, preference: click_first}
  - {from: 2026-12-24T18:00:00+01:00, preference: buy_first}
default: balanced
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="policy.yaml"):
        path = tmp_path / name
        beside = tmp_path / "beside"
        beside.write_text(text)
        os.replace(beside, path)
        return path

    return write


def at(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("segment", "now", "name", "reason"),
    [
        ("app", "2026-11-26T23:59:59", "click_first", "rule 2"),
        ("app", "2026-11-27", "buy_first", "rule 1"),
        ("app", "2026-11-30T23:59:59", "buy_first", "rule 1"),  # the last day is one of them
        ("app", "2026-12-01", "click_first", "rule 2"),
        ("web", "2026-11-28", "balanced", "default"),
        (None, "2026-12-24T16:59", "balanced", "default"),
        (None, "2026-12-24T17:00", "buy_first", "rule 3"),
        ("app", "2026-12-25", "click_first", "rule 2"),
    ],
)
def test_the_first_rule_that_applies_decides(write, segment, now, name, reason):
    policy = read_policy(write(POLICY), GOALS)
    decision = policy.decide(None, segment, at(now))
    assert (decision.name, decision.reason) == (name, reason)
    np.testing.assert_array_equal(decision.weights, policy.preferences[name])
    np.testing.assert_allclose(policy.preferences["balanced"], [0.5, 0.5])


def test_wishes_go_first_within_the_bounds(write):
    policy = read_policy(write(POLICY), GOALS)
    own = policy.decide(np.float32([0.4, 0.6]), "app")
    assert (own.name, own.reason) == (None, "request")
    np.testing.assert_array_equal(own.weights, np.float32([0.4, 0.6]))
    assert policy.decide("buy_first", None).reason == "request"
    with pytest.raises(UserError, match=r"weight of buy is 0\.95, and the policy 1 allows 0\.2 to"):
        policy.decide(np.float32([0.05, 0.95]), None)
    with pytest.raises(UserError, match=r"none named 'buyfirst'; did you mean buy_first"):
        policy.decide("buyfirst", None)
    softer = read_policy(write(POLICY + "fallback: click_first\n"), GOALS)
    for wish in (np.float32([0.05, 0.95]), "nope"):
        decision = softer.decide(wish, None)
        assert (decision.name, decision.reason) == ("click_first", "fallback")


@settings(deadline=None)
@given(st.floats(0, 1, width=32), st.sampled_from([None, "app", "web"]))
def test_no_request_gets_weights_beyond_the_bounds(weight, segment):
    content = f"{POLICY}fallback: balanced\n".encode()
    policy = policy_file.parse_policy(Path("policy.yaml"), content, GOALS)
    for wish in (np.float32([1 - weight, weight]), None):
        weights = policy.decide(wish, segment).weights
        assert 0.2 - 1e-5 <= weights[1] <= 0.9 + 1e-5
        assert weights.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1\n", "", "version is missing"),
        ("version: 1", "version: [1]", r"version: \[1\] is no text"),
        ("default: balanced", "default: balance", "default: no preference is named 'balance'"),
        ("default: balanced", "defualt: balanced", "no key 'defualt'; did you mean default"),
        ("click: 0.3, buy: 0.7", "click: 0.3", "buy_first: has no weight of goal 'buy'"),
        ("click: 0.3, buy: 0.7", "click: 0.3, sale: 1", "buy_first: no goal 'sale'"),
        ("click: 0.3, buy: 0.7", "click: -1, buy: 2", "buy_first: click: -1 is no number"),
        ("click: 0.3, buy: 0.7", "click: .nan, buy: 2", "buy_first: click: nan is no number"),
        ("click: 0.3, buy: 0.7", "click: 0, buy: 0", "all weights are 0"),
        ("click: 0.3, buy: 0.7", "click: 0, buy: 1", "buy: 1 is out of the bounds 0.2 to 0.9"),
        ("[0.2, 0.9]", "[0.9, 0.2]", r"bounds: buy: \[0\.9, 0\.2\] is not the least"),
        ("bounds: {buy: [0.2, 0.9]}", "bounds: {buy: [0, .3], click: [0, .3]}", "no weights"),
        ("until: 2026-11-30", "until: 2026-11-20", "rule 1: from is not before until"),
        ("until: 2026-11-30", "until: friday", "rule 1: until: 'friday' is no day"),
        ("18:00:00+01:00", "18:00:00", "rule 3: from: .* has no offset"),
        ("segment: app, preference", "segment: 3, preference", "rule 2: segment: 3 is no text"),
        ("click_first}\n  - {from: 2026-12-24T18:00:00+01:00,", "click_first}\n  - {segment: app,",
         "rule 3 never applies: rule 2"),
        ("preference: click_first", "preferences: click_first", "rule 2: no key 'preferences'"),
        ("  buy_first: {", "  balanced: {", "key 'balanced' is given twice"),
        ("preferences:", "preferences: [", "is no YAML"),
        ("default: balanced", "default: {balanced: .5}", "default: the shares sum to 0.5, not 1"),
        ("default: balanced", "default: {}", "default is missing"),
        ("default: balanced", "default: {balanced: 2, buy_first: -1}", "buy_first: -1 is no share"),
        ("preference: click_first", "preference: {no: 1}", "rule 2: preference: no preference is"),
    ],
)  # fmt: skip
def test_refusals_name_file_key_and_value(write, old, new, message):
    assert old in POLICY
    path = write(POLICY.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        read_policy(path, GOALS)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1", b"\xff\xfe", b"{: }", b"a: !!python/object:x 1"])
def test_what_is_no_policy_is_told(tmp_path, content):
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="policy"):
        read_policy(path, GOALS)
    with pytest.raises(UserError, match="can't be read"):
        read_policy(tmp_path / "no.yaml", GOALS)


def test_differences_say_for_whom_and_from_when(write):
    old = read_policy(write(POLICY), GOALS)
    text = POLICY.replace("segment: app, preference: click_first", "segment: web, preference: "
                          "click_first").replace("version: 1", "version: 2")  # fmt: skip
    new = read_policy(write(text, "new.yaml"), GOALS)
    found = differences(old, new, at("2026-11-20"))
    told = [(segment, f"{since:%m-%d}", a.name, b.name) for segment, since, (a,), (b,) in found]
    assert told == [
        ("app", "11-20", "click_first", "balanced"),
        ("app", "12-01", "click_first", "balanced"),
        ("app", "12-24", "click_first", "buy_first"),
        ("web", "11-20", "balanced", "click_first"),
        ("web", "12-24", "buy_first", "click_first"),
    ]
    assert differences(old, old, at("2026-11-20")) == []


DRAWS = POLICY.replace("default: balanced", "default: {balanced: 0.75, buy_first: 0.25}")


def test_shares_are_drawn_and_a_unit_keeps_its_own(write):
    policy = read_policy(write(DRAWS), GOALS)
    chances = {one.name: one.propensity for one in policy.outcomes(None, at("2026-11-20"))}
    assert chances == {"balanced": 0.75, "buy_first": 0.25}
    units = [f"user{number}" for number in range(2000)]
    drawn = [policy.decide(None, "web", at("2026-11-20"), unit) for unit in units]
    share = np.mean([one.name == "buy_first" for one in drawn])
    assert share == pytest.approx(0.25, abs=0.03)  # three standard deviations
    assert {(one.name, one.propensity) for one in drawn} == set(chances.items())
    later = read_policy(write(DRAWS.replace("version: 1", "version: 2"), "later.yaml"), GOALS)
    again = [later.decide(None, "web", at("2026-11-20"), unit) for unit in units]
    assert [one.name for one in again] == [one.name for one in drawn]
    anew = {policy.decide(None, None, at("2026-11-20")).name for _ in range(60)}
    assert anew == set(chances)  # but for a chance of 3e-8
    assert policy.decide("buy_first", None).propensity == 1


def test_a_change_of_shares_is_a_difference(write):
    old = read_policy(write(DRAWS), GOALS)
    swapped = DRAWS.replace(
        "{balanced: 0.75, buy_first: 0.25}", "{buy_first: 0.25, balanced: 0.75}"
    )
    assert differences(old, read_policy(write(swapped, "same.yaml"), GOALS), at("2026-11-20")) == []
    new = read_policy(write(POLICY, "new.yaml"), GOALS)
    found = differences(old, new, at("2027-01-01"))
    assert found == []  # rule 3 is for everyone by then
    ((segment, _, before, (after,)),) = differences(old, new, at("2026-11-20"))[:1]
    assert segment is None
    assert [(one.name, one.propensity) for one in before] == [
        ("balanced", 0.75),
        ("buy_first", 0.25),
    ]
    assert (after.name, after.propensity) == ("balanced", 1)


def ask(client, wish=None, segment=None):
    body = {"rows": [ROW]} | ({} if wish is None else {"preference": wish})
    query = "" if segment is None else f"?segment={segment}"
    return client.get(f"/predict{query}", json.dumps(body).encode())


def test_the_server_names_what_decided(write):
    predictor = linear_predictor()
    watched = WatchedPolicy(write(POLICY), GOALS)
    with Client(http.create_app(predictor, policies=watched)) as client:
        answer = json.loads(ask(client, "buy_first", "app").text)
        told = answer["policy"]
        assert told["weights"] == pytest.approx({"click": 0.3, "buy": 0.7})
        assert {k: told[k] for k in ("name", "version", "preference", "reason")} == {
            "name": "policy",
            "version": "1",
            "preference": "buy_first",
            "reason": "request",
        }
        assert told["propensity"] == 1
        expected = predictor.predict([ROW], [0.3, 0.7])
        np.testing.assert_allclose(answer["scores"], expected, rtol=1e-6)
        assert json.loads(ask(client).text)["policy"]["preference"] in ("balanced", "buy_first")
        refused = ask(client, [0, 1])
        assert refused.status == 400
        assert "the weight of buy is 1, and the policy 1 allows" in refused.text
        assert json.loads(client.get("/healthz").text)["policy"] == "1"
    with Client(http.create_app(predictor)) as client:
        assert "policy" not in json.loads(ask(client, [0.3, 0.7]).text)
        assert "the server has no policy" in ask(client, [0.3, 0.7], "app").text
        assert ask(client, "buy_first").status == 400
        refused = client.get("/predict?unit=u1", json.dumps({"rows": [ROW]}).encode())
        assert "unit: the server has no policy that tells units apart" in refused.text
    drawing = WatchedPolicy(write(DRAWS.replace("segment: app", "segment: tv")), GOALS)
    drawing.current = dataclasses.replace(drawing.current, rules=())
    with Client(http.create_app(predictor, policies=drawing)) as client:
        body = json.dumps({"rows": [ROW]}).encode()
        for unit in ("u1", "u2", "u3", "u4"):
            expected = drawing.current.decide(None, None, unit=unit)
            told = json.loads(client.get(f"/predict?unit={unit}", body).text)["policy"]
            assert (told["preference"], told["propensity"]) == (expected.name, expected.propensity)


def test_a_policy_changes_under_load_without_a_loss_or_a_mixture(write, monkeypatch, caplog):
    monkeypatch.setattr(policy_watch, "SECONDS", 0.02)
    text = "version: '{0}'\npreferences: {{p{0}: {{click: {1}, buy: {2}}}}}\ndefault: p{0}\n"
    weights = {str(n): (n + 1, 9 - n) for n in range(8)}
    path = write(text.format("0", *weights["0"]))
    predictor, stop, seen = linear_predictor(), threading.Event(), []
    expected = {
        version: predictor.predict([ROW, ROW], np.float32(pair) / 10)
        for version, pair in weights.items()
    }
    body = json.dumps({"rows": [ROW, ROW]}).encode()

    def hammer(client):
        while not stop.is_set():
            answer = client.get("/predict", body)
            values = json.loads(answer.text)
            seen.append((answer.status, values["policy"], values["scores"]))

    watched = WatchedPolicy(path, GOALS)
    with (
        Client(http.create_app(predictor, policies=watched)) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        workers = [pool.submit(hammer, client) for _ in range(4)]
        for version, pair in weights.items():
            write(text.format(version, *pair))
            until(lambda version=version: watched.current.version == version)
            write("version: bad\npreferences: {}\n")  # stays out of force
            until(lambda version=version: f"policy {version} stays in force" in caplog.text)
        stop.set()
        for worker in workers:
            worker.result()
        assert metric(client, 'hyperrec_policy_reads_total{taken="yes"}') == 7
        assert metric(client, 'hyperrec_policy_reads_total{taken="no"}') >= 7
    assert {status for status, _, _ in seen} == {200}
    for _, told, scores in seen:
        assert told["preference"] == f"p{told['version']}"
        np.testing.assert_allclose(scores, expected[told["version"]], rtol=1e-5)
    assert {told["version"] for _, told, _ in seen} >= {"0", "7"}


def test_the_same_version_with_other_content_is_not_taken(write, caplog):
    watched = WatchedPolicy(write(POLICY), GOALS)
    assert watched.look() is None
    write(POLICY.replace("click: 0.3, buy: 0.7", "click: 0.4, buy: 0.6"))
    assert watched.look() is False
    assert "other content under version 1 again" in caplog.text
    assert watched.current.preferences["buy_first"][1] == pytest.approx(0.7)
    write(POLICY)
    assert watched.look() is None
    write(POLICY.replace("version: 1", "version: 2"))
    assert watched.look() is True
    assert watched.current.version == "2"


def test_the_policy_of_the_documentation_is_one(write):
    text = (ROOT / "docs" / "operating.md").read_text("utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    policy = read_policy(write(example), GOALS)
    assert policy.decide(None, "app", at("2026-11-28")).name == "buy_first"
    assert policy_file.__doc__ is not None
    shown = re.sub(r"^    ", "", policy_file.__doc__, flags=re.MULTILINE)
    assert example in shown
