"""The public names of `harness` are documented: each argument, what is returned, what is raised; so is what they return."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import harness
from harness.datasets import Dataset
from harness.engine.compare import Comparison
from harness.engine.verify import VerificationResult
from harness.results.record import Record
from harness.statistics.agreement import Agreement


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
