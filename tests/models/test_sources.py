"""Weights from their sources, and `harness weights` from an empty folder, with a test server in place of the real hosts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tls_server import Play, Server

from harness.cards.loading import shipped
from harness.cards.schema import Weights
from harness.models.weights.locate import weights_folder
from harness.models.weights.sources import FetchFailed, fetch
from harness.runtime.errors import Unwritable

CONTENT = safetensors.torch.save({"a": torch.arange(3000.0)})
SHA = hashlib.sha256(CONTENT).hexdigest()
URL = "https://a.example/w.safetensors"


@pytest.fixture
def web(web: Server) -> Server:
    web.files = {"a.example/w.safetensors": CONTENT}
    return web


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def entry(*sources: str, sha256: str = "", size: int = 0) -> Weights:
    return Weights("vit", file="w.safetensors", sources=sources or (URL,), sha256=sha256, bytes=size)


def test_a_file_is_fetched_into_the_weights_folder(web: Server, folder: Path) -> None:
    path = fetch(entry(sha256=SHA, size=len(CONTENT)))
    assert path == folder / "w.safetensors" == weights_folder() / "w.safetensors"
    assert path.read_bytes() == CONTENT
    assert os.listdir(folder) == ["w.safetensors"]


def test_a_wrong_sha256_names_both_and_the_next_source_is_asked(web: Server, folder: Path) -> None:
    wrong = safetensors.torch.save({"a": torch.zeros(3)})
    web.files["a.example/old.safetensors"] = wrong
    assert fetch(entry("https://a.example/old.safetensors", URL, sha256=SHA)).read_bytes() == CONTENT
    (folder / "w.safetensors").unlink()
    with pytest.raises(FetchFailed) as caught:
        fetch(entry("https://a.example/old.safetensors", sha256=SHA))
    assert SHA in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert os.listdir(folder) == []


def test_what_is_no_weight_file_is_refused_where_no_sha256_is_known(web: Server, folder: Path) -> None:
    for content, word in ((b"no weights", "neither a safetensors nor a torch file"), (CONTENT[:-9], "damaged or cut short")):
        web.files["a.example/w.safetensors"] = content
        with pytest.raises(FetchFailed, match=word):
            fetch(entry())
        assert os.listdir(folder) == []


def test_every_source_that_failed_is_in_the_one_message(web: Server, folder: Path) -> None:
    sources = (
        "wheel:no_such_package_at_all/w.pth",
        "file:///nowhere/w.pth",
        "hf://short",
        "https://a.example/gone.pth",
        "http://a.example/plain.pth",
        "ftp://a.example/w.pth",
        "gdrive:../x",
    )
    with pytest.raises(FetchFailed) as caught:
        fetch(entry(*sources))
    lines = str(caught.value).splitlines()
    assert len(lines) == len(sources)
    assert all(line.startswith(f"{source}: ") for line, source in zip(lines, sources, strict=True))
    assert all(line.count(source) == 1 for line, source in zip(lines, sources, strict=True))
    assert "404" in lines[3]
    assert [asked.path for asked in web.asked] == ["/gone.pth"]
    with pytest.raises(FetchFailed, match="names no source"):
        fetch(Weights("vit", file="w.pth"))


def test_a_folder_that_cannot_be_written_is_a_fault_of_its_own(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "plain" / "weights"))
    with pytest.raises(Unwritable, match="cannot be written"):
        fetch(entry())


def test_local_sources_are_copied_and_checked(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "weightcarrier" / "data"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "w.safetensors").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for source in ("wheel:weightcarrier/data/w.safetensors", (package / "w.safetensors").as_uri()):
        path = fetch(entry(source, sha256=SHA))
        assert path.read_bytes() == CONTENT
        path.unlink()
        with pytest.raises(FetchFailed, match="sha256"):
            fetch(entry(source, sha256="0" * 64))
        assert os.listdir(folder) == []
    assert (package / "w.safetensors").read_bytes() == CONTENT


# The commands, from empty folders


class Commands:
    """`harness` in processes of its own, with AHIQ's card as it is but for the sizes and hashes of small files."""

    def __init__(self, web: Server, folder: Path) -> None:
        self.web, self.folder = web, folder
        self.contents = {
            name: safetensors.torch.save({name: torch.arange(1000.0) + i}) for i, name in enumerate(("vit", "resnet50", "heads"))
        }
        card = (shipped("models") / "ahiq.toml").read_text(encoding="utf-8")
        for known, name in (("773525d5", "resnet50"), ("da3ea303b", "heads")):
            old = next(line for line in card.splitlines() if line.startswith(f'sha256 = "{known}'))
            card = card.replace(old, f'sha256 = "{hashlib.sha256(self.contents[name]).hexdigest()}"')
        card = card.replace("bytes = 326044337", f"bytes = {len(self.contents['heads'])}")
        (folder / "cards" / "models").mkdir(parents=True)
        (folder / "cards" / "datasets").mkdir()
        (folder / "cards" / "models" / "ahiq.toml").write_text(card, encoding="utf-8")
        for name, tag in (("vit", "vit_base_patch8_224.augreg_in21k_ft_in1k"), ("resnet50", "resnet50.a1_in1k")):
            web.usual[f"huggingface.co/timm/{tag}/resolve/main/model.safetensors"] = Play(
                location=f"https://cdn-lfs.huggingface.co/{name}?signature=1",
                headers={"X-Linked-ETag": f'"{hashlib.sha256(self.contents[name]).hexdigest()}"', "X-Repo-Commit": "a" * 40},
            )
            web.files[f"cdn-lfs.huggingface.co/{name}"] = self.contents[name]
        self.heads = "AHIQ_vit_p8_epoch33-da3ea303.pth"
        self.hub_heads = f"huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{self.heads}"
        self.github_heads = f"github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/{self.heads}"

    def __call__(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        code = f"""
import sys, pathlib
from harness.cards import loading
loading.shipped = lambda place: pathlib.Path({str(self.folder / "cards")!r}) / place
from harness.cli.main import main
sys.argv = ["harness", *{list(words)!r}]
main()
"""
        places = {
            name: str(self.folder / name.lower()) for name in ("HARNESS_WEIGHTS", "HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME")
        }
        own = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_CACHE", "HF_TOKEN")}
        environment = {**own, **self.web.environment(), **places, **variables}
        return subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=False)


