"""`harness data`: check, get and look at the files of datasets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

import click

from harness.cli.options import echo, options
from harness.files.regular import require_regular
from harness.runtime.errors import UsageError
from harness.runtime.text import visible


@click.group("data")
def data_() -> None:
    """Files of datasets: check, get, unpack and look at them."""


@data_.command("check")
@click.argument("name")
@click.option("--full", is_flag=True, help="Decode every picture, and leave a manifest.")
@click.option("--allow-incomplete", is_flag=True, help="Missing pairs are a warning, not a fault.")
@click.option("--strict", is_flag=True, help="Warnings count as faults.")
@options("root", "cards", "threads", "quiet", "json", "debug")
def data_check(
    name: str,
    full: bool,
    allow_incomplete: bool,
    strict: bool,
    root: str | None,
    cards: Sequence[str],
    workers: int,
    as_json: bool,
) -> None:
    """What was expected of dataset NAME, what is there, what is missing, and how to mend it."""
    from harness import datasets
    from harness.datasets.check import check

    card = datasets.dataset_card(name, cards)
    place = datasets.data_root(card.folder or card.name, root) if root or not datasets.is_table(name) else None
    report = check(card, place, full=full, allow_incomplete=allow_incomplete, workers=workers or None)
    echo(json.dumps(report.json(), indent=2, ensure_ascii=False) if as_json else report.text())
    if not report.ok or (strict and any(p.severity != "information" for p in report.problems)):
        raise SystemExit(1)


@data_.command("get")
@click.argument("name")
@click.option("--password-file", metavar="FILE", help="A file with the password of an encrypted zip; else it is asked for.")
@options("root", "cards", "offline", "quiet", "debug")
def data_get(name: str, password_file: str | None, root: str | None, cards: Sequence[str], offline: bool) -> None:
    """Download and unpack dataset NAME where it has a public address, else print how to obtain it (status 1)."""
    from harness.datasets import dataset_card, download
    from harness.runtime.progress import counted

    with counted(f"downloading {name}", unit="bytes") as step:
        lines = download.get(
            dataset_card(name, cards),
            root,
            progress=lambda file, done, total: step(done, total),
            offline=offline,
            password=_password(password_file),
        )
    echo("\n".join(lines))


@data_.command("unpack")
@click.argument("name")
@click.argument("archives", nargs=-1, metavar="[ARCHIVE]...")
@click.option("--password-file", metavar="FILE", help="A file with the password of an encrypted zip; else it is asked for.")
@options("root", "cards", "quiet", "debug")
def data_unpack(name: str, archives: tuple[str, ...], password_file: str | None, root: str | None, cards: Sequence[str]) -> None:
    """Unpack ARCHIVEs (zip, tar, rar), else all that lie in the folder of dataset NAME, into that folder; they are kept."""
    from harness.datasets import dataset_card, download
    from harness.runtime.progress import counted

    with counted(f"unpacking {name}", unit="bytes") as step:
        lines = download.unpack_archives(
            dataset_card(name, cards),
            root,
            archives,
            progress=lambda file, done, total: step(done, total),
            password=_password(password_file),
        )
    echo("\n".join(lines))


def _password(file: str | None) -> Callable[[str, int], bytes | None]:
    """The password from a file, else asked for on the terminal; none where there is no terminal."""
    if file is not None:
        try:
            require_regular(file)
            with open(file, "rb") as stream:
                word = stream.read(1 << 16).rstrip(b"\r\n")
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
        if not word:
            raise UsageError(f"{file}: holds no password")
        return lambda archive, wrong: None if wrong else word

    def ask(archive: str, wrong: int) -> bytes | None:
        if not sys.stdin.isatty():
            return None
        again = "wrong; again: " if wrong else ""
        return str(click.prompt(f"{again}password of {visible(archive)}", hide_input=True, err=True)).encode()

    return ask


@data_.command("show")
@click.argument("name")
@click.option("--reference", metavar="ID", help="Which reference; default: the first.")
@click.option("--out", metavar="FILE.png", help="Where to write the sheet; default: NAME.png.")
@options("root", "cards", "quiet", "debug")
def data_show(name: str, reference: str | None, out: str | None, root: str | None, cards: Sequence[str]) -> None:
    """A contact sheet of one reference of NAME with its distorted images and their scores."""
    from harness import datasets
    from harness.datasets.contact_sheet import contact_sheet

    data = datasets.load_dataset(name, root, cards=cards)
    echo(str(contact_sheet(data, out or f"{data.name}.png", reference)))
