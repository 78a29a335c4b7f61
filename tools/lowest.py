"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

python tools/lowest.py > lowest.txt && pip install '.[test,baselines,piq]' -c lowest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["test"], *extras["baselines"], *extras["piq"]]:
        if found := re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?>=([\d.]+)", requirement):
            print(f"{found[1]}=={found[3]}")