@pytest.fixture
def harness(web: Server, tmp_path: Path) -> Commands:
    return Commands(web, tmp_path)


@pytest.mark.slow
def test_weights_get_and_check_from_empty_folders(harness: Commands, web: Server, tmp_path: Path) -> None:
    before = harness("weights", "check", "ahiq")
    assert before.returncode == 1
    for word in ("vit (always): missing", "looked for: ", "hf://timm/resnet50.a1_in1k/model.safetensors", "licence Apache-2.0"):
        assert word in before.stdout
    got = harness("weights", "get", "ahiq")
    assert got.returncode == 0, got.stderr
    assert "ahiq: 2 weight files to fetch" in got.stderr
    assert len(got.stdout.splitlines()) == 2
    checked = harness("weights", "check", "ahiq")
    assert checked.returncode == 0, checked.stdout
    assert "heads (released): missing (optional: only --weights released needs it)" in checked.stdout
    assert harness("weights", "check", "ahiq-none").returncode == 2
    # The heads: the hub has lost them, GitHub fails once.
    web.files[harness.github_heads] = harness.contents["heads"]
    web.plays[harness.github_heads] = [Play(503)]
    rest = harness("weights", "get", "ahiq", "--use", "released")
    assert rest.returncode == 0, rest.stderr
    assert f"ahiq: 1 weight file to fetch ({len(harness.contents['heads']) / 1e3:.1f} kB)" in rest.stderr
    rows = json.loads(harness("weights", "check", "ahiq", "--json").stdout)
    assert [row["ok"] for row in rows] == [True] * 3
    assert [row["status"] for row in rows] == ["ok"] * 3
    kept = {path.name for path in (tmp_path / "harness_weights").iterdir()} - {"sha256.json"}
    assert len(kept) == 3


@pytest.mark.slow
def test_weights_get_that_finds_nothing_ends_with_1_and_addresses(harness: Commands, web: Server, tmp_path: Path) -> None:
    web.usual.clear()
    for words, variables in (
        (("weights", "get", "ahiq", "--offline"), {}),
        (("weights", "get", "ahiq"), {"HF_HUB_OFFLINE": "1"}),
    ):
        closed = harness(*words, **variables)
        assert closed.returncode == 1
        assert "the network must not be used" in closed.stderr
    assert not web.asked
    gone = harness("weights", "get", "ahiq")
    assert gone.returncode == 1
    assert "HTTP status 404" in gone.stderr
    assert f"put the files yourself into {tmp_path / 'harness_weights'}" in gone.stderr
    assert "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.slow
def test_the_users_token_goes_to_the_hub_and_not_to_its_store(harness: Commands, web: Server) -> None:
    assert harness("weights", "get", "ahiq", HF_TOKEN="hf_secret").returncode == 0
    for asked in web.asked:
        assert (asked.headers.get("Authorization") == "Bearer hf_secret") == (asked.host == "huggingface.co")


@pytest.mark.slow
def test_run_with_an_address_for_weights_says_what_to_type(harness: Commands) -> None:
    refused = harness("score", "ahiq", "a.png", "b.png", "--weights", "hf://chaofengc/IQA-PyTorch-Weights/" + harness.heads)
    assert refused.returncode == 2
    assert "Use --weights released, which downloads it" in refused.stderr
