"""Files of raw rows to files of scores."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

import hyperrec_jax
from hyperrec_jax.commands import predict, rank
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import scoring_files
from hyperrec_jax.serving.artefact import write_manifest


@pytest.fixture(scope="module")
def log(small_store):
    return small_store.path.parent / "log.csv"


def _run(model, source, target, *options):
    assert (
        predict.main(
            ["--workdir", str(model), "--input", str(source), "--output", str(target), *options]
        )
        == 0
    )


def test_scores_of_a_csv_in_its_order(exported_model, log, tmp_path, capsys):
    _run(
        exported_model, log, tmp_path / "s.parquet", "--preference", "3,7", "--keep", "item,session"
    )
    scores, rows = pl.read_parquet(tmp_path / "s.parquet"), pl.read_csv(log)
    assert scores.columns == ["item", "session", "click", "buy", "score"]
    assert scores["session"].cast(pl.Int64).to_list() == rows["session"].to_list()
    expected = hyperrec_jax.load(exported_model).predict(rows, [0.3, 0.7])
    np.testing.assert_allclose(scores[["click", "buy"]].to_numpy(), expected, atol=1e-6)
    assert "4,000 rows under 1 preference\n" in capsys.readouterr().out


def test_parquet_in_chunks_under_several_preferences(exported_model, log, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_files, "_PARQUET_ROWS", 300)
    rows = pl.read_csv(log).head(1000)
    rows.write_parquet(tmp_path / "rows.parquet")
    target = tmp_path / "scores.csv"
    _run(
        exported_model, tmp_path / "rows.parquet", target, "--preference", "1,0;0.5,0.5", "--keep="
    )
    scores = pl.read_csv(target)
    names = ["click", "buy", "score"]
    assert scores.columns == [f"{name}@{at}" for at in ("1,0", "0.5,0.5") for name in names]
    model = hyperrec_jax.load(exported_model)
    expected = model.predict(rows, [[1, 0], [1, 1]])
    found = scores.to_numpy().reshape(1000, 2, 3)
    np.testing.assert_allclose(found[..., :2], expected.swapaxes(0, 1), atol=1e-6)
    expected = model.rank(rows, [[1, 0], [1, 1]]).score
    np.testing.assert_allclose(found[..., 2], expected.T, atol=1e-6)


@pytest.mark.parametrize("command", [predict, rank])
def test_another_separator_and_encoding(exported_model, log, tmp_path, command):
    lines = log.read_text().splitlines()[:21]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    odd = tmp_path / "odd.csv"
    odd.write_bytes("\n".join(lines).replace(",", ";").encode("utf-16"))
    found = {}
    for name, *options in (("rows.csv",), ("odd.csv", "--separator=;", "--encoding=utf-16")):
        files = ["--input", str(tmp_path / name), "--output", str(tmp_path / "scores.parquet")]
        assert command.main(["--workdir", str(exported_model), *files, *options]) == 0
        found[name] = pl.read_parquet(tmp_path / "scores.parquet")
    assert found["rows.csv"].equals(found["odd.csv"])
    assert len(found["odd.csv"]) == 20
    with pytest.raises(UserError, match="is UTF-16 text; add `--encoding utf-16`"):
        command.main(["--workdir", str(exported_model), *files])
    with pytest.raises(UserError, match=r"--separator: ',,' is not one character"):
        command.main(["--workdir", str(exported_model), *files, "--separator=,,"])


@pytest.mark.parametrize("suffix", ["csv", "parquet", "PARQUET"])
def test_gaps_where_the_model_allows_them(exported_model, tmp_path, suffix):
    model = shutil.copytree(exported_model, tmp_path / "model") / "model.json"
    manifest = json.loads(model.read_text())
    (age,) = [field for field in manifest["schema"]["numerical"] if field["name"] == "age"]
    age["missing"] = 0.5
    del manifest["checksum"]
    write_manifest(model.parent, manifest)
    rows = pl.DataFrame(
        {"country": ["c1", "c2"], "item": [1, 2], "price": [3.0, 4.0], "age": [None, 0.7]}
    )
    source = tmp_path / f"rows.{suffix}"
    rows.write_csv(source) if suffix == "csv" else rows.write_parquet(source)
    _run(model.parent, source, tmp_path / "scores.csv")
    expected = hyperrec_jax.load(exported_model).predict(rows.fill_null(0.5))
    scores = pl.read_csv(tmp_path / "scores.csv")[["click", "buy"]].to_numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("country,item,price\n", (), "lacks column 'age'"),
        ("country,item,price,age\nc1,1,2,x\n", (), "row 1, column 'age': 'x' is not a number"),
        ("country,item,price,age\nc1,1,2,3\nc1,1,-2,3\n", (), "row 2, column 'price'"),
        ("country,item,price,age\nc1,1,2,3\n", ("--keep", "id"), "lacks column 'id'"),
        ("country,item,price,age\nc1,1,2,3\n", ("--preference", "1,x"), "1,x"),
        ("country,item,price,age\nc1,1,2,3\n", ("--preference", "1,1;2,2"), "written twice"),
    ],
)
def test_bad_input_is_told_and_leaves_no_output(exported_model, tmp_path, text, options, message):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        _run(exported_model, tmp_path / "rows.csv", tmp_path / "scores.parquet", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_values_that_training_never_saw_are_counted(exported_model, tmp_path, caplog):
    (tmp_path / "rows.csv").write_text("country,item,price,age\nc1,1000,2,3\nc1,1,2,3\n")
    _run(exported_model, tmp_path / "rows.csv", tmp_path / "scores.csv")
    (line,) = caplog.messages
    assert "field 'item': 50.0% of 2 rows have a value that training never saw" in line


def test_bad_files_are_told(exported_model, log, tmp_path):
    with pytest.raises(UserError, match=r"must end in \.parquet or \.csv"):
        _run(exported_model, log, tmp_path / "scores.xlsx")
    with pytest.raises(UserError, match="no such file"):
        _run(exported_model, tmp_path / "none.csv", tmp_path / "scores.csv")
    (tmp_path / "rows.parquet").write_text("no")
    with pytest.raises(UserError, match="no readable Parquet file"):
        _run(exported_model, tmp_path / "rows.parquet", tmp_path / "scores.csv")
