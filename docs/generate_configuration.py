"""Writes docs/configuration.md from the defaults and from the components' own docstrings.

python docs/generate_configuration.py
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperrec_jax import models
from hyperrec_jax.config import defaults
from hyperrec_jax.config.optimizer import create_optimizer
from hyperrec_jax.data.readers.resident import is_resident
from hyperrec_jax.data.readers.rows import TrainingReader
from hyperrec_jax.preference import normalisation, objectives
from hyperrec_jax.preference import sampling as preferences
from hyperrec_jax.training.workdir import flatten

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# Configuration

<!-- Written by docs/generate_configuration.py: edit the docstrings, then run it again. -->

A config file is Python and trusted code: `configs/base.py` holds every default, and each of the
other files in `configs/` changes a few of them. On the command line a value is changed by
`--config.` and its name:

```bash
python train.py --config configs/synthetic.py --config.train.epochs=5 \\
    --config.model.bottom_widths="(64, 32)" --config.objective.name=smooth_chebyshev
```

What is given on the command line goes before the file, the file before the preset, the preset
before the defaults. A name that does not exist is an error. A default of `-` leaves the value to
the component, whose own defaults stand further below; a value that the chosen component does not
take is an error, too.
"""

OTHERS = {
    "train.epochs": "Passes over the training rows.",
    "train.preference_per_row": "Draw a preference for each row instead; the objective must be "
    "linear in the losses, since each row's loss then stands alone.",
    "train.steps_per_dispatch": "Steps compiled into one call.",
    "train.checkpoint_every": "Steps between saves within an epoch, rounded up to whole calls; an "
    "epoch's end always saves.",
    "train.skip_nonfinite": "Keep the old state where a loss or an update is not finite, and "
    "count such steps.",
    "optimizer.lazy_rows": "Fields with at least this many ids, and more than a batch has rows, "
    "use lazy Adam; 0 for none.",
    "preset": "A named set of values; see [presets](#presets).",
    "seed": "Of the first parameters, the order of the rows, the preferences and the dropout.",
    "model.name": "See [models](#models).",
    "objective.name": "See [objectives](#objectives); by default `linear`, and `uniform` for "
    "models that take no preference.",
    "normaliser.name": "See [loss normalisation](#loss-normalisation).",
    "sampler.name": "See [training preferences](#training-preferences).",
}
"""What no docstring says."""


def meanings(documented: Any, heading: str = "Args") -> dict[str, str]:
    """The names and texts of a docstring's `Args:` or `Attributes:` section."""
    _, _, section = (inspect.getdoc(documented) or "").partition(f"{heading}:\n")
    section = re.split(r"\n\S", section)[0]
    entries = re.findall(r"^  (\w+): (.*?)(?=^  [\w*]|\Z)", section, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in entries}


def comments() -> dict[str, str]:
    """The comments behind the values in `defaults.get_config`, by key."""
    source = inspect.getsource(defaults.get_config)
    found = re.findall(r"^ +config\.([\w.]+) = .*?  # (.+)$", source, re.MULTILINE)
    return {key: comment[0].upper() + comment[1:] for key, comment in found}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in r) + " |" for r in lines
    )


def shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"`{value}`"


def run_section(values: Mapping[str, Any], prefixes: tuple[str, ...]) -> str:
    """A table of the keys that begin with one of some prefixes."""
    known = {
        **{f"train.{name}": text for name, text in meanings(TrainingReader).items()},
        **comments(),
        **{f"data.{name}": text for name, text in meanings(is_resident).items()},
        **{f"optimizer.{name}": text for name, text in meanings(create_optimizer).items()},
        **OTHERS,
    }
    rows = []
    for key, value in values.items():
        if key.startswith(prefixes):
            if key not in known:
                raise ValueError(f"config.{key} has no comment in hyperrec_jax/config/defaults.py")
            rows.append([f"`{key}`", shown(value), known[key]])
    return table(["key", "default", "meaning"], rows)


def summary(documented: Any) -> str:
    """The text of a docstring before its sections."""
    text = inspect.getdoc(documented) or ""
    return re.split(r"\n\n(?:Args|Attributes|Returns|Raises):", text)[0]


def component_sections(
    section: str, page: str, constructors: Mapping[str, Callable[..., Any]]
) -> Iterator[str]:
    """A heading, the text and the options of each component of a table."""
    for name, construct in constructors.items():
        link = f"\n\n[More on {name}]({page}#{name})" if page else ""
        yield f"### {name}\n\n{summary(construct)}{link}"
        texts = meanings(construct)
        rows = [
            [
                f"`{section}.{key}`",
                "required" if parameter.default is parameter.empty else shown(parameter.default),
                texts[key],
            ]
            for key, parameter in inspect.signature(construct).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        if name == "entropy":
            rows = []  # its one argument comes from the data
        if rows:
            yield table(["key", "default", "meaning"], rows)


def option_meanings(model: type[models.MultiTaskModel]) -> dict[str, str]:
    """The texts of a model's options, with the choices of those that have some."""
    texts = meanings(model, "Attributes")
    hints = typing.get_type_hints(model)
    for name in texts:
        if typing.get_origin(hints.get(name)) is typing.Literal:
            choices = ", ".join(f"`{choice}`" for choice in typing.get_args(hints[name]))
            texts[name] += f" One of {choices}."
    return texts


def model_sections() -> Iterator[str]:
    common = option_meanings(models.MultiTaskModel)
    defaults_of_all = {
        key: value for key, value in models.model_options("singletask").items() if key in common
    }
    yield "The options of all models:"
    yield table(
        ["key", "default", "meaning"],
        [[f"`model.{k}`", shown(v), common[k]] for k, v in defaults_of_all.items()],
    )
    for name in models.model_names():
        model = models.model_class(name)
        if model.__module__.split(".")[0] != "hyperrec_jax":
            continue  # registered by an example or a test
        texts = option_meanings(model)
        own = {
            key: value
            for key, value in models.model_options(name).items()
            if key not in defaults_of_all
        }
        yield f"### {name}\n\n{summary(model)}\n\n[More on {name}](models.md#{name})"
        if own:
            rows = [[f"`model.{key}`", shown(value), texts[key]] for key, value in own.items()]
            yield table(["key", "default", "meaning"], rows)


def preset_sections() -> Iterator[str]:
    for name, values in defaults.PRESETS.items():
        if values:
            yield f"`--config.preset={name}`:"
            yield table(["key", "value"], [[f"`{k}`", shown(v)] for k, v in values.items()])


def render() -> str:
    """The whole page."""
    values = flatten(defaults.get_config().to_dict())
    order = [f"{section}." for section in ("data", "train", "optimizer", "mesh")]
    penalties = meanings(objectives.create_objective)
    parts = [
        INTRODUCTION,
        "## The run",
        run_section(values, ("preset", "seed", *order)),
        "## Names of the components",
        run_section(values, tuple(key for key in values if key.endswith(".name"))),
        "## Models",
        *model_sections(),
        "## Objectives",
        "Every objective that follows a preference also takes:",
        table(
            ["key", "default", "meaning"],
            [[f"`objective.{key}`", "`0.0`", penalties[key]] for key in ("order", "coverage")],
        ),
        *component_sections("objective", "objectives.md", objectives.OBJECTIVES),
        "## Loss normalisation",
        *component_sections("normaliser", "", normalisation.NORMALISERS),
        "## Training preferences",
        *component_sections("sampler", "", preferences.SAMPLERS),
        "## Presets",
        *preset_sections(),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
