"""Runs the server as on a machine that has only what requirements-serve.txt lists.

python run_serving_only.py REQUIREMENTS MODEL [OPTIONS of hyperrec serve]
"""

import re
import sys
from importlib import metadata
from pathlib import Path


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_dependencies(names: list[str]) -> set[str]:
    """Normalised names of packages and of all that they need; absent ones left out."""
    found: set[str] = set()
    while names:
        name = normalised(names.pop())
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # needed on other systems only
            continue
        if name not in found:
            found.add(name)
            names += [re.split(r"[^\w.-]", r)[0] for r in requirements if "extra ==" not in r]
    return found


class NotInstalled:
    """Finds nothing of the packages that a serving machine does not have."""

    def __init__(self, requirements: Path):
        text = requirements.read_text("utf-8")
        listed = [line for line in text.splitlines() if line and not line.startswith("#")]
        allowed = {"hyperrec-jax", *with_dependencies(listed)}
        self._absent = {
            module
            for module, packages in metadata.packages_distributions().items()
            if not allowed & {normalised(package) for package in packages}
        }
        assert {"flax", "optax", "orbax", "grain"} <= self._absent

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self._absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, NotInstalled(Path(sys.argv[1])))
    from hyperrec_jax.commands import cli, serve

    cli.exit_on_user_error(lambda: serve.main(["--model", *sys.argv[2:]]))
