"""Writes docs/configuration.md from the options' own annotations and docstrings.

python docs/generate_configuration.py
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax.config.catalogue import (
    REGISTRIES,
    common_options,
    own_options,
    run_options,
    summary,
)
from hyperrec_jax.config.presets import PRESETS
from hyperrec_jax.options import REQUIRED, Option

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# Configuration

<!-- Written by docs/generate_configuration.py: edit the docstrings, then run it again. -->

A config file is Python and trusted code: a function `get_config(preset)` that changes a few of the
package's defaults, as the files in `configs/` do. On a command line a value is changed by
`--config.` and its name, or by `--set`, in every command that takes a config:

```bash
hyperrec train --config configs/synthetic.py --config.train.epochs=5 \\
    --config.model.bottom_widths="(64, 32)" --config.objective.name=smooth_chebyshev
hyperrec train --config configs/synthetic.py --set train.epochs=5 --set model.bottom_widths=[64,32]
```

What is given on the command line goes before the file, the file before the preset, the preset
before the defaults. A section of a component, such as `config.model`, holds its name and the
options that differ from the component's own defaults; the component checks their names, types and
ranges. `hyperrec options` lists all of this in a terminal, with the components of your own that
`--import FILE` registers. A default of `-` depends on other options.
"""

NAMES = {
    "model": ("pomoe", "See [models](#models)."),
    "objective": (
        None,
        "See [objectives](#objectives); by default `linear`, and `uniform` for models that take no "
        "preference.",
    ),
    "normaliser": (
        None,
        "See [loss normalisation](#loss-normalisation); by default `entropy`, and `none` for "
        "models that take no preference.",
    ),
    "sampler": ("stratified", "See [training preferences](#training-preferences)."),
}
"""The default of a component's name, and what to say of it."""

TITLES = {
    "model": ("Models", "models.md", "The options of all models:"),
    "objective": (
        "Objectives",
        "objectives.md",
        "Every objective that follows a preference also takes:",
    ),
    "normaliser": ("Loss normalisation", "", ""),
    "sampler": ("Training preferences", "", ""),
}
"""The heading of a component's part of the page, the page that says more, and an introduction."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines
    )


def shown(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    return "-" if value is None else f"`{value}`"


def option_table(options: Mapping[str, Option], prefix: str = "") -> str:
    """A table of options."""
    rows = []
    for key, option in options.items():
        if not option.meaning:
            raise ValueError(f"{prefix}{key} has no entry in its docstring")
        choices = f" Takes {option.allowed}." if option.allowed.startswith("one of") else ""
        rows.append([f"`{prefix}{key}`", shown(option.default), option.meaning + choices])
    return table(["key", "default", "meaning"], rows)


def component_parts(section: str) -> Iterator[str]:
    """The part of the page on a component: what all take, then each one with its options."""
    title, page, introduction = TITLES[section]
    yield f"## {title}"
    if introduction:
        yield introduction
        yield option_table(common_options(section), f"{section}.")
    registry = REGISTRIES[section]
    for name in sorted(registry) if section == "model" else registry:
        part = registry[name]
        if not part.__module__.startswith("hyperrec_jax."):
            continue  # registered by an example or a test
        link = f"\n\n[More on {name}]({page}#{name})" if page else ""
        yield f"### {name}\n\n{summary(part)}{link}"
        if options := own_options(section, name):
            yield option_table(options, f"{section}.")


def preset_parts() -> Iterator[str]:
    yield "## Presets"
    for name, values in PRESETS.items():
        if values:
            yield f"`--config.preset={name}`:"
            yield table(["key", "value"], [[f"`{k}`", shown(v)] for k, v in values.items()])


def render() -> str:
    """The whole page."""
    names = [[f"`{key}.name`", shown(value), text] for key, (value, text) in NAMES.items()]
    parts = [
        INTRODUCTION,
        "## The run",
        option_table(run_options()),
        "## Names of the components",
        table(["key", "default", "meaning"], names),
        *(part for section in REGISTRIES for part in component_parts(section)),
        *preset_parts(),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
