"""`harness data`: check, download, unpack and show the files of datasets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import click

from harness.cli import options as o
from harness.cli.options import Argument, Option, echo, options
from harness.files.regular import reading
from harness.runtime.errors import UsageError
from harness.runtime.text import visible

PasswordFile = Annotated[str | None, Option(metavar="FILE", help="Read the password of a zip from a file; default: ask for it.")]


@dataclass(frozen=True)
class CheckOptions(o.Output):
    """Options of `harness data check`."""

    name: o.DatasetName
    full: Annotated[bool, Option(help="Decode every image, and write a manifest.")]
    allow_incomplete: Annotated[bool, Option(help="Report missing pairs as a warning, not as an error.")]
    strict: Annotated[bool, Option(help="Exit with status 1 for warnings too.")]
    root: o.Root
    cards: o.Cards
    workers: o.Threads


@dataclass(frozen=True)
class GetOptions:
    """Options of `harness data get`."""

    name: o.DatasetName
    password_file: PasswordFile
    root: o.Root
    cards: o.Cards
    offline: o.Offline
    quiet: o.Quiet


@dataclass(frozen=True)
class UnpackOptions:
    """Options of `harness data unpack`."""

    name: o.DatasetName
    archives: Annotated[tuple[str, ...], Argument(metavar="[ARCHIVE]...")]
    password_file: PasswordFile
    root: o.Root
    cards: o.Cards
    quiet: o.Quiet


@dataclass(frozen=True)
class ShowOptions:
    """Options of `harness data show`."""

    name: o.DatasetName
    reference: Annotated[str | None, Option(metavar="ID", help="Show this reference; default: the first.")]
    out: Annotated[str | None, Option(metavar="FILE.png", help="Write the sheet to this file; default: NAME.png.")]
    root: o.Root
    cards: o.Cards
    quiet: o.Quiet


@click.group("data")
def data_() -> None:
    """Check, download, unpack and show the files of datasets."""


@data_.command("check")
@options(CheckOptions)
def data_check(chosen: CheckOptions) -> None:
    """Check the files of dataset NAME: what is expected, present and missing, and how to fix it."""
    from harness import datasets
    from harness.datasets.check import check

    card = datasets.dataset_card(chosen.name, chosen.cards)
    searched = chosen.root or not datasets.is_table(chosen.name)
    place = datasets.data_root(card.folder or card.name, chosen.root) if searched else None
    workers = chosen.workers or None
    report = check(card, place, full=chosen.full, allow_incomplete=chosen.allow_incomplete, workers=workers)
    echo(o.json_text(report.json()) if chosen.as_json else report.text())
    if not report.ok or (chosen.strict and any(p.severity != "information" for p in report.problems)):
        raise SystemExit(1)


@data_.command("get")
@options(GetOptions)
def data_get(chosen: GetOptions) -> None:
    """Download and unpack dataset NAME if it has a public address, else print how to obtain it (status 1)."""
    from harness.datasets import dataset_card, download
    from harness.runtime.progress import counted

    card, password = dataset_card(chosen.name, chosen.cards), _password(chosen.password_file)
    with counted(f"downloading {chosen.name}", unit="bytes") as step:
        lines = download.get(
            card, chosen.root, progress=lambda file, done, total: step(done, total), offline=chosen.offline, password=password
        )
    echo("\n".join(lines))


@data_.command("unpack")
@options(UnpackOptions)
def data_unpack(chosen: UnpackOptions) -> None:
    """Unpack ARCHIVEs (zip, tar, rar) into the folder of dataset NAME, by default all archives in it; archives are kept."""
    from harness.datasets import dataset_card, download
    from harness.runtime.progress import counted

    card, password = dataset_card(chosen.name, chosen.cards), _password(chosen.password_file)
    with counted(f"unpacking {chosen.name}", unit="bytes") as step:
        lines = download.unpack_archives(
            card, chosen.root, chosen.archives, progress=lambda file, done, total: step(done, total), password=password
        )
    echo("\n".join(lines))


def _password(file: str | None) -> Callable[[str, int], bytes | None]:
    """The password from a file, else from a prompt on the terminal; None without a terminal."""
    if file is not None:
        with reading(file), open(file, "rb") as stream:
            word = stream.read(1 << 16).rstrip(b"\r\n")
        if not word:
            raise UsageError(f"{file}: the file of the password is empty")
        return lambda archive, wrong: None if wrong else word

    def ask(archive: str, wrong: int) -> bytes | None:
        if not sys.stdin.isatty():
            return None
        again = "wrong; again: " if wrong else ""
        return str(click.prompt(f"{again}password of {visible(archive)}", hide_input=True, err=True)).encode()

    return ask


@data_.command("show")
@options(ShowOptions)
def data_show(chosen: ShowOptions) -> None:
    """Write a contact sheet of one reference of NAME with its distorted images and their labels."""
    from harness import datasets
    from harness.datasets.contact_sheet import contact_sheet

    data = datasets.load_dataset(chosen.name, chosen.root, cards=chosen.cards)
    echo(str(contact_sheet(data, chosen.out or f"{data.name}.png", chosen.reference)))
