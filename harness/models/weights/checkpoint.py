"""Reading and writing weight files (safetensors, torch) as plain dictionaries of tensors, without executing code.

Two formats are read: safetensors, and what `torch.save` writes (its zip format and the older one), the latter with
`weights_only=True` after a check that executes nothing. `names` and `read_metadata` need no torch, so that a request can be
refused before torch is imported. Whatever is wrong with a file is one UsageError that names the file.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickletools
import re
import stat
import struct
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from harness.files import atomic
from harness.runtime.errors import UsageError, listed

if TYPE_CHECKING:
    import torch

# Real headers are below 1 MB; the limits prevent a malicious one from using much memory or time.
_HEADER_LIMIT = 16 << 20
_OPCODE_LIMIT = 1_000_000
_TENSOR_LIMIT = 100_000
_DEPTH_LIMIT = 8

# Other entries of training checkpoints, at the top level.
_NOT_WEIGHTS = ("optimizer", "scheduler")

_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, the storages' keys; the storages' bytes follow
_TEXT_OPCODES = frozenset("UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING".split())

_SAFETENSORS_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_DTYPES = {short: name for name, short in _SAFETENSORS_DTYPES.items()}

Format = Literal["safetensors", "zip", "legacy"]


def names(path: str | Path) -> tuple[str, ...]:
    """The names of the file's entries, without reading a tensor or importing torch.

    For a safetensors file exactly its keys; for a torch file every text in it: the keys of all its dictionaries, not
    joined by dots, among other texts. Raises UsageError for a damaged or unusual file and for one without weights.
    """
    path = Path(path)
    kind, size = _format(path)
    if kind == "safetensors":
        return tuple(_header(path, size).entries)
    if kind == "zip":
        return tuple(_texts(_zip_table(path, size), path, 1))
    with open(path, "rb") as stream:
        return tuple(_texts(stream.read(_HEADER_LIMIT), path, _LEGACY_PICKLES))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for torch files."""
    path = Path(path)
    kind, size = _format(path)
    return _header(path, size).metadata if kind == "safetensors" else {}


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The file's tensors by name, on the CPU, in the file's order.

    Nested dictionaries are flattened with dots; entries that are not tensors are dropped, and so is everything under a
    top-level key that begins with `optimizer` or `scheduler`. Raises UsageError for a file that is missing, empty,
    truncated, malformed, with other objects than tensors, or with NaN or infinite weights (they are named).
    """
    path = Path(path)
    names(path)
    kind, size = _format(path)
    state = _read_safetensors(path, size) if kind == "safetensors" else _flatten(_read_torch(path), path)
    if not state:
        raise UsageError(f"{path}: holds no tensors: not a state dict")
    _check_tensors(state, path, size)
    return state


def save_state(path: str | Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, atomically; the same tensors and metadata give the same bytes.

    Tensors may share memory, be strided or be on a device: each is written separately. `metadata` is text, kept in the
    file's header. Raises ValueError for a kind of tensor that safetensors or `read_state` do not support.
    """
    import torch

    # The library writes its metadata in random order, needs copies of tensors that share memory, and builds the file in memory.
    size_of = {name: tensor.numel() * tensor.element_size() for name, tensor in state.items()}
    texts = dict(sorted((metadata or {}).items()))
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise ValueError("a safetensors file's metadata are texts")
    header: dict[str, _Entry | dict[str, str]] = {"__metadata__": texts}
    # With the widest elements first, every tensor is aligned.
    order = sorted(state, key=lambda name: (-state[name].element_size(), name))
    place = 0
    for name in order:
        dtype = _SAFETENSORS_DTYPES.get(_dtype_name(state[name]))
        if dtype is None or state[name].layout is not torch.strided or name == "__metadata__":
            raise ValueError(f"{name}: {state[name].dtype}, {state[name].layout} cannot be written")
        header[name] = {"dtype": dtype, "shape": list(state[name].shape), "data_offsets": [place, place + size_of[name]]}
        place += size_of[name]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with atomic.atomic(path) as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            stream.write(_bytes(state[name]))


