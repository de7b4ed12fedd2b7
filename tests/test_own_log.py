"""The example of a log with all kinds of goals and fields runs, and what it exports serves it."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.server_bodies import RunningApp
from hyperrec_jax import load
from hyperrec_jax.serving.http import create_app

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_log.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*positives")  # few rows
def test_the_example_of_an_own_log_runs(tmp_path, monkeypatch, capsys):
    specification = importlib.util.spec_from_file_location("own_log", EXAMPLE)
    own_log = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(own_log)
    monkeypatch.setattr(
        sys, "argv", ["own_log.py", f"--output={tmp_path}", "--rows=900", "--epochs=1"]
    )
    own_log.main()
    told = capsys.readouterr().out
    assert "auc of click" in told
    assert "gini of watch_time" in told
    served, rows = load(tmp_path / "exported"), own_log.generate(900).tail(4)
    assert [time.name for time in served.preprocess.schema.times] == ["shown_at"]
    predictions = served.predict(rows)
    moved = rows.with_columns(rows["shown_at"].dt.offset_by("6h"))
    assert np.abs(served.predict(moved) - predictions).max() > 0  # the model reads the time
    as_text = rows.with_columns(rows["shown_at"].dt.to_string("iso"))
    np.testing.assert_array_equal(served.predict(as_text), predictions)
    raw = as_text.drop("click", "purchase", "watch_time", "times_shown").to_dicts()
    app = RunningApp(create_app(served))
    try:
        body = {"rows": raw, "preference": {"click": 0.2, "purchase": 0.5, "watch_time": 0.3}}
        status, answer = app.post("/predict", [json.dumps(body).encode()])
        assert status == 200, answer
        expected = served.predict(rows, np.float32([0.2, 0.5, 0.3]))
        np.testing.assert_allclose(json.loads(answer)["scores"], expected, rtol=1e-5)
    finally:
        app.close()
