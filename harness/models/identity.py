"""The identity of a model, for the key of its runs: its class's code, its external program, and its weights' tensors.

A class of the harness is identified by its name and its `version`, which is raised when its scores change: moving the module
changes no key. A class of an installed distribution is identified by `module:Class` and the distribution's version. Any other
class (a file next to a card, an editable install, a script) is identified by `module:Class` and its source: the tokens, without
comments, of its file and of every file of the same folder that it imports.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import io
import json
import sys
import token
import tokenize
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

from harness.cards.plugins import current_path, model_class, resolve
from harness.cards.program import Program
from harness.cards.schema import ModelCard
from harness.cards.tables import parse_table
from harness.files.hash_index import derived, hash_file
from harness.models.program import ProgramIdentity, program_identity
from harness.models.weights import ResolvedWeights
from harness.models.weights.checkpoint import read_state
from harness.runtime.errors import UsageError

_SKIPPED = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, token.NEWLINE, token.ENDMARKER})
_TENSORS = "tensors 1"


CodeIdentity = TypedDict(
    "CodeIdentity",
    {
        "class": str,
        "version": int,
        "library": str,
        "distribution": str,
        "source": str,
        "program": ProgramIdentity,
        "members": list["CodeIdentity"],
        "loss": "CodeIdentity",
    },
    total=False,
)
"""A class with its version (and its library's), its distribution, or a sha256 over its source; and its parts' identities."""


def code_of(card: ModelCard, *, trained: bool = False) -> CodeIdentity:
    """The identity of the code that a card names: its class, the classes of an ensemble's members, and, for training, the
    card's own loss.

    Raises UsageError for a class that cannot be imported or whose source cannot be read, and for a program that is absent.
    """
    if not card.class_:
        return {}
    found = _named(card.class_, card.program, card.name, card.path)
    members = [m for m in card.model.get("members") or () if isinstance(m, Mapping) and m.get("class")]
    if members:
        found["members"] = []
    for member in members:
        table = member.get("program")
        program = parse_table(Program, table, card.path, "program.") if isinstance(table, Mapping) else None
        found["members"].append(_named(str(member["class"]), program, str(member.get("name")), card.path))
    if trained and card.recipe is not None and ":" in card.recipe.loss:
        found["loss"] = class_identity(resolve(card.recipe.loss, card.path), card.recipe.loss)
    return found


def _named(reference: str, program: Program | None, name: str, card_path: str) -> CodeIdentity:
    """The identity of a card's class and program; a class of the harness is parsed, not imported, to avoid importing torch."""
    facts = _class_facts(*current_path(reference).partition(":")[::2])
    if facts is None:
        found = class_identity(model_class(reference, card_path), reference)
    else:
        found = _own_identity(str(facts["name"]), int(facts.get("version", 1)), facts.get("library"))
    if program is not None:
        found["program"] = program_identity(program, name, card_path)
    return found


def _own_identity(name: str, version: int, library: object) -> CodeIdentity:
    """The identity of a class of the harness; an adapter's has the version of its library too."""
    own: CodeIdentity = {"class": name, "version": version}
    if isinstance(library, str):
        own["library"] = f"{library} {metadata.version(library)}"
    return own


@functools.cache
def _class_facts(module: str, name: str) -> dict[str, str | int] | None:
    """Name, `version` and `library` of a class of the harness, read from its source; None for any other."""
    package, *rest = module.split(".")
    if package != "harness":
        return None
    base = Path(__file__).parents[1].joinpath(*rest)
    file = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)
    if file is None:
        return None
    tree = ast.parse(file.read_bytes())
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        return _class_facts(*imported[name]) if name in imported else None
    facts: dict[str, str | int] = {}
    for base_class in reversed(found.bases):
        inherited = base_class.id if isinstance(base_class, ast.Name) else ""
        facts |= _class_facts(*imported.get(inherited, (module, inherited))) or {}
    for node in found.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Constant):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            value = node.value.value
            if isinstance(target, ast.Name) and target.id in ("version", "library") and isinstance(value, str | int):
                facts[target.id] = value
    return facts | {"name": name}


def class_identity(made: Any, name: str) -> CodeIdentity:
    """The identity of a class (or function) that is called `name` (`package.module:Class`)."""
    module = str(getattr(made, "__module__", ""))
    if module.partition(".")[0] == "harness":
        return _own_identity(getattr(made, "__name__", name), int(getattr(made, "version", 1)), getattr(made, "library", None))
    try:
        path = Path(inspect.getfile(made))
    except (TypeError, OSError):
        path = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    if not path.is_file():
        raise UsageError(f"{name}: its source file was not found, so its code has no identity for a run's key")
    if (installed := _distribution_of(path, module)) is not None:
        return {"class": f"{module}:{made.__qualname__}", "distribution": installed}
    called = name if ":" in name else f"{module}:{made.__qualname__}"
    return {"class": called, "source": source_hash(path)}


