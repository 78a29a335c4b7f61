"""Headless Chromium without a driver: a script in a copy of a page writes its results into the DOM."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None
)

_ERRORS = (
    "<script>window.problems = []; addEventListener('error', (e) => problems.push(String(e.message || e.target)), true);</script>"
)
_HELPERS = """
const table = (name) => document.querySelector(`section.protocol[aria-labelledby="${name}"] table`);
const header = (t, name) => [...t.querySelectorAll("thead th")].find((th) => th.textContent.trim().startsWith(name));
const press = (t, name) => header(t, name).querySelector("button").click();
const column = (t, name) => {
  const index = [...t.tHead.rows[0].cells].indexOf(header(t, name));
  return [...t.tBodies[0].rows].map((row) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim());
};
const visible = () => [...document.querySelectorAll("tbody.board tr")].filter((row) => row.checkVisibility())
  .map((row) => row.querySelector("th").dataset.value);
const set = (id, value) => {
  const field = document.getElementById(id);
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
"""


def chromium(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    options = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    )
    # A proxy that does not exist: whatever the page asks of a network fails.
    offline = ("--proxy-server=127.0.0.1:9", f"--user-data-dir={tmp_path / 'profile'}")
    return subprocess.run([CHROMIUM, *options, *offline, *arguments], capture_output=True, text=True, timeout=90, check=True)


def works(tmp_path: Path, page: Path, script: str, *arguments: str) -> Any:
    """What `script` returns when it runs in the page; the console must stay silent."""
    ending = f"<script>{_HELPERS} const seen = (() => {{ {script} }})();\n"
    ending += "const out = document.createElement('pre'); out.id = 'seen';"
    ending += "out.textContent = JSON.stringify({ seen, problems }); document.body.append(out);</script></body>"
    changed = tmp_path / "page.html"
    changed.write_text(page.read_text().replace("<head>", "<head>" + _ERRORS, 1).replace("</body>", ending, 1))
    done = chromium(tmp_path, "--dump-dom", *arguments, changed.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:]
    result = json.loads(html.unescape(found[1]))
    assert result["problems"] == []
    return result["seen"]
