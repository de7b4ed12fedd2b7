"""Policies on the command line: checked, compared, and used for files."""

import numpy as np
import polars as pl
import pytest

import hyperrec_jax
from hyperrec_jax import Model
from hyperrec_jax.api.policies import policy_changes
from hyperrec_jax.commands import policy, predict, rank
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.policy_file import read_policy

pytestmark = pytest.mark.slow

TEXT = """
version: 7
preferences:
  balanced: {click: 1, buy: 1}
  buy_first: {click: 0.3, buy: 0.7}
bounds: {buy: [0.2, 0.9]}
rules:
  - {segment: app, preference: buy_first}
default: balanced
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "policy.yaml").write_text(TEXT)
    later = TEXT.replace("version: 7", "version: 8").replace("{click: 0.3, buy: 0.7}", "{buy: 0.8, "
                         "click: 0.2}").replace("0.9", "0.95")  # fmt: skip
    (tmp_path / "new.yaml").write_text(later)
    return tmp_path


def test_a_file_is_scored_under_what_the_policy_decides(exported_model, small_store, files, capsys):
    rows = small_store.path.parent / "log.csv"
    given = ["--workdir", str(exported_model), "--input", str(rows)]
    given += ["--policy", str(files / "policy.yaml"), "--output", str(files / "scores.parquet")]
    predict.main([*given, "--segment", "app"])
    model = hyperrec_jax.load(exported_model)
    assert f"policy policy 7: buy_first 0.3,0.7 (rule 1), model {model.identity}" in (
        capsys.readouterr().out
    )
    assert model.identity.startswith("model@")
    expected = model.predict(pl.read_csv(rows), [0.3, 0.7])
    found = pl.read_parquet(files / "scores.parquet").select("click", "buy").to_numpy()
    assert found.tolist() == expected.tolist()
    predict.main([*given, "--preference", "balanced"])
    assert "policy policy 7: balanced 0.5,0.5 (request)" in capsys.readouterr().out
    with pytest.raises(UserError, match="the weight of buy is 1, and the policy 7 allows"):
        predict.main([*given, "--preference", "0,1"])
    draws = TEXT.replace("default: balanced", "default: {balanced: 0.5, buy_first: 0.5}")
    (files / "draws.yaml").write_text(draws)
    drawn = [*given[:5], str(files / "draws.yaml"), *given[6:]]
    with pytest.raises(UserError, match="default draws between balanced and buy_first, for each"):
        predict.main(drawn)
    rank.main([*given, "--segment", "app", "--output", str(files / "ranked.parquet")])
    assert "policy policy 7: buy_first 0.3,0.7 (rule 1)" in capsys.readouterr().out
    ranked = pl.read_parquet(files / "ranked.parquet").sort("row")
    assert ranked["score"].to_list() == pytest.approx(
        model.rank(pl.read_csv(rows), [0.3, 0.7]).score.tolist(), rel=1e-5
    )
    with pytest.raises(UserError, match="--segment: goes with --policy"):
        predict.main([*given[:4], "--segment", "app", "--output", str(files / "x.csv")])


def test_check_says_whom_it_gives_what(trained_run, files, capsys):
    policy.main(["check", str(files / "policy.yaml"), "--workdir", str(trained_run)])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  segment app: buy_first (click 0.3, buy 0.7), by rule 1",
        "  everyone else: balanced (click 0.5, buy 0.5), by default",
    ]


def test_diff_says_what_a_change_does_on_the_front(trained_run, small_store, files, capsys):
    paths = [str(files / name) for name in ("policy.yaml", "new.yaml")]
    policy.main(["diff", *paths, "--workdir", str(trained_run), "--split", "validation"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "policy 7 -> 8, on the validation rows"
    assert lines[1] == "segment app: buy_first 0.3,0.7 (rule 1) -> buy_first 0.2,0.8 (rule 1)"
    assert lines[2].startswith("  ndcg@10/click 0.")
    assert lines[4] == "greatest weight of buy that may be asked for: 0.9 -> 0.95"
    model = Model.load(trained_run, small_store)
    before, after = (read_policy(files / name, model.goals) for name in ("policy.yaml", "new.yaml"))
    (change,) = policy_changes(model, before, after, split="validation", resamples=200)
    assert (change.ends[0] <= change.change + 1e-9).all()
    (after_it,) = change.after
    front = model.evaluate(split="validation", preferences=after_it.weights[None])
    assert change.values[1].tolist() == pytest.approx(front.lists.first.ndcg[0].tolist(), abs=1e-6)
    (files / "half.yaml").write_text(
        TEXT.replace("preference: buy_first", "preference: {buy_first: 0.5, balanced: 0.5}")
    )
    half = read_policy(files / "half.yaml", model.goals)
    (drawn,) = policy_changes(model, before, half, split="validation", resamples=200)
    assert str(drawn).startswith(
        "segment app: buy_first 0.3,0.7 (rule 1) -> "
        "0.5 of buy_first 0.3,0.7 and 0.5 of balanced 0.5,0.5 (rule 1)"
    )
    own = model.evaluate(split="validation", preferences=np.array([[0.3, 0.7], [0.5, 0.5]]))
    expected = own.lists.first.ndcg.mean(axis=0).tolist()
    assert drawn.values[1].tolist() == pytest.approx(expected, abs=1e-6)
    policy.main(["diff", paths[0], paths[0], "--workdir", str(trained_run)])
    assert capsys.readouterr().out.splitlines()[1] == "the same preferences for everyone"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["check", "policy.yaml", "new.yaml"], "give 1 FILE, not 2"),
        (["diff", "policy.yaml"], "give 2 FILE, not 1"),
        (["check", "no.yaml"], r"no\.yaml: can't be read"),
        (["check", "policy.yaml", "--at", "friday"], "--at friday: is no day or time"),
    ],
)
def test_refusals(trained_run, files, monkeypatch, given, message):
    monkeypatch.chdir(files)
    with pytest.raises(UserError, match=message):
        policy.main([*given, "--workdir", str(trained_run)])
