"""Parts that a config chooses by name: one table for each kind, filled by a decorator.

    OBJECTIVES = Registry("objective", "hyperrec_jax.preference")

    @OBJECTIVES.register("power_mean")
    def power_mean(*, exponent: Annotated[float, Range("[1, inf)")] = 2.0) -> Objective: ...

`create` checks the options of a part against its own signature; see `hyperrec_jax.options`.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar

from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.options import REQUIRED, Option, check_options, from_data, options_of

T = TypeVar("T")
Part = TypeVar("Part", bound=Callable[..., Any])

PLUGINS = "hyperrec_jax.plugins"
"""Group of entry points, each a module that registers parts."""


class Registry(Mapping[str, Callable[..., T]], Generic[T]):
    """The parts of one kind by name.

    Looking a name up imports the modules of the package and the plugins that are installed.

    Args:
      kind: What the parts are, for messages ('objective').
      package: The package whose modules register such parts.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._parts: dict[str, Callable[..., T]] = {}

    def register(
        self, name: str, make: Callable[[Any], Callable[..., T]] = lambda part: part
    ) -> Callable[[Part], Part]:
        """A decorator that enters a part under a name and returns it as it was.

        Args:
          name: The name in a config.
          make: Turns what is decorated into the constructor of the part, where they differ.

        Raises:
          ValueError: another part has the name.
        """

        def add(part: Part) -> Part:
            held = self._parts.get(name)
            if held is not None and getattr(held, "__qualname__", "") != part.__qualname__:
                raise ValueError(f"{self.kind} name {name!r} is taken by {held.__qualname__}")
            self._parts[name] = make(part)
            return part

        return add

    def __getitem__(self, name: str) -> Callable[..., T]:
        self._discover()
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(self._parts)

    def __len__(self) -> int:
        self._discover()
        return len(self._parts)

    def _discover(self) -> None:
        import_modules(self.package)
        load_plugins()

    def find(self, name: str) -> Callable[..., T]:
        """The constructor of a part.

        Raises:
          UserError: no part has the name.
        """
        # What stands on a command line may be a number or a dictionary, too.
        if not isinstance(name, str) or name not in self:
            raise UserError(
                f"no {self.kind} {name!r}; {suggestion(str(name), self)} "
                "(--import FILE loads a file that registers one)"
            )
        return self[name]

    def options(self, name: str) -> dict[str, Option]:
        """The options of a part.

        Raises:
          UserError: no part has the name.
        """
        return options_of(self.find(name))

    def defaults(self, name: str) -> dict[str, Any]:
        """The defaults of a part's options, of those that have one.

        Raises:
          UserError: no part has the name.
        """
        options = self.options(name)
        return {
            k: option.default for k, option in options.items() if option.default is not REQUIRED
        }

    def checked(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a part's options, lists as tuples.

        Raises:
          UserError: no such part or option, a value of the wrong type or out of its range, or an
            option that is missing.
        """
        known = self.options(name)
        result = check_options(f"{self.kind} {name!r}", known, values)
        for key, option in known.items():
            if option.default is REQUIRED and key not in values:
                raise UserError(f"{self.kind} {name!r} needs the option {key!r}: {option.line}")
        return result

    def create(self, name: str, *args: Any, **options: Any) -> T:
        """Calls a part's constructor.

        Args:
          name: Name of the part.
          *args: What all parts of the kind take.
          **options: The options of this one, and what comes from the data.

        Raises:
          UserError: see `checked`.
        """
        data = {key: options.pop(key) for key in from_data(self.find(name)) if key in options}
        return self.find(name)(*args, **self.checked(name, options), **data)


@functools.cache
def import_modules(package: str) -> None:
    """Imports all modules of a package, so that what they register is known."""
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(module.__path__, f"{package}."):
        importlib.import_module(found.name)


@functools.cache
def load_plugins() -> None:
    """Imports the modules that installed packages name as entry points of the group `PLUGINS`.

    Raises:
      UserError: one can't be imported.
    """
    for entry in metadata.entry_points(group=PLUGINS):
        try:
            entry.load()
        except Exception as error:  # whatever foreign code raises
            raise UserError(f"the plugin {entry.name} ({entry.value}) fails: {error}") from error
