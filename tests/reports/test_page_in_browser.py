"""The page, driven in a browser: points, slider, pins, choice, table, colours, phone, keyboard."""

import re

import pytest

from hyperrec_jax.reports.details import Details
from hyperrec_jax.reports.page import render
from tests.reports.test_summary import made_front
from tests.support.browser import browser, visit  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(evaluated_with_lists, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(*evaluated_with_lists), "utf-8")
    return path.as_uri()


def chosen(page):
    """The weights of the chosen preference."""
    return page.evaluate("state.point.weights")


def cells(page, row):
    return page.locator(f"#measures tbody tr:nth-child({row}) td").all_inner_texts()


def test_points_slider_pins_and_choice(visit, address, evaluated_with_lists):  # noqa: F811
    front, _ = evaluated_with_lists
    ndcg, weights = front.lists.first.ndcg, front.preferences
    page = visit(address)
    assert page.locator("#verdict .lead").inner_text().startswith("From click-first to buy-first")
    assert cells(page, 1)[:2] == ["NDCG@10 click", f"{ndcg[2, 0]:.4f}"]

    chart = page.locator("#workspace .chart").first
    chart.scroll_into_view_if_needed()
    over = chart.locator(".u-over").bounding_box()
    x_range, y_range = (
        page.evaluate(f"around(views[0].values.map(value => value[{goal}]), .08)")
        for goal in (0, 1)
    )

    def place_of(point):
        x, y = (
            (value - low) / (high - low)
            for value, (low, high) in zip(ndcg[point], (x_range, y_range), strict=True)
        )
        return over["x"] + x * over["width"], over["y"] + (1 - y) * over["height"]

    page.mouse.move(*place_of(4))
    assert f"NDCG@10 buy {ndcg[4, 1]:.4f}" in page.locator(".tip").first.inner_text()
    page.mouse.click(*place_of(4))
    assert chosen(page) == pytest.approx(weights[4], abs=1e-5)
    page.locator("#pin-A").click()

    slider = page.locator("#weight")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert chosen(page) == pytest.approx(weights[0], abs=1e-5)
    page.locator("#pin-B").click()
    assert page.evaluate("around(views[0].values.map(value => value[0]), .08)") == x_range
    compared = page.locator("#compared tbody tr:nth-child(3) td").all_inner_texts()
    assert [compared[place] for place in (0, 1, 3)] == [
        "NDCG@10 click",
        f"{ndcg[4, 0]:.4f}",
        f"{ndcg[0, 0]:.4f}",
    ]
    assert float(compared[5].replace("\u2212", "-")) == pytest.approx(
        ndcg[0, 0] - ndcg[4, 0], abs=1e-4
    )

    # What is let go entirely, and compared with the other end, has a best choice.
    page.get_by_label("compared with").first.select_option("B")
    page.get_by_label("per cent that click may lose").fill("99")
    told = page.locator("#found").inner_text()
    best = page.evaluate("guarded(view(), 1, [99, 99], state.pins.B)")
    if best is None:
        assert "No preference surely improves buy" in told
        assert page.locator("#go").is_disabled()
    else:
        assert re.match(r"Weights 0\.\d\d / 0\.\d\d: ", told)
        page.locator("#go").click()
        assert chosen(page) == pytest.approx(weights[best], abs=1e-5)
    assert "--guard 'ndcg@10/click>=-99%' --baseline" in page.locator("#choice code").inner_text()


def test_the_list_moves_and_items_have_the_name_that_one_picks(
    visit,  # noqa: F811
    address,
    evaluated_with_lists,
):
    _, extra = evaluated_with_lists
    first = extra.examples["lists"][0]
    page = visit(address)
    page.evaluate("choosePlace(4)")
    ranks = first["rank"]
    order = sorted(range(first["rows"]), key=lambda row: ranks[4][row])[:10]
    rows = [row.split("\t") for row in page.locator("#list tbody tr").all_inner_texts()]
    assert [int(row[0]) for row in rows] == list(range(1, len(order) + 1))
    moved = [ranks[2][row] - ranks[4][row] for row in order]
    signs = {"↑": 1, "↓": -1}
    assert [0 if row[1] == "·" else signs[row[1][0]] * int(row[1][1:]) for row in rows] == moved
    assert [row[2] for row in rows] == [first["values"][0][row] for row in order]
    page.get_by_label("field that names items").select_option("1")
    head = page.locator("#list thead th").all_inner_texts()
    assert head[2] == extra.examples["fields"][1]


