"""MkDocs hook: blocks of ```math become MathML, which browsers draw without any script."""

from typing import Any

from latex2mathml.converter import convert


def _formula(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="formula">{convert(source, display="block")}</div>'


def on_config(config: Any) -> Any:
    """Registers the blocks with the extension that reads fences."""
    fence = {"name": "math", "class": "formula", "format": _formula}
    config["mdx_configs"].setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config
