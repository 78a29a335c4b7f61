"""Hook of mkdocs: adds pages from outside docs/, and handles links to files of the repository that are not pages.

A link to a file of the repository that is not a page of the site becomes plain text; a broken link stays, so that mkdocs
warns and the strict build fails.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "leaderboards/demo.md")
"""Documents from elsewhere in the repository, by their path there, which is their path on the site too."""
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for name in PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they hold in the repository, turned into links between pages."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in PAGES else f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        text, address, anchor = match.group(1), match.group(2), match.group(3) or ""
        if ":" in address or address.startswith("/"):
            return match.group(0)
        target = posixpath.normpath(posixpath.join(folder, address))
        name = target if target in PAGES else target.removeprefix("docs/") if target.startswith("docs/") else ""
        if name and files.get_file_from_path(name):
            return f"[{text}]({posixpath.relpath(name, posixpath.dirname(here) or '.')}{anchor})"
        return text if (ROOT / target).exists() else match.group(0)

    return "".join(
        part if part.lstrip().startswith("```") else _LINK.sub(turned, part)
        for part in re.split(r"(^[ ]*```.*?^[ ]*```[ ]*$)", markdown, flags=re.MULTILINE | re.DOTALL)
    )
