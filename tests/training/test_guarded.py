"""Choices under guards of a trained model: from the rows to the command's answer."""

import json

import numpy as np
import pytest

from hyperrec_jax import Model
from hyperrec_jax.commands.suggest import main
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_scorer import FUSIONS
from hyperrec_jax.training.guarded import suggest_guarded
from hyperrec_jax.training.measured import Measurer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(trained_run, small_store):
    return Model.load(trained_run, small_store)


def test_measures_are_those_of_the_front(model, small_store):
    grid = np.array([[0.9, 0.1], [0.2, 0.8]])
    front = model.evaluate(split="test", preferences=grid, fusions=FUSIONS[:1])
    opened = Measurer(model, small_store, "test", resamples=100)
    names = [name for name in opened.known if "/" in name and "@" not in name]
    rows = [name for name in names if name in front.measures]
    assert {"auc/click", "log_loss/buy", "calibration/click"} <= set(rows)
    found = opened.measure(grid, [opened.known[name] for name in rows])
    for column, name in enumerate(rows):
        np.testing.assert_allclose(found.values[:, column], front.measures[name], rtol=1e-6)
    lists = {"ndcg@10": "ndcg", "map": "map", "mrr": "mrr", "recall@10": "recall"}
    for shown, metric in (lists | {"grouped_auc": "auc"}).items():
        found = opened.measure(grid, [opened.known[f"{shown}/{goal}"] for goal in model.goals])
        np.testing.assert_allclose(found.values, front.lists.first.values[metric], rtol=1e-6)
    assert "lists (session)" in opened.drawn


def test_the_guard_is_kept_by_the_bound_and_reported_on_test_rows(model):
    found = model.suggest("max:buy", guard=["auc/click>=-1%"], confidence=0.9, baseline=[1, 1])
    goal, guard = found.rows
    assert guard.low >= -0.01
    assert guard.change >= guard.low
    assert goal.change >= 0
    assert found.against == "0.5,0.5"
    assert [row.name for row in found.tested] == [row.name for row in found.rows]
    front = model.evaluate(split="validation", preferences=found.preference[None])
    assert goal.value == pytest.approx(front.lists.first.ndcg[0, 1], abs=1e-6)
    assert guard.value == pytest.approx(front.auc[0, 0], abs=1e-6)


def test_another_run_may_be_the_baseline(model, small_store):
    asked = {"baseline": np.array([0.3, 0.7]), "grid": 3, "resamples": 100}
    goal, guards = "min:log_loss/buy", ["auc/click>=-50%"]
    found = suggest_guarded(model, small_store, goal, guards, baseline_run=model, **asked)
    assert found.against == f"0.3,0.7 of {model.folder}"
    (place,) = (row for row in found.rows if row.guard)
    front = model.evaluate(split="validation", preferences=np.array([[0.3, 0.7]]), fusions=())
    assert place.baseline == pytest.approx(front.auc[0, 0], abs=1e-6)


def test_the_command_prints_and_writes_the_choice(trained_run, tmp_path, capsys):
    output = tmp_path / "choice.json"
    main(
        [
            *("--workdir", str(trained_run), "--goal", "max:auc/buy", "--resamples", "200"),
            *("--guard", "auc/click>=-2%", "--confidence", "0.8", "--output", str(output)),
        ]
    )
    printed = capsys.readouterr().out
    values = json.loads(output.read_text())
    weights = ",".join(f"{weight:.4g}" for weight in values["preference"])
    assert printed.startswith(f"--preference {weights}\nchosen on the validation rows from")
    assert "on the test rows, which the choice has not seen" in printed
    assert "exchange rates here" in printed
    assert values["rows"][1]["low"] >= -0.02
    assert max(map(len, printed.splitlines())) < 140


def test_rates_follow_any_goal(trained_run, small_store, tmp_path, capsys, model):
    from hyperrec_jax.training import workdir

    folder = trained_run / "evaluation" / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / "front.json", model.evaluate(split="validation").to_dict())
    main(["--workdir", str(trained_run), "--goal", "knee", "--rates", "--resamples", "100"])
    printed = capsys.readouterr().out
    assert "exchange rates here\n  " in printed
    (rate,) = model.exchange_rates([0.3, 0.7])
    assert rate.gained == "ndcg@10/click"
    assert rate.paid == "ndcg@10/buy"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--goal", "knee", "--guard", "click>=-1%"), "--guard: goes with goals that begin"),
        (("--goal", "knee", "--baseline", "1,1"), "--baseline: goes with goals"),
        (("--goal", "max:buy", "--confidence", "0.3"), "at least 0.5 and less than 1"),
        (("--goal", "max:buy", "--resamples", "3"), "needs at least 100"),
        (("--goal", "max:buy", "--resample-by", "shop"), "no categorical field.*country, item"),
        (("--goal", "max:buy", "--resample-by", "item"), "differs between rows of one list"),
        (("--goal", "max:buy", "--baseline", "1,1;2,1"), "give one preference"),
        (("--goal", "max:buy", "--output", "x.txt"), r"give a \.json file"),
    ],
)
def test_refusals(trained_run, given, message):
    with pytest.raises(UserError, match=message):
        main(["--workdir", str(trained_run), *given])
