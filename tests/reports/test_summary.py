"""What a terminal shows of an evaluation and a training: few rows, 100 columns, best marked."""

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from hyperrec_jax.evaluation.front import evaluate_front
from hyperrec_jax.evaluation.list_front import Lists, list_front
from hyperrec_jax.evaluation.outputs import Scores
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.reports.summary import front_summary, shown_rows, wrapped
from hyperrec_jax.reports.tables import training_summary


def made_front(goals, count=25, conditioned=True, with_lists=True):
    rng = np.random.default_rng(0)
    grid = evaluation_grid(len(goals), count)
    labels = (rng.random((len(goals), 600)) < 0.3).astype(np.uint8)
    strength = grid[:, :, None] if conditioned else grid[:1, :, None]
    logits = (strength * labels + rng.normal(size=labels.shape)).astype(np.float32)
    front = evaluate_front(
        Scores(logits, labels), "test", goals, grid if conditioned else None, resamples=20
    )
    if not with_lists:
        return front
    lists = list_front(
        "expected_gain",
        "centre",
        goals,
        labels,
        (grid[:, :, None] * np.broadcast_to(logits, (len(grid), *labels.shape))).sum(1),
        np.arange(600) // 10,
        grid,
        resamples=20,
    )
    front.__dict__["lists"] = Lists((lists,))
    return front


LONG = ("watch_time_of_the_session", "purchase_within_a_week", "returned", "shared_it", "liked")


@pytest.mark.parametrize("with_lists", [False, True])
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("goals", [("click", "buy"), LONG])
def test_every_line_fits_and_there_are_few_rows(goals, conditioned, with_lists):
    text = front_summary(made_front(goals, 25, conditioned, with_lists))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    heads = [place for place, line in enumerate(lines) if line.startswith("|-")]
    assert heads
    for place in heads:
        rest = lines[place + 1 :]
        rows = list(itertools.takewhile(lambda line: re.match(r"\| +[\d*]", line), rest))
        assert 1 <= len(rows) <= 9
    for goal in goals:
        assert f"AUC {goal}" in text
        assert (f"NDCG {goal}" in text) == with_lists


def test_the_best_of_a_column_is_marked_and_its_ends_are_shown():
    front = made_front(("click", "buy"))
    text = front_summary(front)
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    shown = shown_rows(front.preferences)
    assert len(cells) == len(shown) == 9
    assert {0, 24} <= set(shown)
    names = [cell.strip() for cell in header.strip("|").split("|")]
    column = names.index("AUC buy")
    best = int(np.argmax(front.auc[shown, 1]))
    assert [row[column].startswith("*") for row in cells].index(True) == best
    assert cells[best][column] == f"*{front.auc[shown[best], 1]:.4f}"
    loss = names.index("loss click")
    assert cells[int(np.argmin(front.loss[shown, 0]))][loss].startswith("*")
    assert sum(row[column].startswith("*") for row in cells) == 1
    assert "* best of those shown; the files have all 25 preferences" in text


def test_the_ends_of_every_goal_are_among_the_rows():
    grid = evaluation_grid(3, 28)
    shown = shown_rows(grid)
    assert len(shown) == 9
    assert set(grid.argmax(axis=0)) <= set(shown)


def test_sentences_wrap_and_tables_do_not():
    assert wrapped("|" + "x" * 200) == "|" + "x" * 200
    first, *rest = wrapped("word " * 40).splitlines()
    assert len(first) <= 100
    assert all(line.startswith("  word") for line in rest)


def test_a_training_of_many_epochs_fits_too(tmp_path):
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for epoch in range(1, 41):
            values = {
                f"{metric}/{goal}": 0.5 for goal in LONG[2:] for metric in ("auc", "log_loss")
            }
            record = {"step": 10 * epoch, "kind": "validation", "epoch": epoch, "hypervolume": 0.4}
            file.write(json.dumps(record | values) + "\n")
    text = training_summary(tmp_path, SimpleNamespace(best_step=330))
    title, *lines = text.splitlines()
    assert str(tmp_path) in title
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 2 + 9
    assert re.search(r"^\| +33 .*selected", text, re.MULTILINE)
    assert "auc/liked" in lines[0]
    assert "log_loss" not in lines[0]
