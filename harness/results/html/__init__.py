"""Pages: templates filled with plain values, everything in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.runtime.text import visible


def render(template: str, **values: Any) -> str:
    """The HTML of `template` (a file of this folder); values are escaped, and a missing one is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Escaping makes no markup of what a record says; this makes no character that hides or reorders the others.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    return environment.get_template(template).render(**values)
