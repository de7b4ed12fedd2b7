"""The documentation says what is there: links, commands, keys, options, code."""

import argparse
import ast
import importlib.util
import inspect
import json
import re
import runpy
from pathlib import Path

import pytest

from hyperrec_jax import models
from hyperrec_jax.commands.main import COMMANDS
from hyperrec_jax.config.catalogue import REGISTRIES, common_options
from hyperrec_jax.config.sections import known_keys
from hyperrec_jax.data.sources.registry import SOURCES
from hyperrec_jax.preference import objectives
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

pages = pytest.mark.parametrize("page", TEXTS)


def fenced(page: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(TEXTS[page]) if kind == language]


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {
        re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def section(page: str, heading: str) -> str:
    """The text below a heading of the second level."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXTS[page], re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading}"
    return found[1]


@pages
def test_relative_links_resolve(page: str) -> None:
    for link in LINK.findall(FENCE.sub("", TEXTS[page])):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{page}: {link}"


@pages
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(
        r"`((?:hyperrec_jax|configs|benchmarks|tests|examples|docs)/[\w/]+\.(?:py|md))`",
        TEXTS[page],
    )
    for name in named:
        assert (ROOT / name).is_file() or "NAME" in name, f"{page}: {name}"


@pages
def test_config_keys_exist(page: str) -> None:
    known = set(known_keys())
    for section, registry in REGISTRIES.items():
        names = {name for part in registry for name in registry.options(part)}
        known |= {f"{section}.{name}" for name in names | set(common_options(section))}
    for key in re.findall(r"--config\.([\w.]+)", TEXTS[page]):
        assert key in known, f"{page}: --config.{key}"
    for key in re.findall(r"--(?:set|range) ([\w.]+)=", TEXTS[page]):
        # Some options are dictionaries: model.embedding_dims.item.
        option = ".".join(key.split(".")[:2])
        assert option in known, f"{page}: {key}"


@pages
def test_commands_exist_and_take_the_options(page: str) -> None:
    """Every option of a command stands in its source, as it is or as a flag's name."""
    commands = "\n".join(fenced(page, "bash")).replace("\\\n", " ")
    for line in commands.splitlines():
        found = re.search(r"python (?:-m ([\w.]+)|([\w/]+\.py))|\bhyperrec ([a-z]\w*)", line)
        if not found:
            continue
        module, script, command = found.groups()
        if command:
            assert command in COMMANDS, line
            module = f"hyperrec_jax.commands.{COMMANDS[command][0]}"
        if module == "pytest":
            assert all((ROOT / path).exists() for path in re.findall(r"tests/\S+", line)), line
            continue
        if module:
            spec = importlib.util.find_spec(module)
            assert spec is not None, f"{page}: {line}"
            assert spec.origin is not None, f"{page}: {line}"
            path = Path(spec.origin)
        else:
            path = ROOT / script
        source = path.read_text("utf-8")
        if "distributed.define_flags(" in source:
            source += (ROOT / "hyperrec_jax" / "parallel" / "distributed.py").read_text("utf-8")
        if "add_policy(" in source:
            shared = ROOT / "hyperrec_jax" / "commands" / "preference_options.py"
            source += shared.read_text("utf-8")
        if "parse_flags(" in source or "split_overrides(" in source:
            source += '"set" "import"'
        if command == "prepare":  # the options of a source are its own
            parser = argparse.ArgumentParser()
            SOURCES.create(line[found.end() :].split()[0]).add_arguments(parser)
            source += " ".join(
                f'"{name}"' for each in parser._actions for name in each.option_strings
            )
        for option in re.findall(r"--([a-z][\w-]*)(?![\w.-])", line[found.end() :]):
            names = (f'"--{option}"', f'"{option}"', f'"{option.replace("-", "_")}"')
            assert any(name in source for name in names), f"{page}: {line}: --{option}"
        for config in re.findall(r"--config[ =](\S+)", line):
            assert (ROOT / config).is_file(), f"{page}: {line}"


@pages
def test_python_blocks_compile(page: str) -> None:
    for code in fenced(page, "python"):
        compile(code, page, "exec")


NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_were_executed_to_their_end(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        compile("".join(cell["source"]), path.name, "exec")
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    for cell in cells:
        for link in LINK.findall("".join(cell["source"])):
            assert re.match(r"\w+:", link) or (path.parent / link).exists(), link


def _plain(tree: ast.AST) -> dict[str, str]:
    """The functions of a syntax tree by name, without docstrings, comments and most types."""
    functions = {}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for inner in (node for node in ast.walk(function) if isinstance(node, ast.FunctionDef)):
            if ast.get_docstring(inner) is not None:
                del inner.body[0]
            inner.returns = None
            for argument in inner.args.args:
                argument.annotation = None
        functions[function.name] = ast.unparse(function)
    return functions


def test_the_architecture_shows_the_step_and_an_objective_as_they_are() -> None:
    sources = ("hyperrec_jax/training/step.py", "examples/custom_objective.py")
    real = {}
    for source in sources:
        real |= _plain(ast.parse((ROOT / source).read_text("utf-8")))
    shown = {}
    for code in fenced("docs/architecture.md", "python"):
        shown |= _plain(ast.parse(code))
    assert {"batch_loss", "train_step", "power_mean"} <= set(shown)
    assert shown == {name: real[name] for name in shown}


def test_the_configuration_page_is_current() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate_configuration.py"))
    assert TEXTS["docs/configuration.md"] == generate["render"](), (
        "run `python docs/generate_configuration.py`"
    )


def test_the_configuration_page_has_every_key() -> None:
    for key in known_keys():
        assert f"| `{key}` |" in TEXTS["docs/configuration.md"]


def test_every_model_has_a_section_with_its_own_options() -> None:
    common = set(inspect.get_annotations(models.MultiTaskModel))
    for name in models.model_names():
        if not models.model_class(name).__module__.startswith("hyperrec_jax."):
            continue  # registered by another test
        text = section("docs/models.md", name)
        own = {k: v for k, v in models.model_options(name).items() if k not in common}
        assert re.findall(r"^\| `(\w+)` \| `(.+?)` \|", text, re.MULTILINE) == [
            (key, str(value)) for key, value in own.items()
        ]


def test_every_objective_has_a_section_with_its_options() -> None:
    for name, construct in objectives.OBJECTIVES.items():
        if not construct.__module__.startswith("hyperrec_jax."):
            continue  # registered by another test
        text = section("docs/objectives.md", name)
        assert re.findall(r"^\| `(\w+)` \| `(.+?)` \|", text, re.MULTILINE) == [
            (key, str(parameter.default))
            for key, parameter in inspect.signature(construct).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]


def test_the_description_of_own_files_is_the_commands_own() -> None:
    """All keys that the command's example shows are in the page's example."""
    from hyperrec_jax.data.sources.description import SCHEMA_EXAMPLE

    (example, *_) = fenced("docs/data.md", "yaml")
    keys = re.findall(r"^ *(\w+):", SCHEMA_EXAMPLE, re.MULTILINE)
    assert re.findall(r"^ *(\w+):", example, re.MULTILINE) == keys


def test_every_module_that_refuses_is_in_the_list_with_tests_that_exist() -> None:
    rows = section("docs/trust.md", "What a refused command leaves behind")
    cells = [line.split(" | ") for line in rows.splitlines() if line.startswith("| ")]
    modules = " ".join(row[2] for row in cells if len(row) == 4)
    named = re.findall(r"`([\w/]+(?:\.py|/))`", modules)
    for path in sorted((ROOT / "hyperrec_jax").rglob("*.py")):
        if "raise UserError" not in path.read_text("utf-8"):
            continue
        name = str(path.relative_to(ROOT / "hyperrec_jax"))
        folders = [f"{parent}/" for parent in Path(name).parents]
        assert {name, *folders} & set(named), f"hyperrec_jax/{name} refuses something"
    for name in named:
        assert (ROOT / "hyperrec_jax" / name).exists(), name
    tests = re.findall(r"`tests/([\w/.]+)::(\w+)`", rows)
    assert tests
    for file, test in tests:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text("utf-8"), f"{file}::{test}"
