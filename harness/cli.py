"""The command line: it parses, calls one room, and prints; rooms are imported when they are needed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from harness.runtime import signals
from harness.runtime.errors import BadRequest, HarnessError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: dict[str, Callable[[F], F]] = {
    "runs": click.option("--runs", default="runs", show_default=True, metavar="DIR", help="Where runs are kept."),
    "cards": click.option("--cards", multiple=True, metavar="DIR", help="A folder of your own cards; repeatable."),
    "device": click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, ...; a GPU if there is one."),
    "seed": click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seeds all choices."),
    "offline": click.option("--offline", is_flag=True, help="Never touch the network."),
    "limit": click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N pairs of each scored part (marked)."),
    "workers": click.option(
        "--workers",
        default=0,
        type=click.IntRange(0),
        metavar="N",
        help="Processes that share the work; 0 or 1: this one, a thread per core.",
    ),
    "threads": click.option("--workers", default=0, type=click.IntRange(0), metavar="N", help="Threads; 0: one per core."),
    "ray": click.option("--ray", metavar="ADDRESS", help="Work on a running Ray cluster: host:port, or auto."),
    "batch": click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Images at once."),
    "mlflow": click.option("--mlflow-uri", metavar="URI", help="MLflow server; default: sqlite beside the runs; off: none."),
    "quiet": click.option("--quiet", is_flag=True, help="No progress and no remarks."),
    "json": click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output, nothing else."),
    "debug": click.option("--debug", is_flag=True, expose_value=False, help="Tracebacks for errors."),
    "set": click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a card's setting."),
    "weights": click.option("--weights", metavar="FILE|released", help="Weights to test; nothing is trained."),
    "root": click.option("--root", metavar="DIR", help="The dataset's folder; default: $HARNESS_DATA/<name>, data/<name>."),
}


def _with(*names: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for name in reversed(names):
            function = _OPTIONS[name](function)
        return function

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="iqa-harness", prog_name="harness")
def cli() -> None:
    """Benchmark full-reference image quality models: train, score, agree, rank.

    Start with:  harness run psnr ssim ahiq-tiny --dataset demo
    """


@cli.command("list")
@click.argument("kind", type=click.Choice(["models", "datasets", "challenges"]), required=False)
@click.option("--all", "everything", is_flag=True, help="Also the metrics of installed libraries (pyiqa, piq).")
@_with("cards", "json", "debug")
def list_(kind: str | None, everything: bool, cards: Sequence[str], as_json: bool) -> None:
    """The models and datasets there are."""
    from harness import catalogue

    rows = catalogue.listing(kind, cards, everything=everything)
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else catalogue.as_text(rows))


@cli.command()
@click.argument("name")
@_with("cards", "json", "debug")
def show(name: str, cards: Sequence[str], as_json: bool) -> None:
    """A card: what a model or a dataset is, its settings and published numbers."""
    from harness import catalogue

    card = catalogue.card(name, cards)
    click.echo(json.dumps(catalogue.as_json(card), indent=2, ensure_ascii=False) if as_json else catalogue.card_text(card))


@cli.command()
@click.argument("models", nargs=-1)
@click.option("--scores", metavar="FILE.csv", help="Scores (name,score) instead of a model; needs --name.")
@click.option("--name", metavar="NAME", help="What to call the model behind --scores.")
@click.option("--lower-is-better", is_flag=True, help="Of --scores.")
@click.option("--inner", is_flag=True, help="Use the names that --scores and the dataset both have.")
@click.option("--dataset", required=True, metavar="NAME|TABLE.csv", help="A dataset, or a table of pairs.")
@_with("root")
@click.option("--protocol", metavar="NAME", help="Which images train, validate and test.")
@click.option("--test-on", metavar="A,B,...", help="Further datasets to test on, whole.")
@click.option("--keep-shared", is_flag=True, help="Test also on references whose content was trained on.")
@_with("weights")
@click.option("--init", metavar="FILE", help="Weights to train on from.")
@_with("set")
@click.option("--force", is_flag=True, help="Compute again what is finished.")
@click.option("--seeds", metavar="0,1,...", help="Several seeds: a run for each, and their mean and spread.")
@_with("runs", "cards", "device", "seed", "offline", "limit", "workers", "ray", "batch", "mlflow", "quiet", "json", "debug")
def run(
    models: Sequence[str],
    scores: str | None,
    name: str | None,
    lower_is_better: bool,
    inner: bool,
    dataset: str,
    root: str | None,
    protocol: str | None,
    test_on: str | None,
    keep_shared: bool,
    weights: str | None,
    init: str | None,
    settings: Sequence[str],
    force: bool,
    seeds: str | None,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    limit: int | None,
    workers: int,
    ray: str | None,
    batch: int,
    mlflow_uri: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train (where a model has a recipe), test, measure and record MODELS on a dataset."""
    from harness.engine.batch import of_seeds, run_all
    from harness.engine.request import Request
    from harness.results import tables

    if bool(models) == bool(scores) or bool(scores) != bool(name):
        raise BadRequest("give MODELS, or --scores FILE.csv with --name NAME")

    requests = [
        Request(
            model,
            dataset,
            root=root,
            protocol=protocol,
            weights=weights,
            init=init,
            settings=_settings(settings),
            seed=seed,
            limit=limit,
            force=force,
            device=device,
            workers=workers,
            ray=ray,
            batch=batch,
            offline=offline,
            cards=tuple(cards),
            runs=runs,
            mlflow_uri=mlflow_uri,
            quiet=quiet,
            scores=scores,
            lower_is_better=lower_is_better,
            inner=inner,
        )
        for model in dict.fromkeys([name] if name else models)
    ]
    if seeds is not None:
        requests = [one for request in requests for one in of_seeds(request, _seeds(seeds, seed))]
    outcomes, faults = run_all(requests, _words(test_on), _say(quiet), keep_shared=keep_shared)
    results = [tables.result(outcome.folder, outcome.record) for outcome in outcomes]
    if as_json:
        click.echo(json.dumps(results, indent=2, ensure_ascii=False))
    elif results:
        click.echo(tables.run_table(results))
        for outcome in outcomes if not quiet else ():
            click.echo(f"{outcome.record['model']}: {'found' if outcome.found else 'recorded in'} {outcome.folder}", err=True)
    if faults:
        raise faults[0] if len(faults) == 1 else HarnessError("\n".join(map(str, faults)))


