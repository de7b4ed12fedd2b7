"""Options of a part: their names, types, ranges, defaults and meanings, read from its signature.

An option is a keyword-only parameter of a function, or a field with a default of a dataclass. Its
type and range stand in the annotation, its meaning in the docstring. The checks of a config,
`hyperrec options` and the documentation all read this.
"""

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from hyperrec_jax.errors import UserError, suggestion

REQUIRED: Any = inspect.Parameter.empty
"""Stands for the default of an option that has none."""

FROM_DATA = "from data"
"""Annotation of a parameter that the data gives, not the config: `Annotated[ArrayLike, FROM_DATA]`.
"""


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval, written as in mathematics: `Range("[0, 1)")` has 0 in it and 1 not.

    As an annotation it holds for a number, or for each number of a tuple.

    Attributes:
      text: Such as `[0, 1]`, `(0, inf)` or `[1, inf)`.
    """

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\[(][^,]+, [^,]+[\])]", self.text):
            raise ValueError(f"{self.text!r} is no interval such as '[0, 1)'")

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end."""
        low, high = self.text[1:-1].split(", ")
        return float(low), float(high)

    def __contains__(self, value: float) -> bool:
        low, high = self.ends
        above = value >= low if self.text[0] == "[" else value > low
        return above and (value <= high if self.text[-1] == "]" else value < high)

    def __str__(self) -> str:
        """As the end of a sentence: 'of at least 1', 'above 0', 'in [0, 1)'."""
        low, high = self.ends
        if math.isinf(high) and not math.isinf(low):
            return f"{'of at least' if self.text[0] == '[' else 'above'} {low:g}"
        return f"in {self.text}"


Count = Annotated[int, Range("[1, inf)")]
Rate = Annotated[float, Range("[0, 1)")]
Fraction = Annotated[float, Range("[0, 1]")]
Positive = Annotated[float, Range("(0, inf)")]
NotNegative = Annotated[float, Range("[0, inf)")]
Widths = Annotated[tuple[int, ...], Range("[1, inf)")]


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a part.

    Attributes:
      name: Its name in the config.
      hint: Its annotation.
      default: Its default, or `REQUIRED`.
      meaning: Its entry in the docstring, on one line.
    """

    name: str
    hint: Any
    default: Any
    meaning: str

    @property
    def line(self) -> str:
        """The first sentence of the meaning."""
        return first_sentence(self.meaning).rstrip(".")

    @property
    def allowed(self) -> str:
        """What values it takes, such as 'a number in [0, 1)'."""
        return expected(self.hint)


def first_sentence(text: str) -> str:
    """The text up to the first full stop that ends a sentence."""
    return re.split(r"(?<=\.)(?<!al\.)\s", text, maxsplit=1)[0]


def options_of(part: Callable[..., Any]) -> dict[str, Option]:
    """The options of a function (keyword-only parameters) or dataclass (fields with a default)."""
    hints = _hints(part)
    meanings = docstring_entries(part)
    if dataclasses.is_dataclass(part):
        # `parent` and `name` are Flax's own.
        defaults = {
            field.name: field.default
            for field in dataclasses.fields(part)
            if field.default is not dataclasses.MISSING and field.name not in ("parent", "name")
        }
    else:
        defaults = {
            key: parameter.default
            for key, parameter in inspect.signature(part).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
    hidden = from_data(part)
    return {
        key: Option(key, hints.get(key, Any), default, meanings.get(key, ""))
        for key, default in defaults.items()
        if key not in hidden
    }


def _hints(part: Callable[..., Any]) -> dict[str, Any]:
    target = part if isinstance(part, type) else inspect.unwrap(part)
    return typing.get_type_hints(target, include_extras=True)


def from_data(part: Callable[..., Any]) -> list[str]:
    return [
        key for key, hint in _hints(part).items() if FROM_DATA in getattr(hint, "__metadata__", ())
    ]


def docstring_entries(documented: Any) -> dict[str, str]:
    """The entries of a docstring's `Args:` or `Attributes:`, of a class those of its bases, too."""
    entries: dict[str, str] = {}
    for owner in reversed(documented.__mro__) if isinstance(documented, type) else [documented]:
        text = inspect.cleandoc(owner.__doc__ or "")
        for _, section in re.findall(
            r"^(Args|Attributes):\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL
        ):
            found = re.findall(r"^  (\w+): (.*?)(?=^  [\w*]|\Z)", section, re.MULTILINE | re.DOTALL)
            entries |= {name: " ".join(meaning.split()) for name, meaning in found}
    return entries


def check_options(
    owner: str, known: Mapping[str, Option], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The values as their options want them.

    Args:
      owner: Whose options they are, for messages, such as "model 'pomoe'".
      known: The options.
      values: Values by name.

    Raises:
      UserError: no such option, or a value of the wrong type or out of its range.
    """
    result = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{owner} has no option {key!r}; {suggestion(key, known)}")
        result[key] = check(f"option {key!r} of {owner}", known[key].hint, value)
    return result


def check(what: str, hint: Any, value: Any) -> Any:
    """The value as an annotation wants it: lists become tuples, all else stays.

    Annotations of other kinds than numbers, text, `Literal`, tuples, mappings and unions of them
    are not checked.

    Raises:
      UserError: the value is of another type or out of its range.
    """
    value = _tuples(value)
    if not _fits(hint, value):
        raise UserError(f"{what} is {value!r}: give {expected(hint)}")
    return value


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _fits(hint: Any, value: Any) -> bool:
    kind, limits = _without_limits(hint)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(argument, value) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        element = Annotated[arguments[0], limits] if limits else arguments[0]
        return isinstance(value, tuple) and bool(value) and all(_fits(element, v) for v in value)
    if origin is Mapping:
        entries = value.items() if isinstance(value, Mapping) else [(None, None)]
        return all(isinstance(k, str) and _fits(arguments[1], v) for k, v in entries)
    if kind in (int, float):
        numeric = isinstance(value, int if kind is int else (int, float))
        finite = numeric and not isinstance(value, bool) and math.isfinite(value)
        return finite and (limits is None or value in limits)
    if kind in (bool, str):
        return isinstance(value, kind)
    if kind is type(None):
        return value is None
    return True


def _without_limits(hint: Any) -> tuple[Any, Range | None]:
    if typing.get_origin(hint) is not Annotated:
        return hint, None
    kind, *notes = typing.get_args(hint)
    return kind, next((note for note in notes if isinstance(note, Range)), None)


def expected(hint: Any) -> str:
    """What an annotation wants, such as 'a number in [0, 1)'."""
    kind, limits = _without_limits(hint)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    end = f" {limits}" if limits else ""
    if origin in (typing.Union, types.UnionType):
        choices = dict.fromkeys(map(expected, (a for a in arguments if a is not type(None))))
        return "a value" if "a value" in choices else " or ".join(choices)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        element, inner = _without_limits(arguments[0])
        end = end or (f" {inner}" if inner else "")
        plural = {int: "whole numbers", float: "numbers", str: "names"}
        return f"a list of {plural.get(element, 'values')}{end}"
    if origin is Mapping:
        return f"a dictionary from names to {expected(arguments[1])} each"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, "nothing" if kind is type(None) else "a value") + end
