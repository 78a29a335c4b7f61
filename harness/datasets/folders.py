"""Pairing of distorted images with references in folders, by relative path, stem or a pattern.

Without a pattern a distorted image belongs to the reference of the same relative path, else to the one of the same stem, both
without the extension. With a pattern such as `{codec}/{quality}/{name}.png`, `{name}` is the reference's stem and the other
fields become columns.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from harness.files.table_paths import require_utf8
from harness.imaging import file_headers
from harness.runtime.errors import UsageError, listed

EXTENSIONS = frozenset(
    ".avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .jxl .pbm .pgm .png .pnm .ppm .qoi .tga .tif .tiff .webp".split()
)
"""Extensions of files that count as images; whether they can be decoded is checked later."""
RESERVED = ("name", "reference", "distorted", "reference_id", "bytes", "pixels", "score")
"""Columns of a table of scores that are not allowed as a pattern's field."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_NEAREST = 5


@dataclass(frozen=True)
class ImagePair:
    """One distorted image and its reference."""

    name: str
    """The distorted image's path below its folder, with slashes."""
    distorted: str
    reference: str
    reference_id: str
    """The reference's stem, or its relative path without extension where two references have one stem."""
    columns: Mapping[str, str]
    """The pattern's fields, or further columns of a table of pairs."""
    bytes: int = 0
    """Of the distorted file; 0: not measured."""
    pixels: int = 0
    """Height times width; 0: not measured."""


@dataclass(frozen=True)
class Pairing:
    """The pairs of two folders."""

    pairs: tuple[ImagePair, ...]
    columns: tuple[str, ...]
    """Names of the fields, in the pattern's order."""
    left_out: tuple[str, ...]
    """The unpaired images, a line for each side; only with `inner`."""


@dataclass(frozen=True)
class _File:
    path: str
    relative: str

    @property
    def key(self) -> str:
        """The relative path without extension, in one Unicode form."""
        return unicodedata.normalize("NFC", str(PurePosixPath(self.relative).with_suffix("")))

    @property
    def stem(self) -> str:
        return PurePosixPath(self.key).name


