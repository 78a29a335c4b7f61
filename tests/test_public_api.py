"""The public names of `harness` are documented: each argument, what is returned, what is raised; so is what they return."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from pathlib import Path

import pytest

import harness
from harness.datasets import Dataset
from harness.engine.compare import Comparison
from harness.engine.verify import VerificationResult
from harness.results.record import Record
from harness.statistics.agreement import Agreement

PACKAGE = Path(harness.__file__).parent


@pytest.mark.parametrize("name", harness.__all__)
def test_every_public_function_documents_arguments_result_and_errors(name: str):
    function = getattr(harness, name)
    text = inspect.getdoc(function) or ""
    sections = dict(re.findall(r"^(Args|Returns|Raises):\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE))
    assert sections.keys() == {"Args", "Returns", "Raises"}
    assert re.findall(r"^    (\w+):", sections["Args"], re.MULTILINE) == list(inspect.signature(function).parameters)
    assert re.match(r".+\.$", text.splitlines()[0])


@pytest.mark.parametrize("name", harness.__all__)
def test_every_public_function_is_typed(name: str):
    signature = inspect.signature(getattr(harness, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())


@pytest.mark.parametrize("kind", [Agreement, Comparison, Dataset, Record, VerificationResult], ids=lambda kind: kind.__name__)
def test_what_they_return_has_a_documented_interface(kind: type):
    members = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
    functions = [name for name, member in members.items() if isinstance(member, property) or inspect.isfunction(member)]
    assert kind.__doc__
    assert not [name for name in functions if not inspect.getdoc(members[name])]


@pytest.mark.parametrize("kind", [Agreement, Comparison, Dataset, Record, VerificationResult], ids=lambda kind: kind.__name__)
def test_every_field_of_what_they_return_is_described(kind: type):
    (node,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(node, ast.ClassDef)
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    texts = {id(item) for item, after in itertools.pairwise(node.body) if isinstance(after, ast.Expr)}
    assert not [ast.unparse(item.target) for item in fields if id(item) not in texts]


def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    """The public functions that a module defines, read from its source."""
    base = PACKAGE.parent.joinpath(*module.split("."))
    file = next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    body = ast.parse(file.read_text(encoding="utf-8")).body if file is not None else []
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


def users_functions() -> dict[str, ast.FunctionDef]:
    """Functions that users call besides those of `harness.__all__`: what the documents name by its place, the definitions of
    metrics, and the statistics that take three arguments or more."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).resolve().parents[1] / "docs").rglob("*.md"))]
    named = sorted({name for text in texts for name in re.findall(r"\bharness(?:\.[a-z_]\w*)+\.[a-z]\w*", text)})
    found = {}
    for module, _, name in (name.rpartition(".") for name in named):
        found |= {f"{module}.{name}": node for own, node in functions_of(module).items() if own == name}
    found |= {f"definitions.{name}": node for name, node in functions_of("harness.models.definitions").items()}
    for path in sorted((PACKAGE / "statistics").glob("*.py")):
        for name, node in functions_of(f"harness.statistics.{path.stem}").items():
            if len(parameters(node)) > 2:
                found[f"{path.stem}.{name}"] = node
    return found


def parameters(node: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


@pytest.mark.parametrize(("name", "node"), users_functions().items(), ids=users_functions())
def test_functions_that_users_call_document_what_applies(name: str, node: ast.FunctionDef):
    """Args names every parameter, in order; Returns where something is returned; Raises where the function itself raises."""
    text = ast.get_docstring(node) or ""
    sections = dict(re.findall(r"^(Args|Returns|Raises):\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE))
    known = [n for line in re.findall(r"^    (\w+(?:, \w+)*):", sections.get("Args", ""), re.MULTILINE) for n in line.split(", ")]
    assert known == parameters(node)
    assert ("Returns" in sections) == (ast.unparse(node.returns or ast.Constant(None)) != "None")
    assert "Raises" in sections or not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    assert re.match(r".+\.$", text.splitlines()[0])


def test_documented_arguments_are_parameters():
    """A parameter that gets another name keeps no line under the old one, anywhere in the package."""
    wrong = []
    for path in sorted(Path(harness.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if text and (section := re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)):
                lines = re.findall(r"^    (\w+(?:, \w+)*):", section[1], re.MULTILINE)
                known = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
                wrong += [f"{path.name}: {node.name}: {name}" for line in lines for name in line.split(", ") if name not in known]
    assert not wrong
