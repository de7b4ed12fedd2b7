"""The speed benchmark in small: its sizes differ from a real run's, its code does not."""

import re

import pytest

from benchmarks import speed

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        output = tmp_path / "speed.md"
        places = ["--folder", str(tmp_path), "--output", str(output)]
        speed.main(["--quick", "--threads", "1", *places, *arguments])
        return output.read_text()

    return run


def rows_of(text, title):
    """The cells of the table under a title, by their first column."""
    section = text.split(f"## {title}")[1].split("\n## ")[0]
    lines = re.findall(r"^\| (?!---)(.*) \|$", section, re.MULTILINE)
    _, *rows = [line.split(" | ") for line in lines]
    return {first: rest for first, *rest in rows}


def number(text):
    return float(re.match(r"[\d.,e+-]+", text)[0].replace(",", ""))


def test_compares_all_systems(run):
    text = run("--parts", "train,evaluate,profile")
    systems = [speed.LOADER, speed.MEMORY, speed.UNFOLDED, speed.FOLDED]
    training = rows_of(text, "Training")
    assert list(training)[:4] == systems
    assert all(number(cells[0]) > 0 for cells in training.values())
    assert number(training[speed.LOADER][1]) == 1
    scoring = rows_of(text, "Evaluation")
    assert list(scoring) == systems
    assert all(number(cell) > 0 for cells in scoring.values() for cell in cells)
    pieces = rows_of(text, "Where the step's time goes")
    assert len(pieces) == 7
    assert sum(number(cells[1]) for cells in pieces.values()) == pytest.approx(100, abs=4)


def test_without_dropout_the_curves_are_one(run, tmp_path):
    curves = rows_of(run("--parts", "curves"), "Loss curves")
    assert number(curves["without dropout"][0]) < 1e-5
    assert number(curves["without dropout"][1]) < 1e-3
    # Other dropout masks show, as rounding does not.
    assert number(curves["with dropout, drawn apart"][1]) > 10 * number(
        curves["without dropout"][1]
    )
    assert (tmp_path / "speed_curves.png").stat().st_size > 10_000


def test_growth_is_fitted(run):
    growth = rows_of(run("--parts", "scaling"), "Growth")
    assert len(growth["rows"]) == 5


def test_lazy_and_dense_adam_are_timed(run):
    (cells,) = rows_of(run("--parts", "lazy"), "Lazy Adam").values()
    assert all(number(cell) >= 0 for cell in cells)
    assert number(cells[2]) > 0


def test_an_epoch_on_the_device(run):
    (cells,) = rows_of(run("--accelerator"), "cpu").values()
    assert number(cells[0]) > 0


def test_unknown_parts_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("--parts", "train,everything")
    assert "no part everything" in capsys.readouterr().err