@dataclass
class _Found:
    """The result of pairing files."""

    pairs: list[ImagePair] = field(default_factory=list)
    alone: list[_File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    note: list[str] = field(default_factory=list)
    """Files that do not match the pattern."""


def pair_images(reference: str, distorted: Sequence[str], pattern: str | None = None, *, inner: bool = False) -> Pairing:
    """Pair the distorted images with their references.

    Args:
        reference: a folder, searched with its subfolders, or one image, which is then the reference of all.
        distorted: folders or images.
        pattern: the distorted images' paths below their folder, such as `{codec}/{quality}/{name}.png`. Without an extension
            it matches images of any format. `{name}` may be left out where there is one reference.
        inner: leave out unpaired images, instead of refusing them.

    Returns:
        The pairs, sorted by reference and path.

    Raises:
        UsageError: listing every problem: folders without images, files that do not match the pattern, two distorted files for
            one reference, unpaired images on both sides.
    """
    problems: list[str] = []
    references = _images(reference, "reference", problems)
    single = len(references) == 1 and not os.path.isdir(reference)
    files: list[_File] = []
    for place in distorted:
        files += _images(place, "distorted", problems)
    again = sorted(name for name, count in Counter(f.relative for f in files).items() if count > 1)
    if again:
        problems.append(f"files of the same name in several --distorted folders: {listed(again)}; give the folder above them")
    fields = _fields(pattern, single, problems) if pattern else ()
    if problems:
        raise UsageError("\n".join(problems))
    places = {os.path.realpath(d.path) for d in files}
    references = [f for f in references if os.path.realpath(f.path) not in places] or references
    known = _Known(references)
    found = _by_pattern(known, files, pattern, fields, single) if pattern else _by_name(known, files, single)
    problems, hint = found.problems, "a --pattern such as {codec}/{quality}/{name}"
    if not single or pattern:
        # Distorted images that only their file names distinguish.
        groups: dict[tuple[str, ...], list[str]] = {}
        for pair in found.pairs:
            groups.setdefault((pair.reference_id, *(pair.columns[f] for f in fields)), []).append(pair.distorted)
        one, how = "reference and setting" if fields else "stem", "" if pattern else f"; {hint} distinguishes them"
        problems += [
            f"{key[0]}: {len(paths)} distorted files for one {one}: {listed(paths, 5)}{how}"
            for key, paths in list(groups.items())[:50]
            if len(paths) > 1
        ][:20]
    used = {pair.reference for pair in found.pairs}
    idle = [f.path for f in references if f.path not in used]
    alone = [f.path for f in found.alone]
    sides = [f"{len(alone)} distorted images without a reference: {listed(alone)}"] if alone else []
    sides += [f"{len(idle)} references without a distorted image: {listed(idle)}"] if idle and not single else []
    if sides and not inner:
        problems += [*sides, *found.note, "--inner leaves out unpaired images"]
    if not found.pairs:
        problems = problems or sides
        problems.append(f"no distorted image has a reference{'' if pattern else f'; {hint} says where its name is'}")
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    order = sorted(found.pairs, key=lambda pair: (pair.reference_id, pair.name))
    return Pairing(tuple(order), fields, tuple(sides))


def _images(place: str, side: str, problems: list[str]) -> list[_File]:
    require_utf8(place)
    if os.path.isfile(place):
        return [_File(place, Path(place).name)]
    if not os.path.isdir(place):
        problems.append(f"{place}: no such file or folder ({side})")
        return []
    found, other = [], 0
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                require_utf8(path)
                found.append(_File(path, Path(path).relative_to(place).as_posix()))
            else:
                other += 1
    if not found:
        problems.append(f"{place}: no images in this folder ({side}; {other} other files)")
    return found


class _Known:
    """The references by the names that a distorted image may use for them."""

    def __init__(self, references: Sequence[_File]) -> None:
        stems = Counter(f.stem for f in references)
        self.by_stem: dict[str, list[str]] = {}
        self.by_id: dict[str, _File] = {}
        self.by_key: dict[str, str] = {}
        self.doubles: list[str] = []
        for file in references:
            ident = file.stem if stems[file.stem] == 1 else file.key
            if ident in self.by_id:
                self.doubles.append(f"two references of the same name: {self.by_id[ident].path} and {file.path}")
            self.by_id[ident] = file
            self.by_key[file.key] = ident
            self.by_stem.setdefault(file.stem, []).append(ident)


def _by_name(known: _Known, files: Sequence[_File], single: bool) -> _Found:
    """Each file with the reference of the same relative path, else the only one of the same stem."""
    found = _Found(problems=known.doubles)
    several: list[str] = []
    for file in files:
        same = known.by_stem.get(file.stem, [])
        key = next(iter(known.by_id)) if single else known.by_key.get(file.key) or (same[0] if len(same) == 1 else None)
        if key is not None:
            found.pairs.append(ImagePair(file.relative, file.path, known.by_id[key].path, key, {}))
            continue
        found.alone.append(file)
        if len(same) > 1:
            several.append(f"{file.path}: several references have its stem: {listed(sorted(same))}")
    found.problems += several[:20]
    return found


def _fields(pattern: str, single: bool, problems: list[str]) -> tuple[str, ...]:
    """The names of the pattern's fields without `name`; problems of the pattern are appended to `problems`."""
    names = _FIELD.findall(pattern)
    bare = _FIELD.sub("", pattern)
    if "{" in bare or "}" in bare:
        problems.append(f"--pattern {pattern}: a brace that is not closed")
    bad = [name for name in names if not re.fullmatch(r"[A-Za-z_]\w*", name)]
    bad += [name for name in names if name in RESERVED and name != "name"]
    if bad:
        shown = f"{listed(sorted(set(bad)))}; fields are words such as {{codec}}"
        problems.append(f"--pattern {pattern}: not names of columns: {shown}")
    if re.search(r"\}\{", pattern):
        problems.append(f"--pattern {pattern}: two fields without text between them are ambiguous")
    if "name" not in names and not single:
        example = "{codec}/{quality}/{name}.png"
        problems.append(f"--pattern {pattern}: it needs {{name}}, the reference's stem, such as {example}")
    if pattern.startswith("/") or "\\" in pattern:
        problems.append(f"--pattern {pattern}: paths below the folder, with slashes")
    return tuple(dict.fromkeys(name.lower() for name in names if name != "name"))


@functools.lru_cache(maxsize=4096)
def _regex(pattern: str, name: str | None, greedy: bool) -> re.Pattern[str]:
    """`pattern` as a regular expression, with `name` for its field; a repeated field must have the same value."""
    parts, seen = [], set()
    for number, piece in enumerate(_FIELD.split(unicodedata.normalize("NFC", pattern))):
        if number % 2 == 0:
            parts.append(re.escape(piece))
        elif piece == "name" and name is not None:
            parts.append(re.escape(name))
        elif piece in seen:
            parts.append(f"(?P={piece})")
        else:
            seen.add(piece)
            characters = "." if piece == "name" else "[^/]"
            parts.append(f"(?P<{piece}>{characters}+{'' if greedy else '?'})")
    return re.compile("".join(parts))


def _by_pattern(known: _Known, files: Sequence[_File], pattern: str, fields: Sequence[str], single: bool) -> _Found:
    with_extension = PurePosixPath(pattern).suffix.lower() in EXTENSIONS or (pattern.endswith("}") and ".{" in pattern)
    found = _Found(problems=known.doubles)
    misses: list[tuple[_File, str]] = []
    for file in files:
        text = unicodedata.normalize("NFC", file.relative) if with_extension else file.key
        if _regex(pattern, None, True).fullmatch(text) is None:
            misses.append((file, text))
            continue
        if single:
            names = [next(iter(known.by_id))]
        elif len(known.by_id) < len(text) ** 2 // 2:
            names = [name for name in known.by_id if name in text]
        else:
            parts = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
            names = sorted(parts & known.by_id.keys())
        readings: dict[str, dict[str, str]] = {}
        for name in names:
            matches = [_regex(pattern, None if single else name, greedy).fullmatch(text) for greedy in (True, False)]
            for match in filter(None, matches):
                values = {k.lower(): v for k, v in match.groupdict().items() if k != "name"}
                readings[repr((name, values))] = {**values, "name": name}
        if len(readings) > 1:
            shown = " or ".join(", ".join(f"{k} = {v}" for k, v in values.items()) for values in readings.values())
            found.problems.append(f"{file.path}: the pattern matches it in two ways: {shown}")
        elif readings:
            values = next(iter(readings.values()))
            name, path = values["name"], known.by_id[values["name"]].path
            found.pairs.append(ImagePair(file.relative, file.path, path, name, {f: values[f] for f in fields}))
        else:
            found.alone.append(file)
    if misses:
        nearest = sorted(misses, key=lambda miss: -_fits(pattern, miss[1])[0])[:_NEAREST]
        lines = [f"  {file.path}: {_fits(pattern, text)[1]}" for file, text in nearest]
        what = "no file" if len(misses) == len(files) else f"not {len(misses)} of {len(files)} files"
        text = "\n".join([f"--pattern {pattern} matches {what}; the closest of the others:", *lines])
        if len(misses) == len(files):
            found.problems.append(text)
        else:
            found.alone += [file for file, _ in misses]
            found.note = [text]
    return found


def _fits(pattern: str, text: str) -> tuple[int, str]:
    """How many characters of `text` the beginning of the pattern matches, and the difference that follows."""
    pieces = _FIELD.split(pattern)
    for count in range(len(pieces), 0, -1):
        start = "".join(p if i % 2 == 0 else f"{{{p}}}" for i, p in enumerate(pieces[:count]))
        # A field at the end matches everything up to the next slash; literal text must be present.
        match = _regex(start, None, True).match(text) if start else None
        if match:
            rest = "".join(p if i % 2 == 0 else f"{{{p}}}" for i, p in enumerate(pieces[count:], count))
            left = text[match.end() :]
            stands = repr(left) if left else "nothing"
            return (
                match.end(),
                f"matches {start!r} up to {text[: match.end()]!r}, then has {stands} in place of {rest or 'the end'!r}",
            )
    return 0, f"does not begin like {pattern!r}"


def measure_files(pairs: Iterable[ImagePair]) -> list[ImagePair]:
    """The pairs with their file sizes and numbers of pixels, from the files' headers.

    Raises UsageError listing every file that cannot be read and every pair whose images differ in size.
    """
    pairs = list(pairs)
    paths = list(dict.fromkeys(path for pair in pairs for path in (pair.reference, pair.distorted)))

    def size(path: str) -> tuple[int, int] | str:
        try:
            header = file_headers.look(path)
        except UsageError as error:
            return f"{path}: {error}"
        return header.height, header.width

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes = dict(zip(paths, pool.map(size, paths), strict=True))
    problems = [found for found in sizes.values() if isinstance(found, str)]
    mixed, measured = [], []
    for pair in pairs:
        reference, distorted = sizes[pair.reference], sizes[pair.distorted]
        if isinstance(reference, str) or isinstance(distorted, str):
            continue
        if reference != distorted:
            mixed.append(f"{pair.name} ({distorted[1]}x{distorted[0]}, its reference {reference[1]}x{reference[0]})")
        measured.append(replace(pair, bytes=os.path.getsize(pair.distorted), pixels=reference[0] * reference[1]))
    problems = [f"{len(problems)} images cannot be read:", *problems[:20]] if len(problems) > 1 else problems
    if mixed:
        problems.append(f"{len(mixed)} pairs whose images differ in size; both must have the same size: {listed(mixed)}")
    if problems:
        raise UsageError("\n".join(problems))
    return measured
