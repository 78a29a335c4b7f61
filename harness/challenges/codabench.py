"""Codabench's files of a competition: competition.yaml, pages, logo.

Written from Codabench's documentation (docs.codabench.org: Yaml-Structure, Competition-Bundle-Structure,
Submission-Docker-Container-Layout, Leaderboard-Functionality), and from its unpacker where the two differ: the key is
`leaderboards`, and `image`, `terms` and the pages have to be files that are not empty. Dates are quoted, because it drops the
time of a YAML date. Folders are zipped beforehand: Codabench would put the zips of all folders in one place, by the last part of
their path, where they may collide.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence

from harness.cards.challenge import ChallengeCard, Term, moment
from harness.challenges.figures import FIT_WORDS
from harness.runtime.errors import UsageError

KIT = "starting_kit.zip"
PROGRAM = "scoring_program.zip"
COMMAND = "python3 /app/program/score.py /app/input /app/output"
_DAYS = 30
_SECONDS = 600
_FIGURES = {
    "srcc": "Spearman's rank correlation",
    "plcc": "Pearson's correlation",
    "krcc": "Kendall's tau-b",
    "rmse": "root mean squared error, in the labels' units",
    "pairs": "share of pairs of images in the right order",
    "2afc": "2AFC score: mean share of raters whose choice agrees with the scores",
}
_FACTS = {
    "runtime": "seconds per image, after warm-up",
    "operations": "GFLOP per image (2 per multiply-add)",
    "cpu": "1 on a CPU, 0 on a GPU",
    "extra-data": "1 if the model was trained with other data than the challenge's, including by pretrained weights",
    "description": "the method in one line",
    "full-reference": "always 1",
}


def reference_file(phase: str) -> str:
    """The name of the zip of a phase's labels."""
    return f"reference_data_{phase}.zip"


def sample_file(phase: str) -> str:
    """The name of a phase's sample submission."""
    return f"sample_submission_{phase}.zip"


def schedule(card: ChallengeCard, phases: Sequence[str], start: str | None) -> dict[str, tuple[str, str]]:
    """Start and end of each phase, UTC; an end may be empty. Phases without dates follow each other, 30 days each."""
    dated = [name for name in phases if card.phases[name].start]
    if dated and len(dated) < len(phases):
        others = [name for name in phases if name not in dated]
        raise UsageError("\n".join(f"{card.path}: phases.{name}: no start, but {dated[0]} has one" for name in others))
    form = "%Y-%m-%d %H:%M:%S"
    if dated:
        own = {name: (card.phases[name].start, card.phases[name].end) for name in phases}
        return {n: (moment(a).strftime(form), moment(b).strftime(form) if b else "") for n, (a, b) in own.items()}
    try:
        day = moment(start) if start else datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    except ValueError:
        raise UsageError(f"--start {start}: expected a date such as 2027-01-31") from None
    found = {}
    for i, name in enumerate(phases):
        begin, end = (day + datetime.timedelta(days=_DAYS * k) for k in (i, i + 1))
        found[name] = (begin.strftime(form), "" if i + 1 == len(phases) else end.strftime(form))
    return found


def competition(
    card: ChallengeCard, phases: Sequence[str], dates: Mapping[str, tuple[str, str]], pages: Mapping[str, str]
) -> str:
    """competition.yaml."""
    import yaml

    table: dict[str, object] = {
        "version": 2,
        "title": card.title,
        "description": " ".join(card.description.split()) or card.title,
        "image": "logo.png",
        "terms": "pages/terms.md",
        "docker_image": card.docker_image,
        "registration_auto_approve": False,
        # The program stays private, so that entrants do not learn how labels are stored.
        "make_programs_available": False,
        "make_input_data_available": False,
        "enable_detailed_results": True,
        "show_detailed_results_in_submission_panel": True,
        "show_detailed_results_in_leaderboard": False,
    }
    if card.contact:
        table["contact_email"] = card.contact
    table["pages"] = [{"title": title, "file": file} for file, title in pages.items()]
    each, tasks = [], []
    for i, name in enumerate(phases):
        about, (start, end) = card.phases[name], dates[name]
        limits = {"max_submissions_per_day": about.submissions_per_day, "max_submissions": about.submissions}
        each.append(
            {
                "index": i,
                "name": name,
                "description": f"{about.images:,} images",
                "start": start,
                **{key: value for key, value in {"end": end, **limits}.items() if value},
                "execution_time_limit": _SECONDS,
                "accepts_only_result_submissions": True,
                "starting_kit": KIT,
                "tasks": [i],
            }
        )
        named = {"index": i, "name": f"{card.name}, {name}", "description": f"Scores of {about.images:,} images"}
        tasks.append({**named, "scoring_program": PROGRAM, "reference_data": reference_file(name)})
    table |= {"phases": each, "tasks": tasks}
    table["solutions"] = [{"index": i, "path": sample_file(name), "tasks": [i]} for i, name in enumerate(phases)]
    table["leaderboards"] = [{"title": "Results", "key": "main", "submission_rule": "Force_Best", "columns": columns(card)}]
    head = "# Made by `harness challenge bundle`; upload the zip that holds this file. Dates are UTC.\n"
    return head + str(yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=120))


