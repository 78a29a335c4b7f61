"""The layout: every import of `harness/` goes to a lower layer, every module is in a package, modules and names are short."""

from __future__ import annotations

import ast
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[1] / "harness"
LAYERS = {
    "cli": 7,
    "ensembles": 6,
    "challenges": 6,
    "engine": 5,
    "leaderboard": 5,
    "models": 4,
    "datasets": 4,
    "results": 4,
    "cards": 3,
    "imaging": 3,
    "statistics": 3,
    "files": 2,
    "runtime": 1,
}
LONGEST = 400
MOST_DICTS_OF_ANYTHING = 20
"""Places that say `dict[str, Any]`: what has fields has a type."""
LONGEST_TEST_NAME = 79


def module_of(path: Path) -> str:
    return ".".join(("harness", *path.relative_to(HARNESS).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(HARNESS.rglob("*.py"))}


def package(module: str) -> str:
    """The package directly under `harness/` that holds a module; empty for `harness` itself."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and module of every import of the harness in a file, inside functions and under TYPE_CHECKING too."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides the package that it goes to"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in MODULES else str(node.module)) for name in names]
    return [(line, name) for line, name in found if name.split(".")[0] == "harness"]


def wrong_imports(module: str, path: Path) -> list[str]:
    here = package(module)
    if here in ("", "__main__"):
        return []
    return [
        f"{path}:{line}: {module} (layer {LAYERS[here]}) imports {name} (layer {LAYERS.get(package(name), 'none')})"
        for line, name in imports(path)
        if package(name) != here and LAYERS.get(package(name), 99) >= LAYERS[here]
    ]


def test_every_import_goes_to_a_lower_layer():
    wrong = [text for module, path in MODULES.items() for text in wrong_imports(module, path)]
    assert not wrong, "\n".join(wrong)


def test_an_import_upwards_or_sideways_is_named(tmp_path: Path):
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from harness.engine import run\n    from harness.results import key\n", encoding="utf-8")
    assert len(wrong_imports("harness.models.bad", file)) == 2


def test_nothing_lies_loose_next_to_the_packages():
    loose = {path.name for path in HARNESS.iterdir() if path.name != "__pycache__"} - set(LAYERS)
    assert loose <= {"__init__.py", "__main__.py", "py.typed"}
    assert all((HARNESS / name / "__init__.py").is_file() for name in LAYERS)


def test_no_module_is_too_long_to_read():
    lengths = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert not {module: lines for module, lines in lengths.items() if lines > LONGEST}


def test_names_of_tests_are_short_enough_to_read():
    """What a name cannot say in so few characters goes into the test's docstring."""
    found = [
        f"{path.name}:{node.lineno}: {node.name}"
        for path in sorted(Path(__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if len(node.name) > LONGEST_TEST_NAME
    ]
    assert not found, "\n".join(found)


def test_what_has_fields_has_a_type():
    places = [
        f"{module}:{number}"
        for module, path in MODULES.items()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "dict[str, Any]" in line
    ]
    assert len(places) <= MOST_DICTS_OF_ANYTHING, places


def test_scripts_import_what_the_package_has():
    """No test runs the benchmarks and the soaks, so that a renamed module would be noticed by whoever starts them next."""
    missing = []
    for folder in ("benchmarks", "tools"):
        for path in sorted((Path(__file__).parents[1] / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
                    source = MODULES.get(str(node.module))
                    own = names_in(source) if source else set()
                    missing += [
                        f"{path.name}:{node.lineno}: {node.module} has no {alias.name}"
                        for alias in node.names
                        if alias.name not in own and f"{node.module}.{alias.name}" not in MODULES
                    ]
    assert not missing, "\n".join(missing)


def names_in(source: Path) -> set[str]:
    """The names that a module defines or imports at its top level, also inside `if`, `try` and `with`."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found
