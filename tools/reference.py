"""Write the documents' reference from the code: command line, Python, cards, record, and the tables of models and datasets.

python tools/reference.py            # writes them; a test says when they are not current
"""

from __future__ import annotations

import ast
import html
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import click

import harness
from harness.cards.loading import load_cards
from harness.cards.schema import DatasetCard, ModelCard
from harness.cli.main import cli

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 120
NOTE = "<!-- Written by `python tools/reference.py` from the code; do not edit. -->"

CARDS = {
    "Models": ("harness.cards.schema", ("ModelCard", "Cropping", "Recipe", "Weights", "Tunable", "Published")),
    "Programs as models": ("harness.cards.program", ("Program", "ProgramScore")),
    "Datasets": ("harness.cards.schema", ("DatasetCard", "Protocol", "Download")),
    "Challenges": ("harness.cards.challenge", ()),
    "Suites": ("harness.cards.suite", ("SuiteCard",)),
}
"""Module and classes of each chapter of the page of cards; no classes: all of the module."""

RESULTS = (
    ("harness.results.record", "Record"),
    ("harness.statistics.agreement", "Agreement"),
    ("harness.engine.compare", "Comparison"),
    ("harness.engine.verify", "VerificationResult"),
    ("harness.datasets", "Dataset"),
    ("harness.models.base", "ScoringModel"),
    ("harness.runtime.errors", "HarnessError"),
    ("harness.runtime.errors", "UsageError"),
    ("harness.runtime.errors", "RunError"),
)
"""What the public functions take, return and raise."""


# Text


def paragraphs(text: str) -> str:
    """Text of the code as a document: paragraphs joined and wrapped, tables and indented blocks as they are."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(block if block.startswith(("    ", "|")) else wrapped(block) for block in blocks)


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def cell(text: object) -> str:
    """Text that fits one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def code(text: str) -> str:
    """Code in a cell; a bar would end the cell, and a backslash before it is shown by some readers of Markdown."""
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell(value) for value in row) + " |" for row in rows)])


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTE, *(part for part in parts if part)]) + "\n"


# The command line


def command_line() -> str:
    parts = [
        wrapped(
            "Every command has `--help`. Exit status: 0 done, 1 a fault was met or found, 2 the request could not be served, "
            "130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."
        )
    ]
    for words, command, context in commands(cli, ("harness",), None):
        parts.append(f"## {' '.join(words)}")
        parts.append(help_text(command))
        usage = " ".join([*words, *command.collect_usage_pieces(context)])
        parts.append("```text\n" + usage.replace("[[", "[").replace("]]", "]") + "\n```")  # click before 8.2 writes two
        if rows := [option_row(option, context) for option in command.params if isinstance(option, click.Option)]:
            parts.append(table(("option", "default", "what it does"), rows))
    return page("Command line", *parts)


def commands(
    command: click.Command, words: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """A command and all below it, in the order of their names."""
    context = click.Context(command, parent, info_name=words[-1])
    if parent is not None:
        yield words, command, context
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], (*words, name), context)