@cli.command()
@click.argument("model")
@click.argument("pictures", nargs=-1, metavar="[REFERENCE DISTORTED]")
@click.option("--pairs", metavar="FILE.csv", help="A table with columns reference, distorted and optionally name.")
@click.option("--out", metavar="FILE.csv", help="Write name,score there.")
@_with("root", "weights", "set", "cards", "device", "seed", "offline", "workers", "ray", "batch", "quiet", "json", "debug")
def score(
    model: str,
    pictures: Sequence[str],
    pairs: str | None,
    out: str | None,
    root: str | None,
    weights: str | None,
    settings: Sequence[str],
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    workers: int,
    ray: str | None,
    batch: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score pictures that need no labels: one pair, or a table of pairs."""
    from harness.engine import unlabelled

    if (len(pictures) != 2) == (pairs is None):
        raise BadRequest("give either REFERENCE DISTORTED or --pairs FILE.csv")
    table = unlabelled.read_pairs(pairs, root) if pairs else unlabelled.one_pair(*pictures)
    making = unlabelled.scorer(
        model, table, weights=weights, settings=_settings(settings), cards=cards, device=device, seed=seed, offline=offline,
        workers=workers, ray=ray, batch=batch, say=_say(quiet),
    )  # fmt: skip
    with making as scorer:
        results = unlabelled.score(scorer, table, quiet=quiet)
    if out:
        unlabelled.write_scores(out, results)
        _say(quiet)(f"{len(results)} scores written to {out}")
    if as_json:
        click.echo(json.dumps([unlabelled.as_json(pair, scored) for pair, scored in results], indent=2, ensure_ascii=False))
    elif not out:
        for pair, scored in results:
            click.echo(f"{scored.score!r}" if not pairs else f"{pair.name},{scored.score!r}")


@cli.command("agreement")
@click.argument("scores")
@click.argument("labels")
@click.option("--lower-is-better", "lower", multiple=True, type=click.Choice(["scores", "labels"]), help="Turn round.")
@click.option("--fit", default="logistic4", type=click.Choice(["logistic4", "logistic5", "poly3"]), show_default=True)
@click.option("--inner", is_flag=True, help="Use the names that both files have, and drop the others.")
@_with("json", "debug")
def agreement_(scores: str, labels: str, lower: Sequence[str], fit: Any, inner: bool, as_json: bool) -> None:
    """Agreement of a file of scores with a file of labels (columns name,score; labels may have reference_id)."""
    from harness.engine.compare import agreement_of_files
    from harness.results import tables

    figures = agreement_of_files(scores, labels, lower=set(lower), fit=fit, inner=inner)
    click.echo(json.dumps(figures.json(), indent=2) if as_json else tables.agreement_text(figures))


@cli.command()
@click.argument("a")
@click.argument("b")
@click.option("--dataset", metavar="NAME|TABLE.csv", help="Whose images and labels; default: those of A's run.")
@click.option("--protocol", metavar="NAME", help="For models' names: the protocol of their runs; default: the dataset's.")
@click.option("--labels", metavar="FILE.csv", help="Labels (name,score,reference_id) instead of a dataset's.")
@click.option("--lower-is-better", "lower", multiple=True, type=click.Choice(["a", "b", "labels"]), help="Of score files.")
@click.option("--inner", is_flag=True, help="Use the images that both have.")
@click.option(
    "--difference",
    "differences",
    multiple=True,
    type=float,
    metavar="D",
    help="Say how many references would show a true D in SRCC.",
)
@_with("root", "cards", "runs", "seed", "quiet", "json", "debug")
def compare(
    a: str,
    b: str,
    dataset: str | None,
    protocol: str | None,
    labels: str | None,
    lower: Sequence[str],
    inner: bool,
    differences: Sequence[float],
    root: str | None,
    cards: Sequence[str],
    runs: str,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Is A better than B? Two models, runs or score files, paired by reference."""
    from harness.engine import compare as contrast

    found = contrast.compare_members(
        a,
        b,
        dataset=dataset,
        protocol=protocol,
        root=root,
        labels=labels,
        lower=lower,
        inner=inner,
        differences=differences or contrast.PLANNED,
        cards=cards,
        runs=runs,
        seed=seed,
        say=_say(quiet),
    )
    click.echo(json.dumps(contrast.as_json(found), indent=2) if as_json else contrast.text(found))


@cli.command()
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.option("--dataset", required=True, metavar="NAME|TABLE.csv", help="Fitted on its validation part, else on all of it.")
@_with("root")
@click.option("--protocol", metavar="NAME", help="Which images train, validate and test.")
@click.option("--test-on", metavar="A,B,...", help="Further datasets to report on, whole.")
@click.option("--trials", type=click.IntRange(1), metavar="N", help="Weightings to try [1000]; of --tune recipe, trainings [8].")
@click.option("--tune", type=click.Choice(["recipe"]), help="Train one MEMBER under settings that its card has tunable.")
@click.option("--objective", default="main", show_default=True, type=click.Choice(["main", "srcc", "plcc"]))
@click.option(
    "--method", default="searched", show_default=True, type=click.Choice(["mean", "greedy", "least-squares", "searched"]),
    help="Which blend becomes the card.",
)  # fmt: skip
@click.option("--scalings", default="raw,z,ecdf,logistic", show_default=True, metavar="A,B,...", help="Scalings to try.")
@click.option("--crops", metavar="A,B,...", help="Croppings to try too, for members that take crops: five, nine, grid, ...")
@click.option("--lower-is-better", "lower", multiple=True, metavar="MEMBER", help="A score file's polarity; repeatable.")
@click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Side by side; default: one per core, trainings 1.")
@click.option("--out", required=True, metavar="CARD.toml", help="The ensemble's card.")
@_with("runs", "cards", "device", "seed", "offline", "workers", "batch", "mlflow", "quiet", "json", "debug")
def ensemble(
    members: Sequence[str],
    dataset: str,
    root: str | None,
    protocol: str | None,
    test_on: str | None,
    trials: int | None,
    tune: str | None,
    objective: Any,
    method: str,
    scalings: str,
    crops: str | None,
    lower: Sequence[str],
    concurrency: int | None,
    out: str,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    workers: int,
    batch: int,
    mlflow_uri: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find a blend of MEMBERs (models, runs' folders, files of name,score), and write it as a model's card."""
    from harness.engine.request import Request
    from harness.ensembles.build import Wish
    from harness.ensembles.build import ensemble as make

    request = Request(
        "", dataset, root=root, protocol=protocol, seed=seed, device=device, workers=workers, batch=batch, offline=offline,
        cards=tuple(cards), runs=runs, mlflow_uri=mlflow_uri, quiet=quiet,
    )  # fmt: skip
    if tune:
        from harness.ensembles.tune import tune_recipe

        tuned = tune_recipe(
            members, request, out, trials=trials or 8, aim=objective, concurrency=concurrency or 1, say=_say(quiet)
        )  # fmt: skip
        click.echo(json.dumps(tuned.json(), indent=2, ensure_ascii=False) if as_json else str(tuned))
        return
    wish = Wish(
        out, test_on=_words(test_on), trials=trials or 1000, aim=objective, method=method, scalings=_words(scalings),
        crops=_words(crops), lower=tuple(lower), concurrency=concurrency,
    )  # fmt: skip
    made = make(members, request, wish, _say(quiet))
    click.echo(json.dumps(made.json(), indent=2, ensure_ascii=False) if as_json else str(made))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Score only about N images again.")
@click.option("--no-training", is_flag=True, help="Of a trained record without its weights, check all but the scores.")
@_with("root", "cards", "device", "offline", "workers", "ray", "quiet", "json", "debug")
def verify(
    run_folder: str,
    sample: int | None,
    no_training: bool,
    root: str | None,
    cards: Sequence[str],
    device: str | None,
    offline: bool,
    workers: int,
    ray: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Do a finished run's work again, and compare it with its record."""
    from harness.engine import verify as verification

    verdict = verification.verify(
        run_folder,
        root=root,
        cards=cards,
        sample=sample,
        train=not no_training,
        device=device,
        offline=offline,
        workers=workers,
        ray=ray,
        quiet=quiet,
        say=_say(quiet),
    )
    click.echo(json.dumps(verdict.json(), indent=2) if as_json else verification.text(verdict))
    if not verdict.ok:
        raise SystemExit(1)


@cli.command("leaderboard")
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
@_with("runs", "cards", "json", "debug")
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

    if (
        name is not None
        and not (check or add or write or measure_again or latex)
        and html is None
        and standings.is_challenge(name, cards)
    ):
        rows = standings.numbers(name, runs, cards) if as_json else None
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else standings.show(name, runs, cards))
        return
    if check:
        differences = leaderboard.check(boards)
        click.echo("\n".join(differences) or f"{boards}: every table is what its records give")
        raise SystemExit(1 if differences else 0)
    if add:
        leaderboard.add(add, boards)
    if measure_again:
        from harness.engine import verify as remeasurement

        for folder, changed in remeasurement.measure_all_again(leaderboard.committed(name, boards), cards=cards):
            click.echo("\n".join(f"{folder}: {line}" for line in changed or ["figures as before"]), err=True)
    if add or write or measure_again:
        for path in leaderboard.write(boards):
            click.echo(str(path), err=True)
        return
    if html is not None:
        click.echo(str(leaderboard.write_page(html or None, runs, boards, name)))
    elif as_json:
        click.echo(json.dumps(leaderboard.numbers(name, runs, boards), indent=2, ensure_ascii=False))
    else:
        click.echo(leaderboard.show(name, runs, boards, latex=latex))


@cli.group("data")
def data_() -> None:
    """Files of datasets: check, get and look at them."""


@data_.command("check")
@click.argument("name")
@click.option("--full", is_flag=True, help="Decode every picture, and leave a manifest.")
@click.option("--strict", is_flag=True, help="Warnings count as faults.")
@_with("root", "cards", "threads", "quiet", "json", "debug")
def data_check(
    name: str, full: bool, strict: bool, root: str | None, cards: Sequence[str], workers: int, quiet: bool, as_json: bool
) -> None:
    """What was expected of dataset NAME, what is there, what is missing, and how to mend it."""
    from harness import datasets
    from harness.cards.loading import find_dataset
    from harness.datasets.check import check

    card = find_dataset(name, cards)
    report = check(card, datasets.data_root(card.folder or card.name, root), full=full, workers=workers or None, quiet=quiet)
    click.echo(json.dumps(report.json(), indent=2, ensure_ascii=False) if as_json else report.text())
    if not report.ok or (strict and report.problems):
        raise SystemExit(1)


@data_.command("get")
@click.argument("name")
@_with("root", "cards", "offline", "quiet", "debug")
def data_get(name: str, root: str | None, cards: Sequence[str], offline: bool, quiet: bool) -> None:
    """Download dataset NAME where it has a public address, else print how to obtain it."""
    from harness.cards.loading import find_dataset
    from harness.datasets import download
    from harness.runtime.progress import counted

    with counted(f"downloading {name}", unit="bytes", quiet=quiet) as step:
        lines = download.get(
            find_dataset(name, cards), root, progress=lambda file, done, total: step(done, total), offline=offline
        )
    click.echo("\n".join(lines))


@data_.command("show")
@click.argument("name")
@click.option("--reference", metavar="ID", help="Which reference; default: the first.")
@click.option("--out", metavar="FILE.png", help="Where to write the sheet; default: NAME.png.")
@_with("root", "cards", "quiet", "debug")
def data_show(name: str, reference: str | None, out: str | None, root: str | None, cards: Sequence[str], quiet: bool) -> None:
    """A contact sheet of one reference of NAME with its distorted images and their scores."""
    from harness import datasets
    from harness.datasets.contact_sheet import contact_sheet

    data = datasets.load_dataset(name, root, cards=cards, quiet=quiet)
    click.echo(str(contact_sheet(data, out or f"{data.name}.png", reference)))


@cli.command()
@click.argument("model", metavar="MODEL|RUN")
@click.option("--challenge", required=True, metavar="NAME", help="Which challenge (harness list challenges).")
@click.option("--phase", metavar="NAME", help="Which set of images; default: the card's.")
@_with("root")
@click.option("--out", required=True, metavar="FILE.zip", help="The submission.")
@click.option("--description", metavar="TEXT", help="One line about the method; default: the card's title and first sentence.")
@click.option("--factsheet", metavar="FILE.md", help="Also write the fact sheet for the organisers.")
@click.option("--team", metavar="NAME", help="For the fact sheet.")
@_with("weights", "set")
@click.option("--force", is_flag=True, help="Score again what is scored.")
@click.option("--strict", is_flag=True, help="Exit status 1 for warnings.")
@_with("runs", "cards", "device", "seed", "offline", "workers", "ray", "batch", "mlflow", "quiet", "json", "debug")
def submit(
    model: str,
    challenge: str,
    phase: str | None,
    root: str | None,
    out: str,
    description: str | None,
    factsheet: str | None,
    team: str | None,
    weights: str | None,
    settings: Sequence[str],
    force: bool,
    strict: bool,
    runs: str,
    cards: Sequence[str],
    device: str | None,
    seed: int,
    offline: bool,
    workers: int,
    ray: str | None,
    batch: int,
    mlflow_uri: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Score a challenge's images with a model, or the model of a finished run, and write the zip to hand in."""
    from harness.challenges.submit import submit as make
    from harness.engine.request import Request

    wish = Request(
        "", "", root=root, weights=weights, settings=_settings(settings), force=force, runs=runs, cards=tuple(cards),
        device=device, seed=seed, offline=offline, workers=workers, ray=ray, batch=batch, mlflow_uri=mlflow_uri, quiet=quiet,
    )  # fmt: skip
    made = make(model, challenge, phase, out, wish, description=description, say=_say(quiet))
    if factsheet:
        from harness.challenges import factsheet as sheet

        sheet.write(factsheet, made, team=team, cards=cards)
        _say(quiet)(f"fact sheet written to {factsheet}")
    click.echo(json.dumps(made.json(), indent=2, ensure_ascii=False) if as_json else str(made))
    if strict and made.warnings:
        raise SystemExit(1)


@cli.group("submission")
def submission_() -> None:
    """Submissions to challenges, also made elsewhere: checked, mended, scored."""


@submission_.command("check")
@click.argument("file", metavar="FILE.zip")
@click.option("--challenge", metavar="NAME", help="Which challenge; default: told by the names.")
@click.option("--phase", metavar="NAME", help="Which phase; default: told by the names.")
@_with("root")
@click.option("--against", metavar="RUN", help="The model's own scores (a run, a model's name or name,score): audit for leaks.")
@click.option("--fix", "fixed", metavar="OUT.zip", help="Write a zip with everything mechanical mended, and check that instead.")
@click.option("--strict", is_flag=True, help="Exit status 1 for warnings.")
@_with("runs", "cards", "quiet", "json", "debug")
def submission_check(
    file: str,
    challenge: str | None,
    phase: str | None,
    root: str | None,
    against: str | None,
    fixed: str | None,
    strict: bool,
    runs: str,
    cards: Sequence[str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Everything that is wrong with a submission, with lines and how to mend them. Exit status 1 for a defective one."""
    from harness.challenges.check import check, fix

    say = _say(quiet)
    report = check(file, challenge=challenge, phase=phase, root=root, against=against, cards=cards, runs=runs, say=say)
    if fixed:
        if not as_json:
            click.echo(str(report))
        report = fix(report, fixed, root=root, against=against, cards=cards, runs=runs, say=say)
    click.echo(json.dumps(report.json(), indent=2, ensure_ascii=False) if as_json else str(report))
    if not report.ok or (strict and report.warned):
        raise SystemExit(1)


@submission_.command("score")
@click.argument("file", metavar="[FILE.zip]", required=False)
@click.option("--labels", metavar="FILE", help="People's scores: name,score, or a folder of such files.")
@click.option(
    "--input", "source", metavar="DIR", help="Instead, as a server calls it: DIR/ref has the labels, DIR/res the files."
)
@click.option("--output", "target", metavar="DIR", help="With --input: scores.txt is written there.")
@click.option("--challenge", metavar="NAME", help="Which challenge; default: told by the names.")
@click.option("--phase", metavar="NAME", help="Which phase; default: told by the names.")
@click.option("--name", metavar="NAME", help="What the leaderboard is to call a zip made elsewhere.")
@_with("root", "runs", "cards", "json", "debug")
def submission_score(
    file: str | None,
    labels: str | None,
    source: str | None,
    target: str | None,
    challenge: str | None,
    phase: str | None,
    name: str | None,
    root: str | None,
    runs: str,
    cards: Sequence[str],
    as_json: bool,
) -> None:
    """The challenge's own score of a submission, from labels of your own; also as an organiser's server calls it."""
    from harness.challenges import standings
    from harness.challenges.score import score, score_folder

    if bool(file) == bool(source) or bool(file) != bool(labels) or bool(source) != bool(target):
        raise BadRequest("give FILE.zip with --labels FILE, or --input DIR with --output DIR")
    if source and target:
        scored = score_folder(source, target, challenge=challenge, phase=phase, cards=cards)
    else:
        assert file is not None
        assert labels is not None
        scored = score(file, labels, challenge=challenge, phase=phase, root=root, cards=cards)
        standings.remember(runs, standings.scored_entry(scored, name))
    click.echo(json.dumps(scored.json(), indent=2, ensure_ascii=False) if as_json else str(scored))


@cli.group("weights")
def weights_() -> None:
    """Files of weights: fetch them ahead of time, or say where they are."""


@weights_.command("get")
@click.argument("name")
@click.option("--use", metavar="WORD", help="Also the weights of this word, such as released.")
@_with("cards", "quiet", "debug")
def weights_get(name: str, use: str | None, cards: Sequence[str], quiet: bool) -> None:
    """Fetch the weights of model NAME."""
    from harness.models import find_model, weights
    from harness.runtime.progress import counted

    with counted(f"weights of {name}", unit="bytes", quiet=quiet) as step:
        for path in weights.get(find_model(name, cards), use, progress=lambda file, done, total: step(done, total)):
            click.echo(str(path))


@weights_.command("check")
@click.argument("name")
@_with("cards", "json", "debug")
def weights_check(name: str, cards: Sequence[str], as_json: bool) -> None:
    """Where the weights of model NAME are, and whether they are the right ones."""
    from harness import catalogue

    rows = catalogue.weights_listing(name, cards)
    click.echo(json.dumps(rows, indent=2) if as_json else catalogue.weights_text(rows))
    if any(not row["ok"] for row in rows):
        raise SystemExit(1)


@cli.command()
@_with("runs", "json", "debug")
def doctor(runs: str, as_json: bool) -> None:
    """What is installed, which device there is, and where things are kept."""
    from harness import checkup

    facts = checkup.facts(runs)
    click.echo(json.dumps(facts, indent=2) if as_json else checkup.as_text(facts))
    if any(not ok for ok in facts["ok"].values()):
        raise SystemExit(1)


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadRequest(f"--set {pair}: expected KEY=VALUE, such as protocol.crops=five")
        settings[key.strip()] = value.strip()
    return settings


def _seeds(text: str, seed: int) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if seed or not all(word.isdecimal() for word in words):
        raise BadRequest(f"--seeds {text}: expected whole numbers with commas, such as 0,1,2, and no --seed beside it")
    return [int(word) for word in words]


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """The `harness` command: 0 done, 1 a fault, 2 a bad request, 130 after Ctrl-C, 143 after SIGTERM."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with signals.heard():
            status = cli.main(words, prog_name="harness", standalone_mode=False)
    except BaseException as error:
        # On its way a stop may have been turned into an error of some library's.
        stopped = signals.received() or (signal.SIGINT if isinstance(error, KeyboardInterrupt | click.Abort) else None)
        if (debug and not isinstance(error, click.ClickException)) or (stopped is None and isinstance(error, SystemExit)):
            raise
        sys.exit(_stopped(stopped) if stopped else _failed(error))
    sys.exit(status if isinstance(status, int) else 0)


def _stopped(number: int) -> int:
    click.echo("harness: stopped; the same command goes on from here", err=True)
    return 128 + number


def _failed(error: BaseException) -> int:
    """Tell the user; the exit status."""
    match error:
        case click.ClickException():
            error.show()
            return 2
        case HarnessError():
            click.echo(f"harness: {error}", err=True)
            return error.exit_status
        case BrokenPipeError():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case _:
            click.echo(f"harness: {type(error).__name__}: {error} (this is a defect; --debug shows where)", err=True)
            return 1


if __name__ == "__main__":
    main()
