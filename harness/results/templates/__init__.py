"""HTML pages: Jinja templates rendered to single files."""

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
        # Escaping prevents markup in a record's text; this also escapes characters that hide or reorder others.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    return environment.get_template(template).render(**values)
