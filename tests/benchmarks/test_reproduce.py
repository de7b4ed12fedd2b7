"""The table of `benchmarks.reproduce`, from results that are there already."""

import dataclasses
import json
import shutil

import pytest

from benchmarks import reproduce
from hyperrec_jax.errors import UserError

pytestmark = pytest.mark.slow


def _result(shift):
    return reproduce.Result([0.93 + shift, 0.99], [0.15, 0.1], 0.92 + shift, 1234, 5000.0)


@pytest.fixture
def output(small_store, tmp_path):
    """An output folder where two seeds of one model are complete."""
    shutil.copytree(small_store.path, tmp_path / "stores" / "census_income")
    for seed in range(2):
        folder = tmp_path / "census_income" / "mmoe" / f"seed_{seed}"
        folder.mkdir(parents=True)
        values = dataclasses.asdict(_result(0.01 * seed))
        (folder / "result.json").write_text(json.dumps(values))
    return tmp_path


def test_complete_runs_are_read_and_summarised(output, tmp_path, capsys):
    arguments = ["--data", "unused", "--models", "mmoe", "--seeds", "2", "--datasets", "census"]
    folders = ["--output", str(output), "--results", str(tmp_path / "results")]
    assert reproduce.main([*arguments, *folders]) == 0
    text = (tmp_path / "results" / "reproduce_census_income.md").read_text()
    assert "0.9350 ± 0.0071" in text
    assert "0.9433" in text  # the reference
    assert "1,234" in text
    assert text in capsys.readouterr().out
    rows = (tmp_path / "results" / "reproduce_census_income.csv").read_text().splitlines()
    assert rows[1].startswith("mmoe,2,0.9350 ± 0.0071,0.9433")


@pytest.mark.parametrize(
    "arguments", [["--models", "nothing"], ["--datasets", "nothing"], ["--preset", "nothing"]]
)
def test_a_wrong_name_is_told_before_anything_is_trained(output, arguments):
    with pytest.raises(UserError, match="nothing"):
        reproduce.main(["--data", "unused", "--output", str(output), *arguments])


def test_experts_and_objective_follow_the_model():
    arguments = reproduce.parser().parse_args(["--data", "unused", "--experts", "6"])
    mmoe, ple, pomoe = (
        reproduce.make_config("census_income", name, 3, arguments)
        for name in ("mmoe", "ple", "pomoe")
    )
    assert mmoe["model"]["num_experts"] == 6
    assert mmoe["objective"]["name"] == "uniform"
    assert (ple["model"]["num_shared_experts"], ple["model"]["num_task_experts"]) == (3, 3)
    assert pomoe["objective"]["name"] is None
    assert pomoe["seed"] == 3
