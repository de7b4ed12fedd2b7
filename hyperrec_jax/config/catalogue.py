"""All options that there are, for `hyperrec options` and for `docs/configuration.md`."""

import inspect
import re
from typing import Any

from hyperrec_jax.config.sections import SECTIONS, General
from hyperrec_jax.models import MODELS, MultiTaskModel
from hyperrec_jax.options import Option, first_sentence, options_of
from hyperrec_jax.preference.normalisation import NORMALISERS
from hyperrec_jax.preference.objectives import OBJECTIVES, create_objective
from hyperrec_jax.preference.sampling import SAMPLERS
from hyperrec_jax.registry import Registry

REGISTRIES: dict[str, Registry[Any]] = {
    "model": MODELS,
    "objective": OBJECTIVES,
    "normaliser": NORMALISERS,
    "sampler": SAMPLERS,
}
"""The components by the name of their section."""


def summary(documented: Any) -> str:
    """The text of a docstring before its `Args:` and the like."""
    text = inspect.getdoc(documented) or ""
    return re.split(r"\n\n(?:Args|Attributes|Returns|Raises):", text)[0]


def headline(documented: Any) -> str:
    """The first sentence of a docstring, on one line."""
    return first_sentence(" ".join(summary(documented).partition("\n\n")[0].split()))


def common_options(section: str) -> dict[str, Option]:
    """The options that all components of a section take."""
    if section == "model":
        return options_of(MultiTaskModel)
    return options_of(create_objective) if section == "objective" else {}


def own_options(section: str, name: str) -> dict[str, Option]:
    """The options of a component beyond the common ones, and those whose default differs.

    Raises:
      UserError: there is no such component.
    """
    common = common_options(section)
    return {
        key: option
        for key, option in REGISTRIES[section].options(name).items()
        if key not in common or option.default != common[key].default
    }


def run_options() -> dict[str, Option]:
    """The options of the run by dotted key: those of no component."""
    found = dict(options_of(General))
    for section, options in SECTIONS.items():
        found |= {f"{section}.{name}": option for name, option in options_of(options).items()}
    return found
