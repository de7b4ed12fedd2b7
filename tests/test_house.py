"""The house: imports go down the list of layers only, and files stay short."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "hyperrec_jax"

LAYERS = (
    "errors",
    "exit",
    "options",
    "registry",
    "parallel",
    "goals",
    "data",
    "models",
    "preference",
    "evaluation",
    "config",
    "training",
    "reports",
    "serving",
    "api",
    "commands",
    "__main__",
)
"""From the lowest to the highest: a module imports from its own layer and from those before it."""

UPWARD = {
    ("hyperrec_jax.training.tune", "hyperrec_jax.reports.tables"): "its table, below the reports",
}
"""Imports that go up: (module, what it imports) to the reason. This list only gets shorter."""

LONG: dict[str, str] = {}
"""Files of more than `MOST_LINES` lines, with the reason. This list only gets shorter."""

MOST_LINES = 350


def _modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    names = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = _modules()


TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def _named(node: ast.AST) -> list[str]:
    """The modules that an import statement names; none for any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.module, "write imports from the root of the package"
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        return [each if each in MODULES else node.module for each in inside]
    return []


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules of this package that some nodes of a syntax tree import."""
    named = {name for node in nodes for name in _named(node)}
    ours = {name for name in named if name.split(".")[0] == PACKAGE}
    assert ours <= set(MODULES), f"no such modules: {sorted(ours - set(MODULES))}"
    return ours


def _layer(name: str) -> int:
    """The place of a module's layer; what the package itself shows is of the layer `api`."""
    return LAYERS.index("api" if name == PACKAGE else name.split(".")[1])


def _upward() -> set[tuple[str, str]]:
    return {
        (name, imported)
        for name in MODULES
        if name != PACKAGE
        for imported in _imports(ast.walk(TREES[name]))
        if _layer(imported) > _layer(name)
    }


def test_every_module_belongs_to_a_layer():
    assert {name.split(".")[1] for name in MODULES if name != PACKAGE} <= set(LAYERS)


def test_imports_go_down_only():
    new = _upward() - set(UPWARD)
    assert not new, f"imports that go up: {sorted(new)}"


def test_the_list_of_imports_that_go_up_gets_shorter():
    mended = set(UPWARD) - _upward()
    assert not mended, f"no longer there, take them off the list: {sorted(mended)}"


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in MODULES.values()
    }
    long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert not set(long) - set(LONG), f"of more than {MOST_LINES} lines: {long}"
    assert not set(LONG) - set(long), "no longer long, take them off the list"


NOT_YET_REACHED = {}
"""Modules that only tests use so far, with what they wait for. This list only gets shorter."""

REACHED_BY_NAME = {
    "hyperrec_jax.__main__": "python -m hyperrec_jax",
    "hyperrec_jax.commands": "the commands, started by their names",
    "hyperrec_jax.models": "the models, registered where they stand",
    "hyperrec_jax.goals": "the kinds of goal, registered where they stand",
    "hyperrec_jax.preference.famo": "an objective, registered where it stands",
    "hyperrec_jax.data.sources": "the sources, looked up by their names",
    "hyperrec_jax.training.trackers": "the trackers, registered where they stand",
    "hyperrec_jax.data.aliexpress_tfds": "TensorFlow Datasets, whose user imports it",
}
"""Packages whose modules nothing needs to import, with what reaches them instead."""


def test_every_module_is_reached():
    scripts = [ast.parse((ROOT / name).read_text("utf-8")) for name in ("train.py", "evaluate.py")]
    reached = {name for tree in (*TREES.values(), *scripts) for name in _imports(ast.walk(tree))}
    left = {
        name
        for name, path in MODULES.items()
        if path.name != "__init__.py"
        and name not in reached
        and not name.startswith(tuple(REACHED_BY_NAME))
    }
    assert not left - set(NOT_YET_REACHED), f"nothing imports {sorted(left)}"
    assert not set(NOT_YET_REACHED) - left, "reached by now, take them off the list"


@pytest.mark.parametrize("name", ["predictor", "preprocess", "http", "artefact"])
def test_serving_starts_without_the_packages_of_training(name):
    seen: set[str] = set()
    waiting = {f"{PACKAGE}.serving.{name}"}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        top = TREES[module].body  # imports within functions come later, if ever
        others = {each.split(".")[0] for node in top for each in _named(node)}
        assert not others & {"flax", "optax", "orbax"}, module
        waiting |= _imports(top) - seen
    assert not [each for each in seen if each.startswith(f"{PACKAGE}.training")]
