"""Goals by name."""

import dataclasses

import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import GOALS, Metric, create_goal, goal_options


def test_kinds() -> None:
    assert sorted(GOALS) == [
        "binary",
        "count",
        "fairness",
        "graded",
        "regression",
        "value",
        "variety",
    ]
    for kind, goal_class in GOALS.items():
        assert goal_class.kind == kind
        assert goal_class.__doc__
        options = {field.name for field in dataclasses.fields(goal_class)} - {"name"}
        for option in options:
            assert f"\n      {option}: " in goal_class.__doc__, f"{kind}.{option} has no line"


def test_options_with_their_defaults() -> None:
    assert goal_options("binary") == {"sampling_rate": 1.0}
    assert goal_options("count") == {}
    assert "list_loss" not in goal_options("graded")
    for kind in ("binary", "regression", "count", "value"):
        assert create_goal(kind, "x", **goal_options(kind)) == create_goal(kind, "x")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("binray", {}, "goal 'x': no kind 'binray'; did you mean 'binary'?"),
        (
            "sorted",
            {},
            "goal 'x': no kind 'sorted'; choose one of binary, count, fairness, graded, "
            "regression, value, variety",
        ),
        (
            "binary",
            {"samplingrate": 1},
            "goal 'x' (binary): no option 'samplingrate'; did you mean 'sampling_rate'?",
        ),
        (
            "binary",
            {"colour": 1},
            "goal 'x' (binary): no option 'colour'; choose one of sampling_rate",
        ),
        ("count", {"rate": 1}, "goal 'x' (count): no option 'rate'; it has none"),
    ],
)
def test_mistyped_names(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_goal(kind, "x", **options)
    assert str(error.value) == message


def test_options_of_an_unknown_kind() -> None:
    with pytest.raises(UserError, match="goal: no kind 'valeu'; did you mean 'value'"):
        goal_options("valeu")


def test_cost_of_a_metric_falls_as_it_gets_better() -> None:
    worse_to_better = {"higher": [0.1, 0.9], "lower": [3, 1], "one": [0.2, 3, 0.5, 1.1, 1]}
    for better, values in worse_to_better.items():
        costs = [Metric(lambda *rows: 0.0, better).cost(value) for value in values]
        assert costs == sorted(costs, reverse=True)
        assert len(set(costs)) == len(costs)
        assert Metric(lambda *rows: 0.0, better).cost(float("nan")) == float("inf")
    assert Metric(lambda *rows: 0.0, "one").cost(0) == float("inf")
