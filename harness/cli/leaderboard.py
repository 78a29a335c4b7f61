"""`harness leaderboard`: tables from finished runs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from harness.cli.options import echo, options


@click.command("leaderboard")
@click.argument("name", required=False)
@click.option("--boards", default="leaderboards", show_default=True, metavar="DIR", help="Committed tables and their records.")
@click.option("--add", multiple=True, metavar="RUN", help="Put a finished run among the committed records; repeatable.")
@click.option("--write", is_flag=True, help="Make the committed tables anew from their records.")
@click.option("--check", is_flag=True, help="Fail where committed tables differ from what their records give.")
@click.option(
    "--measure-again", is_flag=True, help="Compute the committed records' figures anew from their scores, and the tables."
)
@click.option(
    "--html", metavar="[DIR]", is_flag=False, flag_value="", help="Write the page index.html there; default: beside the records."
)
@click.option("--latex", is_flag=True, help="LaTeX tables.")
@options("runs", "cards", "json", "debug")
def leaderboard_(
    name: str | None,
    boards: str,
    add: Sequence[str],
    write: bool,
    check: bool,
    measure_again: bool,
    html: str | None,
    latex: bool,
    runs: str,
    cards: Sequence[str],
    as_json: bool,
) -> None:
    """Rank finished runs: a dataset's table, or all of them; or a challenge's published board beside your own submissions."""
    from harness import leaderboard
    from harness.challenges import standings
    from harness.datasets import dataset_card, is_table

    if name is not None and (is_table(name) or name.endswith(".toml")):
        name = dataset_card(name, cards).name
    if (
        name is not None
        and not (check or add or write or measure_again or latex)
        and html is None
        and standings.is_challenge(name, cards)
    ):
        rows = standings.numbers(name, runs, cards) if as_json else None
        echo(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else standings.show(name, runs, cards))
        return
    if check:
        differences = leaderboard.check(boards)
        echo("\n".join(differences) or f"{boards}: every table is what its records give")
        raise SystemExit(1 if differences else 0)
    if add:
        leaderboard.add(add, boards)
    if measure_again:
        from harness.engine import verify as remeasurement

        for folder, changed in remeasurement.measure_all_again(leaderboard.committed(name, boards), cards=cards):
            echo("\n".join(f"{folder}: {line}" for line in changed or ["figures as before"]), err=True)
    if add or write or measure_again:
        for path in leaderboard.write(boards):
            echo(str(path), err=True)
        return
    if html is not None:
        echo(str(leaderboard.write_page(html or None, runs, boards, name)))
    elif as_json:
        echo(json.dumps(leaderboard.numbers(name, runs, boards), indent=2, ensure_ascii=False))
    else:
        echo(leaderboard.show(name, runs, boards, latex=latex))
