from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import write_network

from harness.cards.loading import find_dataset, load_cards
from harness.cards.overrides import apply_set
from harness.cards.plugins import resolve
from harness.cards.schema import KINDS, ModelCard, parse_card
from harness.models import find_model
from harness.runtime.errors import UsageError

METRIC = 'name = "mine"\ntitle = "Mine"\nclass = "pkg.mod:Mine"\nhigher_is_better = true\n'


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_every_shipped_card_is_read_and_named_after_its_file():
    for kind in KINDS:
        cards = load_cards(kind)
        assert cards
        assert all(Path(card.path).stem == name for name, card in cards.items())


def test_all_problems_of_a_card_are_named_with_file_key_and_the_nearest_known_key(tmp_path: Path):
    text = 'name = "mine"\ntitel = "Mine"\nclass = "pkg.mod:Mine"\nhigher_is_better = "yes"\n[recipe]\nepochs = 1.5\n'
    write(tmp_path, "mine.toml", text)
    with pytest.raises(UsageError) as caught:
        find_model("mine", [tmp_path])
    message = str(caught.value)
    assert message.count(str(tmp_path / "mine.toml")) == len(message.splitlines()) >= 5
    for words in (
        "'titel'",
        "'title'",
        "higher_is_better = 'yes' should be true or false",
        "recipe.epochs = 1.5",
        "'recipe.rate'",
    ):
        assert words in message


def test_a_duplicate_name_names_both_files(tmp_path: Path):
    write(tmp_path, "psnr.toml", METRIC.replace("mine", "psnr"))
    with pytest.raises(UsageError, match=r"already taken by .*psnr\.toml"):
        find_model("psnr", [tmp_path])
    with pytest.raises(UsageError, match="already taken"):
        load_cards("models", [tmp_path])


def test_an_unknown_name_lists_near_names_and_the_folders_searched(tmp_path: Path):
    with pytest.raises(UsageError, match="'psnr'") as caught:
        find_model("pnsr", [tmp_path])
    assert str(tmp_path) in str(caught.value)


def test_a_broken_card_of_somebody_else_does_not_stop_work_with_a_good_one(tmp_path: Path):
    write(write(tmp_path, "bad.toml", "name = "), "mine.toml", METRIC)
    assert find_model("mine", [tmp_path]).title == "Mine"
    with pytest.raises(UsageError, match=r"bad\.toml"):
        load_cards("models", [tmp_path])


def test_cards_come_from_option_and_environment_never_from_the_current_folder(tmp_path, monkeypatch):
    """Cards come from the option and the environment but never from the current folder."""
    write(tmp_path / "here", "mine.toml", METRIC)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError):
        find_model("mine")
    monkeypatch.setenv("HARNESS_CARDS", str(tmp_path / "here"))
    assert find_model("mine").name == "mine"


def test_a_folder_of_both_kinds_is_distinguished_by_what_the_cards_say(tmp_path: Path):
    write_network(tmp_path)
    table = 'name="t"\ntitle="T"\nreader="harness.datasets:read_table"\nhigher_is_better=true\ndefault_protocol="full"\n'
    write(tmp_path, "t.toml", table + '[protocols.full]\nsplit="full"\n[layout]\ntable="table.csv"\n')
    assert find_dataset("t", [tmp_path]).protocols["full"].split == "full"
    assert "t" not in load_cards("models", [tmp_path])


def test_set_reads_text_as_the_type_that_the_card_has(tmp_path: Path):
    card = find_model("small", [write_network(tmp_path)])
    changed = apply_set(
        card,
        {"model.width": "8", "protocol.crops": "grid", "recipe.rate": "1", "recipe.betas": "0.5,0.9", "recipe.frozen": "head"},
    )
    assert changed.model["width"] == 8
    assert changed.protocol.crops == "grid"
    assert changed.recipe is not None
    assert (changed.recipe.rate, changed.recipe.betas, changed.recipe.frozen) == (1.0, (0.5, 0.9), ("head",))
    assert card.model["width"] == 4


def test_set_names_every_unknown_key_and_wrong_value(tmp_path: Path):
    card = find_model("small", [write_network(tmp_path)])
    with pytest.raises(UsageError) as caught:
        apply_set(card, {"model.widht": "8", "recipe.epochs": "many", "crops": "five"})
    message = str(caught.value)
    assert "model.width" in message
    assert "recipe.epochs=many: should be a whole number" in message
    assert "--set crops" in message
    with pytest.raises(UsageError, match="no recipe"):
        apply_set(find_model("psnr"), {"recipe.epochs": "1"})
    with pytest.raises(UsageError, match="not one of"):
        apply_set(card, {"recipe.loss": "hinge"})


@pytest.mark.slow
def test_listing_and_showing_never_import_torch():
    code = "import sys; from harness.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    heavy = "print([m for m in ('torch','pandas','scipy','timm','mlflow','ray','numpy') if m in sys.modules], file=sys.stderr)"
    for words in (["list"], ["list", "--json"], ["show", "psnr"], ["show", "demo"], ["--help"]):
        done = subprocess.run([sys.executable, "-c", code + heavy, *words], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]", words
        assert done.stdout


@pytest.mark.slow
@given(
    st.dictionaries(
        st.text(max_size=12),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=4),
    )
)
def test_any_table_is_a_card_or_a_bad_request(table):
    with contextlib.suppress(UsageError):
        parse_card(ModelCard, table, "x.toml")


def test_an_installed_package_can_announce_cards(tmp_path: Path):
    package = tmp_path / "my_cards"
    write(package, "__init__.py", "")
    write(package / "models", "mine.toml", METRIC)
    info = tmp_path / "my_cards-1.0.dist-info"
    write(
        write(info, "METADATA", "Metadata-Version: 2.1\nName: my-cards\nVersion: 1.0\n"),
        "entry_points.txt",
        "[harness.cards]\nmine = my_cards\n",
    )
    code = "from harness.models import find_model; print(find_model('mine').title)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.stdout.strip() == "Mine", done.stderr


def test_a_class_next_to_its_card_is_found_and_a_wrong_one_named_with_the_card(tmp_path: Path):
    write(write(tmp_path, "mine.toml", METRIC.replace("pkg.mod", "beside_the_card")), "beside_the_card.py", "class Mine: ...\n")
    card = find_model("mine", [tmp_path])
    assert resolve(card.class_, card.path).__name__ == "Mine"
    with pytest.raises(UsageError, match=r"mine\.toml: cannot import 'no_such_module'"):
        resolve("no_such_module:X", card.path)
    with pytest.raises(UsageError, match="did you mean 'Mine'"):
        resolve("beside_the_card:Mime", card.path)


def test_two_folders_may_each_hold_a_module_of_one_name(tmp_path: Path):
    for folder, word in (("a", "First"), ("b", "Second")):
        write(
            write(tmp_path / folder, "mine.toml", METRIC.replace("pkg.mod", "twice")),
            "twice.py",
            f"class Mine:\n    word = {word!r}\n",
        )
    cards = [find_model("mine", [tmp_path / folder]) for folder in ("a", "b")]
    assert [resolve(card.class_, card.path).word for card in cards] == ["First", "Second"]
