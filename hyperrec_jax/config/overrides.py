"""Values over a config: from a command line, from a dictionary, for every command alike.

--config.model.num_experts=8      --set model.num_experts=8
--config.model.tower_widths="(16, 8)"      --set model.tower_widths=[16,8]
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hyperrec_jax.config.sections import COMPONENTS, SECTIONS, known_keys, section_options
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.options import check

Config = dict[str, Any]

_KEY = r"[A-Za-z_][\w.]*"


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Takes the overrides out of a command line.

    Args:
      arguments: A command line; `--config.KEY=VALUE`, `--config.KEY VALUE`, `--config.KEY` for
        true, `--noconfig.KEY` for false, `--set KEY=VALUE`.

    Returns:
      The rest of the command line, and the last value of each key as text.

    Raises:
      UserError: what follows `--set` has not the form KEY=VALUE.
    """
    rest: list[str] = []
    values: dict[str, str] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*rest, argument, *left], values
        if found := re.fullmatch(rf"--?config\.({_KEY})=(.*)", argument, re.DOTALL):
            values[found[1]] = found[2]
        elif found := re.fullmatch(rf"--?noconfig\.({_KEY})", argument):
            values[found[1]] = "false"
        elif found := re.fullmatch(rf"--?config\.({_KEY})", argument):
            follows = bool(left) and not left[0].startswith("--")
            values[found[1]] = left.pop(0) if follows else "true"
        elif found := re.fullmatch(r"--?set(?:=(.*))?", argument, re.DOTALL):
            text = found[1] if found[1] is not None else left.pop(0) if left else ""
            pair = re.fullmatch(rf"({_KEY})=(.*)", text, re.DOTALL)
            if not pair:
                raise UserError(f"--set {text}: give key=value, such as model.num_experts=8")
            values[pair[1]] = pair[2]
        else:
            rest.append(argument)
    return rest, values


def parse_value(text: str) -> Any:
    """The value that a text on the command line stands for.

    `8`, `1e-4`, `'text'`, `None`, `true`, `(16, 8)`, `[16,8]` and `16,8` are what they look like; a
    list of words may leave the quotes out; all else is text.
    """
    stripped = text.strip()
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    try:
        return _tuples(ast.literal_eval(stripped))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    if found := re.fullmatch(r"[\[(]([^\[\]()]+)[\])]", stripped):
        return tuple(parse_value(part.strip()) for part in found[1].split(",") if part.strip())
    return text


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def overridden(config: Mapping[str, Any], values: Mapping[str, Any]) -> Config:
    """A config with other values laid over it, checked.

    Args:
      config: A nested dictionary with the sections of `config/sections.py`.
      values: Values by dotted key. Text is read as on a command line where the option takes other
        than text.

    Raises:
      UserError: a key does not exist, or a value is of the wrong type or out of its range. The
        options of components are checked by the component, once it is made.
    """
    result: Config = {
        key: dict(section) if isinstance(section, Mapping) else section
        for key, section in config.items()
    }
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        inner: list[str] = []
        if section.partition(".")[0] in COMPONENTS:  # such as model.embedding_dims.item
            section, name, *inner = key.split(".")
        known = section_options(section) if section in ("", *SECTIONS) else {}
        if section not in COMPONENTS and name not in known:
            raise UserError(f"no config key {key!r}; {suggestion(key, known_keys())}")
        is_text = name in known and known[name].hint is str
        if isinstance(value, str) and not is_text:
            value = parse_value(value)
        target = result.setdefault(section, {}) if section else result
        for part in inner:
            held = target.get(name)
            target[name] = dict(held) if isinstance(held, Mapping) else {}
            target, name = target[name], part
        if inner:
            target[name] = _tuples(value)
        elif value is None and section in COMPONENTS and name != "name":
            target.pop(name, None)  # back to the component's default
        else:
            target[name] = _tuples(value)
    check_config(result)
    return result


def check_config(config: Mapping[str, Any], where: str = "") -> None:
    """Checks the names of a config's sections and the options that no component has.

    Args:
      config: A nested dictionary.
      where: Beginning of the message, such as 'configs/own.py: '.

    Raises:
      UserError: a section or key is missing or unknown, or a value is of the wrong type or out of
        its range.
    """
    for section in (*SECTIONS, *COMPONENTS):
        if not isinstance(config.get(section), Mapping):
            raise UserError(f"{where}the config has no section {section!r}")
    for key, value in config.items():
        if key in SECTIONS:
            _check_section(key, value, where)
        elif key in COMPONENTS:
            if "name" not in value:
                raise UserError(f"{where}the config has no {key}.name")
            empty = [name for name, held in value.items() if held is None and name != "name"]
            if empty:
                raise UserError(
                    f"{where}{key}.{empty[0]} is empty, as in configs of hyperrec_jax 0.1.0, which "
                    "this version does not read; name only the options that differ, and train again"
                )
        elif key in section_options(""):
            check(f"{where}{key}", section_options("")[key].hint, value)
        else:
            raise UserError(f"{where}no config key {key!r}; {suggestion(key, known_keys())}")


def _check_section(section: str, values: Mapping[str, Any], where: str) -> None:
    known = section_options(section)
    for name, value in values.items():
        if name not in known:
            near = suggestion(f"{section}.{name}", known_keys())
            raise UserError(f"{where}no config key '{section}.{name}'; {near}")
        check(f"{where}{section}.{name}", known[name].hint, value)
    missing = [name for name in known if name not in values]
    if missing:
        raise UserError(
            f"{where}the config has no {section}.{missing[0]}, as those of another release, which "
            "this version does not read; train again, or use that release"
        )
