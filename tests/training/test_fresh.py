"""Evaluation on a fresh log, read with the vocabulary and the scaling of the model."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from hyperrec_jax.api.model import Model
from hyperrec_jax.commands.evaluate import main
from hyperrec_jax.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A log of 600 rows with an item that training never saw, and other means."""
    rng = np.random.default_rng(5)
    rows = 600
    return pd.DataFrame(
        {
            "item": rng.choice([3, 7, 999], rows, p=[0.4, 0.35, 0.25]),
            "country": rng.choice(["c0", "c3"], rows),
            "price": rng.lognormal(1, size=rows),
            "age": rng.normal(3, 1, rows),
            "click": rng.integers(0, 2, rows),
            "buy": rng.integers(0, 2, rows),
            "session": np.arange(rows) // 6,
        }
    )


def _evaluate(capsys, run, data, *arguments):
    main([f"--workdir={run}", f"--data={data}", "--grid=3", "--resamples=0", *arguments])
    return capsys.readouterr().out


def test_a_fresh_frame_is_scored_as_predict_scores_it(trained_run, small_store, fresh, caplog):
    model = Model.load(trained_run, small_store)
    front = model.evaluate(fresh, preferences=3)
    assert front.rows == 600
    assert front.split == "fresh"
    assert front.lists.first.lists.sum() > 0
    assert "field 'item'" in caplog.text
    for place, preference in enumerate(front.preferences):
        predicted = model.predict(fresh, preference)
        for goal, name in enumerate(("click", "buy")):
            expected = roc_auc_score(fresh[name], predicted[:, goal])
            assert front.auc[place, goal] == pytest.approx(expected, abs=1e-4)


def test_a_fresh_file_has_a_report_of_its_own(trained_run, fresh, tmp_path, capsys, caplog):
    fresh.to_csv(tmp_path / "march.csv", index=False)
    output = trained_run / "evaluation" / "fresh_march"
    told = _evaluate(capsys, trained_run, tmp_path / "march.csv")
    assert f"written to {output}/" in told
    assert f"item {(fresh['item'] == 999).mean():.2%}" in told
    assert "have a value that training never saw" in caplog.text
    front = json.loads((output / "front.json").read_text())
    assert (front["rows"], front["split"]) == (600, "fresh_march")
    assert {"lists.csv", "report.html"} <= {path.name for path in output.iterdir()}
    # The same by a description whose goals have other columns, and labels that are missing.
    renamed = fresh.rename(columns={"buy": "purchase"}).astype({"purchase": object})
    renamed.loc[5, "purchase"] = None
    renamed.to_parquet(tmp_path / "april.parquet")
    (tmp_path / "april.yaml").write_text(
        "files: {train: april.parquet}\ncategorical: [item, country]\nnumerical: [age, price]\n"
        "goals: [click, {name: buy, column: purchase}]\n"
    )
    _evaluate(capsys, trained_run, tmp_path / "april.yaml", f"--output={tmp_path / 'out'}")
    again = json.loads((tmp_path / "out" / "front.json").read_text())
    auc = [one["preferences"][0]["auc/click"] for one in (front, again)]
    assert auc[0] == pytest.approx(auc[1])
    assert "no lists: " in caplog.text


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda log: log.drop(columns="age"), [], "lacks column 'age'"),
        (lambda log: log.assign(click=7), [], "row 1, column 'click': '7' is not a label"),
        (lambda log: log.assign(price=-2.0), [], "has no log"),
        (lambda log: log, ["--split=test"], "leave --store and --split out"),
        (lambda log: log, ["--ranking=learned"], "fitted on validation rows"),
    ],
)
def test_refusals_leave_the_run_as_it_was(
    trained_run, fresh, tmp_path, capsys, change, arguments, message
):
    change(fresh).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(UserError, match=message):
        _evaluate(capsys, trained_run, tmp_path / "bad.csv", *arguments)
    assert not (trained_run / "evaluation" / "fresh_bad").exists()


def test_a_description_without_a_field_of_the_model_is_refused(trained_run, tmp_path, fresh):
    fresh.to_csv(tmp_path / "log.csv", index=False)
    path = tmp_path / "log.yaml"
    path.write_text("files: {train: log.csv}\ncategorical: [item]\nlabels: [click, buy]\n")
    with pytest.raises(UserError, match="names no field 'country'"):
        main([f"--workdir={trained_run}", f"--data={path}"])