def _distribution_of(path: Path, module: str) -> str | None:
    """`name version` of the installed distribution that the file belongs to; None for editable installs and loose files."""
    top = module.partition(".")[0]
    for name in metadata.packages_distributions().get(top, ()):
        distribution = metadata.distribution(name)
        direct = distribution.read_text("direct_url.json")
        if direct and json.loads(direct).get("dir_info", {}).get("editable"):
            continue
        files = distribution.files or ()
        if any(Path(str(distribution.locate_file(file))) == path for file in files):
            return f"{name} {distribution.version}"
    return None


def source_hash(path: Path) -> str:
    """sha256 over the tokens of a file and of its imports from the same folder; comments and layout do not count."""
    folder, found, waiting = path.parent, {path}, [path]
    while waiting:
        for name in _imports(waiting.pop()):
            parts = name.split(".")
            for last in range(len(parts), 0, -1):
                base = folder.joinpath(*parts[:last])
                for candidate in (base.with_suffix(".py"), base / "__init__.py"):
                    if candidate.is_file() and candidate not in found:
                        found.add(candidate)
                        waiting.append(candidate)
    digest = hashlib.sha256()
    for place, file in sorted((file.relative_to(folder).as_posix(), file) for file in found):
        digest.update(place.encode() + b"\0" + _tokens(file))
    return digest.hexdigest()


def _imports(path: Path) -> Iterator[str]:
    """Names of modules that a file imports, relative to its folder."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: not readable Python: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            yield from [node.module] if node.module else []
            yield from (base + alias.name for alias in node.names)


def _tokens(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".py":
        return raw
    try:
        found = tokenize.tokenize(io.BytesIO(raw).readline)
        return b"\0".join(f"{t.type}:{t.string}".encode() for t in found if t.type not in _SKIPPED)
    except (tokenize.TokenError, SyntaxError) as error:
        raise UsageError(f"{path}: not readable Python: {error}") from None


def object_identity(model: Any) -> dict[str, object] | None:
    """The identity of a model that is a Python object: the result of its `identity()`, or, for a torch module or a dataclass,
    its class's code and its state. None where its state cannot be identified, so that no run is reused. Raises UsageError for
    an `identity()` that does not return text."""
    kind = type(model)
    if callable(own := getattr(model, "identity", None)):
        said = own()
        if not isinstance(said, str) or not said:
            raise UsageError(f"{kind.__name__}.identity() returned {said!r}: should be a text that is not empty")
        return {"object": kind.__qualname__, "identity": said}
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(model, torch.nn.Module):
            usual = vars(torch.nn.Module())
            named = list(model.named_modules())
            plain = {f"{name}.{key}": value for name, m in named for key, value in vars(m).items() if key not in usual}
            kinds = sorted(f"{name}:{type(module).__qualname__}" for name, module in named)
            state = {"state": state_hash(model.state_dict()), "plain": _plain(plain), "modules": kinds}
        elif dataclasses.is_dataclass(model) and not isinstance(model, type):
            state = {"fields": _plain(dataclasses.asdict(model))}
        else:
            return None
        return {**class_identity(kind, f"{kind.__module__}:{kind.__qualname__}"), **state}
    except (TypeError, ValueError, UsageError):
        return None


def _plain(values: Any) -> Any:
    """Values that JSON can hold; raises TypeError or ValueError for others."""
    return json.loads(json.dumps(values, sort_keys=True, allow_nan=False))


def weights_of(found: ResolvedWeights) -> dict[str, str]:
    """The hash of each part's tensors (name, type, shape, values), independent of the file format.

    A file of scores (an ensemble's member without a model) is identified by its bytes.
    """
    files: dict[str, Path] = {**found.parts, **({"file": found.file} if found.file is not None else {})}
    hashes = {part: _tensors_hash(path) for part, path in files.items()}
    return hashes | {part: digest for part, digest in found.sha256.items() if part not in files}


def _tensors_hash(path: Path) -> str:
    sha256 = hash_file(path)
    return sha256 if path.suffix.lower() == ".csv" else derived(sha256, _TENSORS, lambda: state_hash(read_state(path)))


def state_hash(state: Mapping[str, Any]) -> str:
    """sha256 over the tensors of a state dict: names in alphabetical order, each with its type, shape and bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu").contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
