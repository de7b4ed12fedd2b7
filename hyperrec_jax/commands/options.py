"""Lists the options of a config: `hyperrec options [SECTION [NAME]]`.

    hyperrec options                     every section
    hyperrec options train               one section with all of its options
    hyperrec options model               the models, and what all of them take
    hyperrec options objective epo       one component with all of its options
    hyperrec options preset original     the values that a preset sets

Each line has an option, its default and its meaning. On a command line an option is
`--config.SECTION.OPTION=VALUE` or `--set SECTION.OPTION=VALUE`.
"""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hyperrec_jax.commands import cli
from hyperrec_jax.config.presets import PRESETS, preset_values
from hyperrec_jax.config.sections import COMPONENTS, SECTIONS, section_options
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.options import REQUIRED, Option


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: there is no such section or component.
    """
    parser = cli.new_parser("options", __doc__, imports=True)
    parser.add_argument("section", nargs="?", help="such as train, model or preset")
    parser.add_argument("name", nargs="?", help="a component of the section, or a preset")
    arguments = parser.parse_args(argv)
    print(text(arguments.section, arguments.name))
    return 0


def text(section: str | None = None, name: str | None = None) -> str:
    """What the command prints.

    Raises:
      UserError: there is no such section or component.
    """
    known = [*SECTIONS, *COMPONENTS, "preset"]
    if section is None:
        blocks = [_section(each) for each in SECTIONS]
        blocks += [_components(each) for each in COMPONENTS]
        return "\n\n".join([_table("", section_options("")), *blocks])
    if section not in known:
        raise UserError(f"no section {section!r}; {suggestion(section, known)}")
    if section == "preset":
        return _presets(name)
    if section in SECTIONS:
        if name is not None:
            return _one_option(section, name)
        return _section(section)
    return _components(section) if name is None else _component(section, name)


def _section(section: str) -> str:
    title = (SECTIONS[section].__doc__ or "").partition("\n")[0]
    return f"{section}: {title}\n{_table(section, section_options(section))}"


def _one_option(section: str, name: str) -> str:
    options = section_options(section)
    if name not in options:
        raise UserError(f"{section} has no option {name!r}; {suggestion(name, options)}")
    option = options[name]
    return "\n".join(
        [
            f"{section}.{name} = {_shown(option.default)}",
            *_wrapped(f"Takes {option.allowed}. {option.meaning}", "  "),
        ]
    )


def _components(section: str) -> str:
    # Here and not at the top: it loads JAX.
    from hyperrec_jax.config.catalogue import REGISTRIES, common_options, headline

    registry = REGISTRIES[section]
    width = max(map(len, registry)) + 2
    lines = [f"{section}: {COMPONENTS[section]}; `hyperrec options {section} NAME` lists one's own"]
    for name in sorted(registry):
        lines += _wrapped(f"{name:<{width}}{headline(registry[name])}", "  ", width + 2)
    if common := common_options(section):
        lines += [f"options of every {section}:", _table(section, common)]
    return "\n".join(lines)


def _component(section: str, name: str) -> str:
    from hyperrec_jax.config.catalogue import REGISTRIES, common_options, summary

    registry = REGISTRIES[section]
    part = registry.find(name)
    options = common_options(section) | registry.options(name)
    return "\n".join(
        [
            f"{section} {name}",
            *(textwrap.indent(summary(part), "  ").splitlines()),
            "",
            _table(section, options) if options else "  It takes no options.",
        ]
    )


def _presets(name: str | None) -> str:
    if name is None:
        return "\n".join(f"{preset}: {len(values)} values" for preset, values in PRESETS.items())
    values = preset_values(name)
    return "\n".join(f"{key} = {value}" for key, value in values.items()) or "the defaults"


def _table(section: str, options: Mapping[str, Option]) -> str:
    prefix = f"{section}." if section else ""
    width = max(len(prefix + name) for name in options) + 2
    values = max(len(_shown(option.default)) for option in options.values()) + 2
    lines: list[str] = []
    for name, option in options.items():
        start = f"{prefix + name:<{width}}{_shown(option.default):<{values}}"
        choices = f" ({option.allowed})" if option.allowed.startswith("one of") else ""
        lines += _wrapped(f"{start}{option.line}{choices}", "  ", len(start) + 2)
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if default is REQUIRED:
        return "required"
    return "-" if default is None else str(default)


def _wrapped(line: str, indent: str, hanging: int = 2) -> list[str]:
    columns = max(shutil.get_terminal_size((120, 24)).columns, 60)
    # `hanging` may be long where a default is: half the line at most.
    later = " " * min(hanging, columns // 2)
    return textwrap.wrap(
        line,
        columns,
        initial_indent=indent,
        subsequent_indent=later,
        drop_whitespace=True,
        replace_whitespace=False,
        break_on_hyphens=False,
    )
