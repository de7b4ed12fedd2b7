"""The fuzzing command reads what is valid, and tells what it should not have met."""

import random

import pytest

from benchmarks import fuzz
from hyperrec_jax.errors import UserError

pytestmark = pytest.mark.slow


def test_a_few_examples_of_every_target(tmp_path, capsys):
    assert fuzz.main(["--examples", "4", "--output", str(tmp_path / "fuzz.md")]) == 0
    assert "0 findings" in capsys.readouterr().out
    lines = (tmp_path / "fuzz.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[-8:]]
    assert [row[0] for row in rows] == list(fuzz.targets(tmp_path))
    assert all(int(row[2]) + int(row[3]) == int(row[1]) == 4 for row in rows)


@pytest.mark.parametrize(
    ("raised", "ending"),
    [
        (UserError("one line"), "refused"),
        (UserError("two\nlines"), "a message of several lines"),
        (ValueError("what"), "ValueError at test_fuzz.py:"),
    ],
)
def test_what_is_no_clear_line_is_a_finding(tmp_path, raised, ending):
    path = tmp_path / "files" / "a"
    path.parent.mkdir()
    path.write_bytes(bytes(100))

    def read(folder, output):
        if path.read_bytes() != bytes(100):
            raise raised

    target = fuzz.Target(path.parent, ["a"], read)
    assert fuzz.example(target, "x", 0, 1).startswith(ending)
    assert path.read_bytes() == bytes(100)


def test_mutations_differ_and_are_a_function_of_their_number():
    content = bytes(range(256)) * 4
    mutants = [fuzz.mutate(content, random.Random(number)) for number in range(50)]
    assert len(set(mutants)) > 40
    assert mutants == [fuzz.mutate(content, random.Random(number)) for number in range(50)]
