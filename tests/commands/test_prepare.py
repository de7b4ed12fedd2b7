import errno
import re
import subprocess
import sys

import polars as pl
import pytest

from hyperrec_jax.commands.prepare import main
from hyperrec_jax.data import files, prepare
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.exit import one_line_errors
from tests.data.sources.journey import journey_tables, write_tables

SYNTHETIC = ["synthetic", "--rows", "3000", "--test-rows", "1000"]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """The command, run in `tmp_path`: gives its exit code and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            with one_line_errors():
                code = main([*map(str, arguments)])
        except SystemExit as end:
            code = end.code
        return code, capfd.readouterr().err

    return run


def test_synthetic_by_default_in_the_data_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(SYNTHETIC) == 0
    store = Store.open("data/synthetic")
    printed = capsys.readouterr().out
    assert "16 categorical fields" in printed
    for auc in store.schema.best_auc:
        assert f"{auc:.4f}" in printed
    clicks = store.split("test").slice(0, 1000)["labels"][:, 0].sum()
    assert re.search(rf"^test +1,000 +{clicks} +{clicks / 10:.2f}%", printed, re.MULTILINE)


def test_options_reach_the_source(tmp_path):
    options = ["--conflict", "0.9", "--seed", "4", "--validation-fraction", "0.3"]
    main([*SYNTHETIC, *options, "--output", str(tmp_path / "a")])
    main([*SYNTHETIC, "--output", str(tmp_path / "b")])
    a, b = Store.open(tmp_path / "a"), Store.open(tmp_path / "b")
    assert a.schema.best_auc != b.schema.best_auc
    assert len(a.split("validation")) > 2 * len(b.split("validation"))


@pytest.mark.parametrize("source", ["aliexpress", "census-income", "complete-journey", "csv"])
def test_missing_input_is_one_line_and_exit_code_2(run, tmp_path, source):
    country = ["--country", "us"] if source == "aliexpress" else []
    code, told = run(source, *country, "--input", tmp_path / "nowhere")
    assert code == 2
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert "nowhere" in told


def test_aliexpress_command(run, write_raw, tmp_path):
    folder = write_raw(tmp_path / "raw", "zips")
    code, told = run("aliexpress", "--country", "us", "--input", folder)
    assert code == 0, told
    assert Store.open(tmp_path / "data" / "aliexpress_us").schema.tasks == ("click", "conversion")


@pytest.mark.slow
def test_complete_journey_command(tmp_path):
    folder = write_tables(tmp_path / "raw", journey_tables())
    options = ["--households-train", 4, "--households-test", 5, "--candidates", 6, "--seed", 3]
    command = ["complete-journey", "--input", folder, *options]
    result = subprocess.run(
        [sys.executable, "-m", "hyperrec_jax", "prepare", *map(str, command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    store = Store.open(tmp_path / "data" / "complete_journey")
    assert store.schema.tasks == ("purchase", "discovery", "private_label")
    tables = tmp_path / "data" / "complete_journey_tables"
    rows = pl.read_parquet(tables / "test.parquet")
    assert rows["household_id"].n_unique() == 5
    assert list(store.split("test").positives) == list(rows.select(store.schema.tasks).sum().row(0))
    # The description is one like any other.
    main(["csv", "--input", str(tables / "description.yaml"), "--output", str(tmp_path / "own")])
    assert Store.open(tmp_path / "own").fingerprint == store.fingerprint
    before = (tables / "test.parquet").stat().st_mtime_ns
    assert main([*map(str, command), "--output", str(tmp_path / "data" / "complete_journey")]) == 0
    assert (tables / "test.parquet").stat().st_mtime_ns == before


def test_fairness_command(run, tmp_path):
    rows = pl.DataFrame(
        {name: range(50) for name in ("ID", "LIMIT_BAL", "AGE")}
        | {f"{kind}_AMT{i}": range(50) for kind in ("BILL", "PAY") for i in range(1, 7)}
        | {f"PAY_{i}": [i % 3 - 1 for i in range(50)] for i in (0, 2, 3, 4, 5, 6)}
        | {"EDUCATION": [1, 2] * 25, "MARRIAGE": [1, 2] * 25, "SEX": [1, 2] * 25}
        | {"default.payment.next.month": [0, 0, 1, 1] * 12 + [0, 1]}
    )
    rows.write_csv(tmp_path / "credit.csv")
    command = ["fairness", "--dataset", "credit", "--input", tmp_path / "credit.csv"]
    code, told = run(*command, "--tables", tmp_path / "files")
    assert code == 0, told
    store = Store.open(tmp_path / "data" / "fairness_credit")
    assert [len(store.split(name)) for name in ("train", "validation", "test")] == [35, 5, 10]
    assert set(pl.read_parquet(tmp_path / "files" / "test.parquet")["sex"]) == {"male", "female"}
    code, told = run("fairness", "--dataset", "credit")
    assert code == 2
    assert told.startswith("error: no file of the data set credit is given")
    assert told.count("\n") == 1


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        main([*SYNTHETIC, "--output", str(tmp_path / "file" / "out")])
    with pytest.raises(UserError, match="is not a prepared data set"):
        main([*SYNTHETIC, "--output", str(tmp_path)])
    assert (tmp_path / "file").read_text() == ""


def test_full_disk_keeps_finished_stages_and_removes_the_rest(tmp_path, monkeypatch):
    original = files.os.fsync
    calls = []

    def refuse_the_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", refuse_the_second)
    command = [*SYNTHETIC, "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="no space left on the disk"):
        main(command)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "out.staging",
        "provenance",
        "train.arrow",
    ]
    assert main(command) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_two_that_write_the_same_store_are_one_too_many(tmp_path, monkeypatch):
    command = [*SYNTHETIC, "--output", str(tmp_path / "out")]
    survey = prepare.survey_of

    def meanwhile(*arguments):
        with pytest.raises(UserError, match="out: another process prepares data there"):
            main(command)
        return survey(*arguments)

    monkeypatch.setattr(prepare, "survey_of", meanwhile)
    assert main(command) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_full_disk_for_real(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); "
    limit += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code = limit + "from hyperrec_jax.commands.cli import exit_on_user_error; "
    code += "from hyperrec_jax.commands.prepare import main; exit_on_user_error(main)"
    command = [sys.executable, "-c", code, *SYNTHETIC, "--output", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "no space left" in result.stderr
    assert not list(tmp_path.rglob("*.writing"))
    assert not (tmp_path / "out").exists()


def test_values_that_training_never_saw_are_told_and_warned_of(tmp_path, capsys):
    for name, items in (("train", "ab"), ("test", "abxy"), ("dev", "abababax")):
        lines = [f"{item},{row % 3 == 0:d},z" for row, item in enumerate(items * 20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["item,click,shop", *lines]))
    (tmp_path / "own.yaml").write_text(
        "files: {train: train.csv, test: test.csv, validation: dev.csv}\n"
        "categorical: [item, shop]\nlabels: [click]\n"
    )
    command = ["csv", "--input", str(tmp_path / "own.yaml"), "--output", str(tmp_path / "out")]
    main(command)
    printed = capsys.readouterr()
    assert "validation: rows with a value that training never saw: item 12.50%\n" in printed.out
    assert "test: rows with a value that training never saw: item 50.00%\n" in printed.out
    (warning,) = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert "out, test split: field 'item': 50.0% of 80 rows" in warning


def test_a_column_that_is_the_label_is_warned_of(tmp_path, capsys):
    lines = [f"{row % 3},{row % 2},{row % 2}" for row in range(200)]
    (tmp_path / "log.csv").write_text("\n".join(["item,clicked,click", *lines]))
    (tmp_path / "own.yaml").write_text(
        "files: {train: log.csv}\ncategorical: [item]\nnumerical: [clicked]\nlabels: [click]\n"
    )
    main(["csv", "--input", str(tmp_path / "own.yaml"), "--output", str(tmp_path / "out")])
    (warning,) = capsys.readouterr().err.splitlines()
    assert "column 'clicked' alone tells label 'click' (AUC 1.0000" in warning


def test_prepare_loads_no_jax():
    """It would cost 110 MB and a second of every command; a process of its own can tell."""
    modules = "hyperrec_jax.commands.prepare, hyperrec_jax.data.sources.csv_files"
    code = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
