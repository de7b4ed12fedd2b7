"""Drift: what is told on fresh rows that are as those of training, and on others."""

import json

import numpy as np
import pandas as pd
import pytest

from hyperrec_jax import Model
from hyperrec_jax.commands.monitor import DRIFTED, main
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.drift import (
    DriftLimits,
    calibration_checks,
    front_checks,
    guard_checks,
)
from hyperrec_jax.evaluation.guards import Guard, measures_of
from hyperrec_jax.evaluation.paired import Measured, Resampler, list_terms
from hyperrec_jax.goals import create_goal

KNOWN = measures_of((create_goal("binary", "click"), create_goal("binary", "buy")), lists=False)
ONE = np.array([[0.3, 0.7]])


def sampled(rng, mean, rows=400):
    drawn = Resampler(np.arange(rows), 200, seed=int(rng.integers(1 << 30)))
    found = drawn.measure([list_terms(rng.normal(mean, 0.3, rows))], [drawn.unit_of_row])
    return Measured(found.values[None], found.samples[:, None])


@pytest.mark.parametrize(("fallen", "least", "most"), [(0.0, 0, 3), (0.02, 0, 10), (0.12, 95, 100)])
def test_an_alarm_is_beyond_noise(fallen, least, most):
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        before, now = sampled(rng, 1.0), sampled(rng, 1.0 - fallen)
        (check,) = front_checks([KNOWN["auc/click"]], ONE, before, now, 0.02, 0.95)
        alarms += check.state == "ALARM"
    assert least <= alarms <= most  # where just the limit is lost, at most one in twenty


def test_calibration_counts_from_both_sides():
    measure = KNOWN["calibration/click"]
    for value, state in ((1.05, "fine"), (1.25, "ALARM"), (0.75, "ALARM"), (1.12, "fine")):
        rng = np.random.default_rng(1)
        samples = value + rng.normal(0, 0.02, (300, 1, 1))
        now = Measured(np.array([[value]]), samples)
        (check,) = calibration_checks([measure], ONE, now, now, 0.1, 0.95)
        assert check.state == state, value


def test_a_guard_is_kept_open_or_broken():
    guard = Guard.parse("auc/click>=-1%", KNOWN)
    rng = np.random.default_rng(2)
    for change, state in ((0.0, "fine"), (-0.008, "not sure"), (-0.03, "ALARM")):
        values = np.array([[0.7 * (1 + change)], [0.7]])
        noise = np.concatenate([rng.normal(0, 0.002, (300, 1, 1)), np.zeros((300, 1, 1))], axis=1)
        now = Measured(values, values + noise)
        (check,) = guard_checks([guard], [0], ONE[0], now, now, 0.95)
        assert check.state == state
        assert check.now == pytest.approx(change)


@pytest.mark.parametrize("name", ["drop", "calibration", "unseen"])
def test_limits_without_sense_are_told(name):
    with pytest.raises(UserError, match=f"--max-{name} -1: give 0 or more"):
        DriftLimits(**{name: -1.0})


@pytest.fixture(scope="module")
def log(small_store):
    return pd.read_csv(small_store.path.parent / "log.csv")


GIVEN = ("--preference", "0.3,0.7", "--guard", "auc/click>=-9%", "--resamples", "100")


@pytest.mark.slow
def test_rows_as_those_of_training_raise_no_alarm(trained_run, log, tmp_path, capsys):
    log.sample(frac=1, random_state=0).to_csv(tmp_path / "fresh.csv", index=False)
    output = tmp_path / "drift.json"
    limits = ("--max-drop", "0.1", "--max-calibration", "0.5", "--json", str(output))
    fresh = str(tmp_path / "fresh.csv")
    assert main(["--workdir", str(trained_run), "--data", fresh, *GIVEN, *limits]) == 0
    printed = capsys.readouterr().out
    values = json.loads(output.read_text())
    assert values["alarms"] == 0
    assert {check["kind"] for check in values["checks"]} == {
        "front",
        "calibration",
        "guard",
        "unseen",
    }
    assert "4,000 fresh rows against the " in printed
    assert f"0 of {len(values['checks'])} checks raise an alarm" in printed


@pytest.mark.slow
def test_other_rows_raise_the_alarms_that_they_should(trained_run, small_store, log):
    rng = np.random.default_rng(0)
    other = log.assign(
        click=rng.permutation(log["click"]),  # nothing tells clicks any more
        item=log["item"] + 100 * (rng.random(len(log)) < 0.5),
        buy=log["buy"] * (rng.random(len(log)) < 0.3),
    )
    drift = Model.load(trained_run, small_store).monitor(other, [0.3, 0.7])
    alarms = {(check.kind, check.name) for check in drift.alarms}
    assert {("front", "ndcg@10/click"), ("calibration", "calibration/buy")} <= alarms
    assert ("unseen", "item") in alarms
    assert ("unseen", "country") not in alarms
    (item,) = (check for check in drift.checks if check.name == "item")
    assert item.now == pytest.approx((other["item"] > 19).mean())
    assert DRIFTED == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--guard", "click>=-1%"), "name the preference in use"),
        (("--data", "no.csv"), "no such file"),
        (("--preference", "1,2;2,1"), "give one preference"),
        (("--json", "x.txt"), r"give a \.json file"),
        (("--confidence", "1"), "less than 1"),
    ],
)
@pytest.mark.slow
def test_refusals(trained_run, log, tmp_path, given, message):
    log.head(50).to_csv(tmp_path / "fresh.csv", index=False)
    with pytest.raises(UserError, match=message):
        main(["--workdir", str(trained_run), "--data", str(tmp_path / "fresh.csv"), *given])
