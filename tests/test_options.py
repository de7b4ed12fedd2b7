"""Options of parts: read from a signature, checked by type and range."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.options import (
    FROM_DATA,
    REQUIRED,
    Count,
    Option,
    Positive,
    Range,
    check,
    expected,
    options_of,
)
from hyperrec_jax.registry import Registry


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0, 1)", [0, 0.5, 0.999], [1, -0.1, 2]),
        ("(0, inf)", [1e-9, 1e9], [0, -1]),
        ("[-1, 1]", [-1, 0, 1], [-1.01, 1.01]),
        ("(0, 1]", [0.1, 1], [0, 1.1]),
    ],
)
def test_a_range_is_read_as_in_mathematics(text, inside, outside):
    assert all(value in Range(text) for value in inside)
    assert not any(value in Range(text) for value in outside)


@pytest.mark.parametrize("text", ["0, 1", "[0 1]", "[0, 1"])
def test_what_is_no_interval_is_refused(text):
    with pytest.raises(ValueError, match="no interval"):
        Range(text)


@pytest.mark.parametrize(
    ("hint", "good", "bad", "text"),
    [
        (Count, [1, 50], [0, -1, 2.0, True, "3", None], "a whole number of at least 1"),
        (Positive, [2, 2.5], [0, float("nan"), float("inf"), "x", True], "a number above 0"),
        (float, [-3, 2.5], ["x", None], "a number"),
        (bool, [True, False], [0, 1, "true"], "true or false"),
        (str, ["a"], [1], "text"),
        (Literal["a", "b"], ["a"], ["c", 1], "one of a, b"),
        (Count | None, [None, 3], [0, "x"], "a whole number of at least 1"),
        (
            Annotated[tuple[int, ...], Range("[1, inf)")],
            [(8,), [8, 4]],
            [(), (8, 0), 8, "8", ("a",)],
            "a list of whole numbers of at least 1",
        ),
        (
            Positive | tuple[Positive, ...],
            [1.0, (1, 2.0)],
            [0, (1, 0), ()],
            "a number above 0 or a list of numbers above 0",
        ),
    ],
)
def test_values_are_checked_by_type_and_range(hint, good, bad, text):
    assert expected(hint) == text
    for value in good:
        kept = check("x", hint, value)
        assert kept == (tuple(value) if isinstance(value, list) else value)
    for value in bad:
        with pytest.raises(UserError) as error:
            check("option 'x'", hint, value)
        assert str(error.value) == f"option 'x' is {value!r}: give {text}".replace("[]", "()")


def _part(first, *, width: Count, rate: Annotated[float, Range("[0, 1]")] = 0.5, **kwargs):
    """A part.

    Args:
      first: Not an option.
      width: Number of
        columns. More on it.
      rate: Share of rows.
    """


@dataclass
class _Base:
    """A base.

    Attributes:
      size: How large.
    """

    size: Count = 3


@dataclass
class _Child(_Base):
    """A child.

    Attributes:
      colour: Which one.
    """

    colour: Literal["red", "blue"] = "red"


def test_options_are_the_keyword_only_parameters_with_their_meaning():
    width, rate = options_of(_part).values()
    assert (width.name, width.default, width.meaning) == (
        "width",
        REQUIRED,
        "Number of columns. More on it.",
    )
    assert width.line == "Number of columns"
    assert (rate.default, rate.allowed) == (0.5, "a number in [0, 1]")


def test_options_of_a_class_include_those_of_its_bases():
    assert options_of(_Child) == {
        "size": Option("size", Count, 3, "How large."),
        "colour": Option("colour", Literal["red", "blue"], "red", "Which one."),
    }


def test_a_part_gets_checked_options_and_what_the_data_gives():
    parts = Registry("part", "hyperrec_jax.commands")

    @parts.register("scaled")
    def scaled(goals, *, temperature: Positive = 1.0, rates: Annotated[list, FROM_DATA]):
        return goals, temperature, rates

    assert parts.create("scaled", 2, temperature=2.0, rates=[0.1]) == (2, 2.0, [0.1])
    assert list(parts.options("scaled")) == ["temperature"]
    assert parts.defaults("scaled") == {"temperature": 1.0}
    with pytest.raises(UserError, match=r"'temperatur'; did you mean temperature\?"):
        parts.create("scaled", 2, temperatur=2.0)
    with pytest.raises(UserError, match="option 'temperature' of part 'scaled' is 0: give a num"):
        parts.create("scaled", 2, temperature=0)
    with pytest.raises(UserError, match=r"no part 'scale'; did you mean scaled\? .*--import"):
        parts.find("scale")


def test_an_option_without_default_is_asked_for():
    parts = Registry("part", "hyperrec_jax.commands")
    parts.register("wide")(_part)
    with pytest.raises(UserError, match="part 'wide' needs the option 'width': Number of columns"):
        parts.create("wide", 1)


def test_a_name_is_taken_once():
    parts = Registry("part", "hyperrec_jax.commands")
    parts.register("one")(_part)
    parts.register("one")(_part)  # the same again, as when a notebook cell runs twice
    with pytest.raises(ValueError, match="part name 'one' is taken by _part"):
        parts.register("one")(test_a_name_is_taken_once)
