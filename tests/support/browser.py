"""A system Chromium, driven by Playwright; tests are skipped, saying so, where there is none."""

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here; install it to run this test")
    driver = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright here; pip install 'hyperrec-jax[browser]'"
    )
    with driver.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=found, args=list(QUIET))
        yield launched
        launched.close()


def until(page: Any, expression: str, seconds: float = 10) -> None:
    """Waits until an expression of the page is true; the page itself may not evaluate texts."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(30)


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Opens an address in a window of its own; the test fails on errors in the console."""
    told: list[str] = []
    contexts = []

    def open_page(address: str, width: int = 1400, colours: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=colours, offline=False
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("console", lambda line: line.type == "error" and told.append(line.text))
        page.goto(address)
        return page

    open_page.told = told  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    assert told == []
