"""Goals on fronts whose answer is known."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperrec_jax.commands.suggest import main
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import choice, pareto
from hyperrec_jax.training import workdir
from hyperrec_jax.training.trained import load_trained

TASKS = ("click", "buy")


def make_front(auc, tasks=TASKS):
    auc = np.asarray(auc, float)
    first = np.linspace(0.9, 0.1, len(auc))
    preferences = np.stack([first, *[(1 - first) / (len(tasks) - 1)] * (len(tasks) - 1)], axis=1)
    return {
        "tasks": tasks,
        "preferences": [
            {f"preference/{task}": weight for task, weight in zip(tasks, preference, strict=True)}
            | {f"auc/{task}": value for task, value in zip(tasks, values, strict=True)}
            for preference, values in zip(preferences, auc, strict=True)
        ],
    }


CURVE = [[0.80, 0.60], [0.795, 0.68], [0.79, 0.70], [0.75, 0.71], [0.70, 0.72]]


@pytest.mark.parametrize(
    ("goal", "chosen"),
    [
        ("best:click", 0),
        ("best:buy", 4),
        ("best:buy,click=1%", 1),  # 1 % of .80 is .008
        ("best:buy,click=0.01", 2),
        ("best:buy,click=0", 0),
        ("best:click,buy=0.02", 2),
        ("knee", 2),
        ("ratio:click=0,buy=1", 0),
        ("ratio:click=1,buy=0", 4),
        ("ratio:click=1,buy=1", 2),  # scaled losses (.1, .17) are the nearest to equal
    ],
)
def test_known_answers(goal, chosen):
    suggestion = choice.suggest_preference(make_front(CURVE), goal)
    np.testing.assert_allclose(suggestion.value, CURVE[chosen])
    np.testing.assert_allclose(suggestion.preference[0], np.linspace(0.9, 0.1, 5)[chosen])
    np.testing.assert_allclose(suggestion.best_value, [0.80, 0.72])


fronts = st.lists(st.tuples(*[st.floats(0.5, 1.0, width=32)] * 3), min_size=1, max_size=12).map(
    np.array
)


@given(fronts, st.sampled_from(["knee", "ratio:a=1,b=2,c=1", "best:b,a=5%"]))
def test_what_is_chosen_keeps_its_promise(auc, goal):
    front = make_front(auc, ("a", "b", "c"))
    try:
        suggestion = choice.suggest_preference(front, goal)
    except UserError:  # the best of a task is always within its own limit
        pytest.fail("a goal with one limit can always be met")
    if goal.startswith("best"):
        allowed = auc[:, 0] >= 0.95 * auc[:, 0].max() - 1e-12
        assert suggestion.value[1] == auc[allowed, 1].max()
    else:
        assert suggestion.value.tolist() in auc[pareto.non_dominated(1 - auc)].tolist()


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("most", "unknown; there are best, knee, ratio"),
        ("best:sale", "no goal 'sale'; there are click, buy"),
        ("best:buy,click", "not of the form TASK=NUMBER"),
        ("best:buy,click=much", "'much' is not a number"),
        ("best:buy,click=-1", "'-1' is not a number of 0 or more"),
        ("best:buy,click=0,buy=0", "gives up so little"),
        ("knee:click", "takes nothing after it"),
        ("ratio:click=1", "needs a share for each of click, buy"),
        ("ratio:click=0,buy=0", "needs a share"),
    ],
)
def test_a_bad_goal_is_told(goal, message):
    with pytest.raises(UserError, match=message):
        choice.suggest_preference(make_front(CURVE), goal)


def test_a_front_without_a_choice_is_told():
    front = make_front(CURVE)
    front["preferences"][0]["auc/buy"] = float("nan")
    with pytest.raises(UserError, match="AUC of buy is undefined"):
        choice.suggest_preference(front, "knee")
    for record in front["preferences"]:
        del record["preference/click"]
    with pytest.raises(UserError, match="takes no preference"):
        choice.suggest_preference(front, "knee")


def test_the_command_reads_what_evaluation_wrote(trained_run, small_store, tmp_path, capsys):
    front = load_trained(trained_run).evaluate(small_store, "validation", 5)
    folder = tmp_path / "evaluation" / "validation"
    folder.mkdir(parents=True)
    workdir.write_json(folder / "front.json", front.to_dict())
    main(["--workdir", str(tmp_path), "--goal", "best:buy"])
    printed = capsys.readouterr().out
    assert printed == f"{choice.suggest_preference(front, 'best:buy')}\n"
    assert f"AUC {front.auc[:, 1].max():.4f}, +0.0000 to the best" in printed
    with pytest.raises(UserError, match="write it with `hyperrec evaluate"):
        main(["--workdir", str(tmp_path), "--goal", "knee", "--split", "test"])
    values = json.loads((folder / "front.json").read_text())
    values["preferences"][0]["auc/buy"] = None
    (folder / "front.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="AUC of buy is undefined"):
        main(["--workdir", str(tmp_path), "--goal", "knee"])