def help_text(command: click.Command) -> str:
    """A command's help; paragraphs that it keeps as they are written (after a `\\b`) are shown as code."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))
    return "\n\n".join(
        "```text\n" + block.replace("\b", "").strip("\n") + "\n```" if "\b" in block else wrapped(escaped(block))
        for block in blocks
    )


def escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def option_row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag or option.count else " " + value_of(option)
    default = option.get_default(context)
    shown = isinstance(default, str | int | float) and not isinstance(default, bool) and not option.is_flag
    return code(names + value), code(str(default)) if shown else "", escaped(option.help or "")


def value_of(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    return "|".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else option.type.name.upper()


# Python


def source(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def defined(module: str, name: str) -> ast.FunctionDef | ast.ClassDef:
    for node in source(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"{module} does not define {name}")


def python() -> str:
    parts = [
        wrapped(
            "`import harness` brings these names; each library is imported when it is first needed. Everything else may "
            "change between versions. The types that are named here are described below."
        )
    ]
    for name in harness.__all__:
        parts += [f"## harness.{name}", function(*harness._WHERE[name], shown=f"harness.{name}")]
    parts.append("## Objects")
    for module, name in RESULTS:
        parts += [f"### {name}", f"`{module}.{name}`", class_(module, name)]
    return page("Python", *parts)


def function(module: str, name: str, shown: str) -> str:
    node = defined(module, name)
    assert isinstance(node, ast.FunctionDef)
    return "```python\n" + signature(node, shown) + "\n```\n\n" + docstring(ast.get_docstring(node) or "")


def signature(node: ast.FunctionDef, shown: str) -> str:
    """A function's signature, an argument a line where one line is too long; `self` left out."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    one = f"{shown}({ast.unparse(node.args)}){returns}"
    if len(one) <= 100:
        return one
    words = []
    positional = node.args.args
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    words += [argument(a, d) for a, d in zip(positional, defaults, strict=True)]
    words += ["*"] if node.args.kwonlyargs else []
    words += [argument(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return f"{shown}(\n" + "".join(f"    {word},\n" for word in words) + f"){returns}"


def argument(node: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(node.annotation)}" if node.annotation else ""
    return node.arg + annotation + (f" = {ast.unparse(default)}" if default is not None else "")


def docstring(text: str) -> str:
    """A docstring with sections (`Args:`, `Returns:`, `Raises:`) as a document."""
    parts: list[str] = []
    for block in re.split(r"\n(?=(?:Args|Returns|Raises|Yields):\n)", text):
        title, _, body = block.partition("\n")
        if title not in ("Args:", "Returns:", "Raises:", "Yields:"):
            parts.append(paragraphs(block))
            continue
        lines = textwrap.dedent(body).strip("\n")
        parts.append(f"**{ {'Args:': 'Arguments'}.get(title, title.rstrip(':')) }**")
        if title in ("Args:", "Raises:"):
            entries = re.split(r"\n(?=\S)", lines)
            parts.append("\n".join(entry_line(entry) for entry in entries))
        else:
            parts.append(paragraphs(lines))
    return "\n\n".join(part for part in parts if part.strip())


def entry_line(entry: str) -> str:
    name, colon, text = entry.partition(":")
    return wrapped(f"- `{name.strip()}`: {text}" if colon else f"- {entry}", "    ")


def class_(module: str, name: str) -> str:
    """A class: its text, and a table of its fields and public properties; then its public methods."""
    node = defined(module, name)
    assert isinstance(node, ast.ClassDef)
    rows, methods = [], []
    for field, kind, _, text in fields(node):
        rows.append((code(field), code(kind), text))
    for item in node.body:
        if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
            continue
        if any(isinstance(mark, ast.Name) and mark.id == "property" for mark in item.decorator_list):
            rows.append((code(item.name), code(ast.unparse(item.returns)) if item.returns else "", ast.get_docstring(item) or ""))
        else:
            item.args.args = item.args.args[1:]
            methods.append(f"`{signature(item, item.name)}`: {' '.join((ast.get_docstring(item) or '').split())}")
    parts = [paragraphs(ast.get_docstring(node) or "")]
    parts += [table(("attribute", "type", "what it is"), rows)] if rows else []
    return "\n\n".join([*parts, *map(wrapped, methods)])


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and text of each annotated field; the text is the string below the field."""
    for item, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name) or item.target.id.startswith("_"):
            continue
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = inspect.cleandoc(after.value.value)
        yield item.target.id, ast.unparse(item.annotation), default_of(item.value), text


def default_of(value: ast.expr | None) -> str:
    """`required`, or the default as it is written; empty for an empty table or list."""
    if value is None:
        return "required"
    if isinstance(value, ast.Call):
        return ""
    text = ast.unparse(value)
    return "" if text in ("''", "()", "None", "UNSET") else code(text)


# Cards and records


def cards() -> str:
    parts = [
        wrapped(
            "A card is a TOML file. Every key that is not known, missing or of another type is named when the card is read, all "
            "of them at once. `harness show NAME` prints a card. A key that Python reserves is written without its underscore: "
            "`class_` is `class`."
        )
    ]
    for title, (module, names) in CARDS.items():
        parts.append(f"## {title}")
        nodes = {node.name: node for node in source(module).body if isinstance(node, ast.ClassDef)}
        for name in names or [name for name in nodes if not name.startswith("_")]:
            rows = [
                (code(field.rstrip("_")), code(kind), default, text)
                for field, kind, default, text in fields(nodes[name])
                if field != "path"
            ]
            parts += [f"### {name}", paragraphs(ast.get_docstring(nodes[name]) or "")]
            parts.append(table(("key", "type", "default", "what it says"), rows))
    return page("Cards", *parts)


def record() -> str:
    module = "harness.results.record"
    tree = source(module)
    parts = [
        paragraphs(ast.get_docstring(tree) or ""),
        "The same as a JSON schema: [record.schema.json](../record.schema.json).",
    ]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            rows = [(code(name), code(kind), text) for name, kind, _, text in fields(node)]
            bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id != "Struct"]
            parts += [f"## {node.name}", paragraphs(ast.get_docstring(node) or "")]
            parts += [f"The fields of {' and '.join(bases)}, and:"] if bases else []
            parts.append(table(("field", "type", "what it is"), rows))
    return page("Record", *parts)


# Tables of what there is


def models() -> str:
    rows = []
    for name, card in load_cards("models").items():
        assert isinstance(card, ModelCard)
        needs = f"program, {card.program.install or 'on PATH'}" if card.program else ""
        needs = needs or (f"extra `{card.extra}`" if card.extra else "")
        rows.append(
            (
                f"`{name}`",
                card.title,
                "yes" if card.recipe else "",
                needs,
                "yes" if card.weights else "",
                card.licence,
                card.paper,
            )
        )
    return page(
        "Models",
        wrapped(
            "The cards that are shipped. [Models and fidelity](../models.md) says how their numbers compare with the "
            "authors' own; `harness show NAME` prints a card, `harness list models --all` names those of installed libraries."
        ),
        table(("card", "title", "trained here", "needs", "weight files", "licence", "paper"), rows),
    )


def datasets() -> str:
    rows = []
    for name, card in load_cards("datasets").items():
        assert isinstance(card, DatasetCard)
        better = "higher" if card.higher_is_better else "lower"
        get = f"`harness data get {name}`" if card.downloads else "made here" if name == "demo" else "by hand"
        protocols = ", ".join(f"`{p}`" for p in card.protocols)
        images = f"{card.pairs:,}" if card.pairs else ""
        rows.append(
            (
                f"[`{name}`]({name}.md)",
                images,
                card.references or "",
                f"{card.label}, {better} is better",
                protocols,
                card.licence,
                get,
            )
        )
    return page(
        "Datasets",
        wrapped(
            "No dataset is shipped except the demonstration. Each page says where a dataset comes from, how to get it, and "
            "what `harness data check NAME` prints when it is complete. A protocol says which images train, validate and test."
        ),
        table(("dataset", "distorted images", "references", "label", "protocols", "licence", "how to get it"), rows),
        wrapped("[Several datasets in one table](../suites.md); [a dataset of your own](../guides/own-dataset.md)."),
    )


def pages() -> dict[str, str]:
    """Every generated document, by its path below docs/."""
    return {
        "reference/command-line.md": command_line(),
        "reference/python.md": python(),
        "reference/cards.md": cards(),
        "reference/record.md": record(),
        "reference/models.md": models(),
        "datasets/index.md": datasets(),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