def test_the_table_sorts_and_its_rows_choose(visit, address, evaluated_with_lists):  # noqa: F811
    front, _ = evaluated_with_lists
    page = visit(address)
    page.get_by_text("All 5 preferences").click()
    heading = page.get_by_role("button", name="AUC click", exact=True)
    heading.click()
    column = page.locator("#front th").evaluate_all(
        "heads => heads.findIndex(head => head.ariaSort === 'ascending')"
    )
    values = page.locator(f"#front tbody td:nth-child({column + 1})").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.value))"
    )
    assert values == sorted(front.auc[:, 0])
    page.locator("#front tbody tr").first.click()
    worst = front.preferences[front.auc[:, 0].argmin()]
    assert chosen(page) == pytest.approx(worst, abs=1e-5)


def made_page(folder, goals, conditioned=True):
    """A page of a front that no model made, for so many goals."""
    nothing = Details("made", "runs/made", {}, {}, [], {}, None)
    names = tuple(f"goal_{number}" for number in range(goals))
    path = folder / "made.html"
    path.write_text(render(made_front(names, 9, conditioned), nothing), "utf-8")
    return path.as_uri()


def test_three_goals_have_a_triangle(visit, tmp_path):  # noqa: F811
    page = visit(made_page(tmp_path, 3))
    corner = page.locator(".triangle").bounding_box()
    page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
    page.mouse.down()
    page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + 5, steps=4)  # the upper corner
    page.mouse.up()
    assert chosen(page) == [0, 0, 1]
    page.locator(".triangle").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert chosen(page)[2] < 1
    page.get_by_label("goal upwards").select_option("2")
    assert "NDCG@10 goal_2" in page.locator("#workspace .chart").first.get_attribute("aria-label")


def test_four_goals_have_sliders_that_may_all_be_zero(visit, tmp_path):  # noqa: F811
    page = visit(made_page(tmp_path, 4), 390)
    for number in range(4):
        slider = page.get_by_label(f"weight of goal_{number}", exact=True)
        slider.focus()
        page.keyboard.press("Home")
    assert "All weights are zero: equal weights are shown." in page.locator("#status").inner_text()
    nearest = page.evaluate("facts.preferences[nearest(equalWeights())]")
    assert chosen(page) == nearest
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("goals", [1, 2])
def test_a_model_without_preference_has_measures_and_no_choice(visit, tmp_path, goals):  # noqa: F811
    page = visit(made_page(tmp_path, goals, conditioned=False))
    assert page.locator("#measures tbody tr").count() == 3 * goals
    assert page.locator("#choice").is_visible() == (goals > 1)  # its lists have preferences


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_does_not_scroll_sideways_and_colours_change(visit, address, colours):  # noqa: F811
    page = visit(address, 390, colours)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    def back():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    before = back()
    assert (before == "rgb(255, 255, 255)") == (colours == "light")
    page.locator("#theme").click()
    assert (back() == "rgb(255, 255, 255)") == (colours == "dark")
    page.emulate_media(media="print")
    assert not page.locator("#theme").is_visible()


def test_the_keyboard_is_enough(visit, address, evaluated_with_lists):  # noqa: F811
    front, _ = evaluated_with_lists
    page = visit(address)
    page.locator("#workspace .chart").first.focus()
    page.keyboard.press("ArrowRight")  # more weight for the goal to the right
    assert chosen(page) == pytest.approx(front.preferences[1], abs=1e-5)
    page.keyboard.press("a")
    page.keyboard.press("End")
    page.keyboard.press("b")
    assert chosen(page) == pytest.approx(front.preferences[0], abs=1e-5)
    assert "A and B" in page.locator("#compared").inner_text()
    page.locator("#weight").focus()
    page.keyboard.press("ArrowRight")
    assert chosen(page) == pytest.approx(front.preferences[1], abs=1e-5)
    assert page.locator("#weight").get_attribute("aria-valuetext").startswith("click 0.")