def columns(card: ChallengeCard) -> list[dict[str, object]]:
    """The leaderboard's columns; the first ranks, and their keys are those of scores.json."""
    terms = card.scoring.terms
    digits = 4 if card.ranking.decimals < 0 else card.ranking.decimals

    def column(name: str, key: str, index: int, sorting: str) -> dict[str, object]:
        return {"title": name, "key": key, "index": index, "sorting": sorting, "precision": digits, "hidden": False}

    each = [column(term.name, term.name, i, "desc" if rises(term) else "asc") for i, term in enumerate(terms, 1)]
    if card.ranking.by != "mean-rank":
        return [column("Main score", card.scoring.main_key, 0, "desc"), *each]
    first = {"title": "Mean rank", "key": "mean_rank", "index": 0, "sorting": "asc", "computation": "avg_rank"}
    ranks = {"computation_indexes": list(range(1, len(terms) + 1)), "precision": 2, "hidden": False}
    return [{**first, **ranks}, *each, column("Weighted sum", card.scoring.main_key, len(terms) + 1, "desc")]


def rises(term: Term) -> bool:
    """Whether a higher figure of this term is better."""
    return term.figure != "rmse"


def pages(card: ChallengeCard, phases: Sequence[str], example: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The pages by file: title and text. `example`: the beginning of each file of a submission."""
    about = [f"# {card.title}", "", card.description.strip() or "(describe the challenge here)", ""]
    links = {"Paper": card.paper, "Home": card.home, "Contact": card.contact}
    about += [f"- {name}: {value}" for name, value in links.items() if value]
    about += ["", "| phase | images |", "|---|---|", *(f"| {name} | {card.phases[name].images:,} |" for name in phases)]
    return {
        "pages/overview.md": ("Overview", _text(about)),
        "pages/evaluation.md": ("Evaluation", _evaluation(card)),
        "pages/submission.md": ("Submission", _submission(card, example)),
        "pages/terms.md": ("Terms", _text([f"# Terms of {card.title}", "", card.conditions.strip() or _CONDITIONS])),
    }


_CONDITIONS = "Scores must come from a program that uses only the images, neither their file names nor their labels."


def _evaluation(card: ChallengeCard) -> str:
    lines = ["# Evaluation", "", f"**{card.scoring.main_key}** is the weighted sum of these figures:", ""]
    lines += ["| key | figure | weight | |", "|---|---|---|---|"]
    for term in card.scoring.terms:
        notes = [FIT_WORDS[term.fit] if term.figure in ("plcc", "rmse") else "", "absolute value" if term.absolute else ""]
        notes += {"different": ["pairs whose labels differ significantly"], "listed": ["pairs of a list"]}.get(term.pairs, [])
        notes += [{"wrong": "equal scores are wrong", "first": "equal scores count as the first"}.get(term.ties, "")]
        lines.append(f"| {term.name} | {_FIGURES[term.figure]} | {term.weight:g} | {', '.join(filter(None, notes))} |")
    by_rank = card.ranking.by == "mean-rank"
    ranked = "the mean of the ranks by these figures" if by_rank else f"{card.scoring.main_key}, highest first"
    lines += ["", f"Submissions are ranked by {ranked}."]
    lines += [f"A submission with {limit.figure} above {limit.most:g} gets no score." for limit in card.ranking.limits]
    return _text([*lines, "", "Higher scores have to mean better images."])


def _submission(card: ChallengeCard, example: Mapping[str, str]) -> str:
    lines = ["# Submission", "", f"A zip with {' and '.join(example)} at its root, and nothing else.", ""]
    form = card.lines
    separator = {",": "a comma", ";": "a semicolon", " ": "one space", "\t": "a tab"}[form.separator]
    names = f"name {'with' if form.extension else 'without'} extension"
    digits = "any number of decimals" if form.any_decimals else f"{form.decimals} decimals"
    head = f"the first line is `{form.header}`" if form.header else "no header"
    order = "sorted by name" if form.sorted else "in any order"
    lines += [f"`{form.file}`: one line an image, {names}, {separator}, score with {digits}; {head}; {order}; line ends `\\n`."]
    lines += [""]
    if card.readme:
        lines += [f"`{card.readme_file}`: these lines, `label : value`:", "", "| label | value |", "|---|---|"]
        lines += [f"| {line.label} | {_FACTS.get(line.fact, line.value)} |" for line in card.readme]
    for name, text in example.items():
        lines += ["", f"`{name}` begins:", "", "```", *text.splitlines(), "```"]
    last = "The starting kit has a valid sample submission. The detailed results of a submission list its defects."
    return _text([*lines, "", last])


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def logo() -> bytes:
    """A plain PNG as the competition's logo: bars of rising height."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (256, 256), (245, 245, 240))
    draw = ImageDraw.Draw(image)
    for i in range(5):
        draw.rectangle((28 + 42 * i, 216 - 36 * (i + 1), 28 + 42 * i + 30, 216), fill=(40, 60 + 25 * i, 110 + 20 * i))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