def _bytes(tensor: torch.Tensor) -> Any:
    """The tensor's bytes in order: its own memory where it is contiguous and on the CPU, else a copy's."""
    import torch

    if sys.byteorder != "little":
        raise ValueError("safetensors files are little-endian; this machine is not")
    plain = tensor.detach().resolve_neg().to("cpu").contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _format(path: Path) -> tuple[Format, int]:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path}: is a folder, not a weight file")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: is not a regular file")
        with open(path, "rb") as stream:
            start = stream.read(64)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such weight file") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not start:
        raise UsageError(f"{path}: is empty")
    if start.startswith(b"PK\x03\x04"):
        return "zip", status.st_size
    if start[:1] == b"\x80" and start[2:].startswith(_LEGACY_MAGIC):
        return "legacy", status.st_size
    if start[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        return "safetensors", status.st_size
    if start[:1] == b"\x80":
        raise UsageError(_refused(path, "it is a bare pickle"))
    if start.lstrip()[:1] == b"<":
        raise UsageError(f"{path}: is a web page, not weights; the download went wrong")
    if start.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` where it came from")
    raise UsageError(f"{path}: is neither a safetensors nor a torch file (or its beginning is damaged)")


def _refused(path: Path, why: str) -> str:
    return (
        f"{path}: refused: {why}, so reading it could run code. If you trust it, convert it once: "
        "import torch; x = torch.load(FILE, weights_only=False); "
        "torch.save(getattr(x, 'state_dict', lambda: x)(), NEW), and keep only tensors in it"
    )


def _damaged(path: Path, why: object) -> UsageError:
    return UsageError(f"{path}: damaged or cut short ({' '.join(str(why).split())[:300]}); fetch or copy it again")


class _Entry(TypedDict):
    dtype: str
    shape: list[int]
    data_offsets: list[int]


class _Header(NamedTuple):
    """The header of a safetensors file; its tensors' bytes begin at `start`."""

    entries: dict[str, _Entry]
    metadata: dict[str, str]
    start: int


def _header(path: Path, size: int) -> _Header:
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise _damaged(path, f"a safetensors file whose header needs {length} bytes, of {max(size - 8, 0)}")
        if length > _HEADER_LIMIT:
            raise UsageError(f"{path}: a safetensors header of {length} bytes is refused (at most {_HEADER_LIMIT})")
        text = stream.read(length)
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"the safetensors header is not JSON: {error}") from None
    try:
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (AttributeError, TypeError, KeyError, IndexError, ValueError, OverflowError):
        raise _damaged(path, "the safetensors header does not describe tensors") from None
    if end != size - 8 - length:
        raise _damaged(path, f"its tensors need {end} bytes, it has {size - 8 - length}")
    return _Header(header, metadata, 8 + length)


def _zip_table(path: Path, size: int) -> bytes:
    """The pickle in which a file of `torch.save` keeps its table of contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.filename.endswith("/constants.pkl") for member in members):
                raise UsageError(_refused(path, "it is a TorchScript program"))
            # torch.save stores without compression: a file that unpacks to more bytes was not written by it.
            if sum(member.file_size for member in members) > size:
                raise UsageError(f"{path}: unpacks to more than its own size: not written by torch.save, refused")
            pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise UsageError(f"{path}: a zip archive, but not one written by torch.save")
            if pickles[0].file_size > _HEADER_LIMIT:
                raise UsageError(
                    f"{path}: a table of contents of {pickles[0].file_size} bytes is refused (at most {_HEADER_LIMIT})"
                )
            return archive.read(pickles[0])
    except UsageError:
        raise
    except Exception as error:  # zipfile may raise any error for a malformed archive
        raise _damaged(path, error) from None


def _texts(content: bytes, path: Path, pickles: int) -> list[str]:
    """Every text in the first `pickles` pickles, which are disassembled and never executed."""
    texts: list[str] = []
    count, stream = 0, io.BytesIO(content)
    try:
        for _ in range(pickles):
            for opcode, argument, _ in pickletools.genops(stream):
                count += 1
                if count > _OPCODE_LIMIT:
                    raise UsageError(f"{path}: its table of contents has over {_OPCODE_LIMIT} steps: refused")
                if opcode.name in _TEXT_OPCODES:
                    texts.append(str(argument))
    except UsageError:
        raise
    except Exception as error:  # pickletools may raise any error for malformed bytes
        raise _damaged(path, error) from None
    return texts


def _read_safetensors(path: Path, size: int) -> dict[str, torch.Tensor]:
    import safetensors
    import torch

    header = _header(path, size)
    state: dict[str, torch.Tensor] = {}
    try:
        # The library checks the header. The bytes are read here: its tensors are views of the mapped file, which doubles the
        # memory while they are copied, and crashes the process when the file is truncated meanwhile.
        with safetensors.safe_open(path, framework="pt", device="cpu"), open(path, "rb") as stream:
            for name, entry in header.entries.items():
                if name.startswith(_NOT_WEIGHTS):
                    continue
                if entry["dtype"] not in _DTYPES:
                    raise UsageError(f"{path}: not plain weights: {name} ({entry['dtype']}; convert to float32)")
                begin, end = entry["data_offsets"]
                dtype = getattr(torch, _DTYPES[entry["dtype"]])
                if math.prod(entry["shape"]) * dtype.itemsize != end - begin:
                    raise ValueError(f"{name}: {end - begin} bytes for {entry['shape']}")
                state[name] = torch.empty(entry["shape"], dtype=dtype)
                stream.seek(header.start + begin)
                if stream.readinto(_bytes(state[name])) != end - begin:
                    raise ValueError(f"{name}: its bytes are not complete")
    except UsageError:
        raise
    except Exception as error:  # SafetensorError, and any error of the steps above for a malformed header
        raise _damaged(path, error) from None
    return state


def _read_torch(path: Path) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load may raise any error for malformed bytes
        text = str(error)
        if "Unsupported" in text or "Trying to" in text or "Can only" in text:
            what = re.search(r"GLOBAL ([\w.]+)", text)
            raise UsageError(_refused(path, f"it holds more than tensors{f' ({what[1]})' if what else ''}")) from None
        raise _damaged(path, text or type(error).__name__) from None


class _Dropped:
    """Replaces numpy numbers in a checkpoint, which are dropped anyway, so that none is constructed."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Some training loops store their loss as a numpy number, as in AHIQ's released checkpoint.
_STAND_INS: list[Any] = [
    (_Dropped, name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]


def _flatten(document: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(document, torch.Tensor) or not isinstance(document, Mapping):
        raise UsageError(f"{path}: holds a single {type(document).__name__}, not a dictionary of tensors")
    state: dict[str, torch.Tensor] = {}
    seen = 0

    def visit(prefix: str, table: Mapping[Any, Any], depth: int) -> None:
        nonlocal seen
        if depth > _DEPTH_LIMIT:
            raise UsageError(f"{path}: dictionaries nested more than {_DEPTH_LIMIT} deep: not a state dict")
        for key, value in table.items():
            seen += 1
            if seen > _TENSOR_LIMIT:
                raise UsageError(f"{path}: more than {_TENSOR_LIMIT} entries: not a state dict")
            name = f"{prefix}{key}"
            if depth == 1 and name.startswith(_NOT_WEIGHTS):
                continue
            if isinstance(value, torch.Tensor):
                if name in state:
                    raise UsageError(f"{path}: two entries have the name {name!r}")
                state[name] = value.detach()
            elif isinstance(value, Mapping):
                visit(f"{name}.", value, depth + 1)

    visit("", document, 1)
    return state


def _check_tensors(state: Mapping[str, torch.Tensor], path: Path, size: int) -> None:
    """Raise UsageError for tensors that are not plain numbers, that claim more memory than the file has, or are not finite."""
    oddities = {name: _oddity(name, tensor) for name, tensor in state.items()}
    odd = [f"{name} ({why})" for name, why in oddities.items() if why]
    if odd:
        raise UsageError(f"{path}: not plain weights: {listed(odd, 5)}")
    # Reading values allocates memory, so a tensor that claims more than the file could hold is refused first.
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    stretched = [n for n, t in state.items() if t.numel() * t.element_size() > t.untyped_storage().nbytes()]
    if sum(storages.values()) > size or stretched:
        raise UsageError(f"{path}: claims more numbers than the file holds{': ' if stretched else ''}{listed(stretched, 5)}")
    real = {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel()}
    bad = [name for name, tensor in real.items() if not all(map(math.isfinite, tensor.aminmax()))]
    if bad:
        raise UsageError(f"{path}: NaN or infinite weights in {listed(bad, 5)}: the training that wrote them failed")


def _oddity(name: str, tensor: torch.Tensor) -> str:
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided or tensor.is_quantized:
        return "sparse, quantized or another special kind"
    if tensor.device.type != "cpu":
        return "without data"
    if _dtype_name(tensor) not in _SAFETENSORS_DTYPES:
        return f"{_dtype_name(tensor)}; convert to float32"
    if name.endswith((".weight", ".bias")) and not tensor.is_floating_point():
        return f"{_dtype_name(tensor)}, not real numbers"
    return ""
