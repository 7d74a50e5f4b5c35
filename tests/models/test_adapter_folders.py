import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from lightning_jv5.models.adapter_folders import AdapterFolders
from lightning_jv5.models.lora import ADAPTER_CONFIG
from lightning_jv5.models.model_folder import DESCRIPTION, ModelFolder


def write(folder: Path, settings: dict[str, Any] | None = None, **described: Any) -> Path:
    """An adapter without weights: nothing here reads them."""
    folder.mkdir(parents=True)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings or {}))
    if described:
        plain = ModelFolder(**{"kind": "adapter", "prompts": {}, "max_length": {}, "dim": 8, **described}).to_plain()
        (folder / DESCRIPTION).write_text(json.dumps(plain))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write(folder / "adapters" / "sts", prompts={"query": "q"}, max_length={"query": 3})
    write(folder / "adapters" / "bare")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_models_adapters_are_known_by_their_folders_and_what_they_say(model: Path) -> None:
    adapters = AdapterFolders(str(model))
    assert (adapters.model, adapters.own_task) == (str(model), None)
    assert adapters.folders == {name: model / "adapters" / name for name in ("bare", "sts")}
    assert (adapters.prompts("sts"), adapters.max_length("sts")) == ({"query": "q"}, {"query": 3})
    for task in ("bare", None):
        assert adapters.prompts(task) is None
        assert adapters.max_length(task) is None


def test_what_is_no_model_has_no_adapters() -> None:
    adapters = AdapterFolders(None)
    assert (adapters.model, adapters.own_task, adapters.folders) == (None, None, {})
    with pytest.raises(ValueError, match=r"Got task 'sts'; .* has adapters for none. Use one of these names, or load"):
        adapters.folder("sts")


def test_adapters_of_the_hub_are_those_of_the_revision(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--ada--tiny"
    for revision, adapters in (("main", ["bare", "sts"]), ("old", ["sts"])):
        snapshot = cached / "snapshots" / revision
        for name in adapters:
            shutil.copytree(model / "adapters" / name, snapshot / "adapters" / name)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / revision).write_text(revision)
    found = AdapterFolders("ada/tiny")
    assert (found.model, found.own_task, list(found.folders)) == ("ada/tiny", None, ["bare", "sts"])
    assert found.prompts("sts") == {"query": "q"}
    assert list(AdapterFolders("ada/tiny", revision="old").folders) == ["sts"]


def test_the_hub_is_asked_only_for_adapters_that_are_wanted() -> None:
    adapters = AdapterFolders("organisation/name")  # tests are offline
    assert (adapters.model, adapters.own_task, adapters.prompts(None)) == ("organisation/name", None, None)
    with pytest.raises(ValueError, match=r"Cannot fetch the adapters of 'organisation/name' from the hub: .* Check"):
        adapters.folder("sts")


def test_a_merged_model_that_still_has_an_adapters_config_is_a_model(model: Path) -> None:
    (model / ADAPTER_CONFIG).write_text("{}")
    assert AdapterFolders(str(model)).own_task is None


def test_an_adapter_in_a_model_belongs_to_the_model_around_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(model / "adapters" / "own", task="own", base="../..")
    moved = model.rename(tmp_path / "moved")
    assert AdapterFolders(str(moved / "adapters" / "own")).model == str(moved)
    monkeypatch.chdir(moved / "adapters")
    assert AdapterFolders("own").model == ".."


def test_an_adapter_alone_is_called_for_its_task_and_belongs_to_the_model_that_it_names(
    model: Path, tmp_path: Path
) -> None:
    named = {"theirs": {"base_model_name_or_path": str(model)}}
    cases = [
        (write(tmp_path / "run7", task="sts", base=str(model)), "sts"),
        (write(tmp_path / "run8", base=str(model)), "run8"),
        (write(tmp_path / "run9", named["theirs"]), "run9"),
        (write(tmp_path / "run10", named["theirs"], task="sts"), "sts"),
    ]
    for folder, task in cases:
        adapters = AdapterFolders(str(folder))
        assert (adapters.model, adapters.own_task, adapters.folders) == (str(model), task, {task: folder})


def test_an_adapter_alone_whose_model_is_not_known_or_gone_is_refused(tmp_path: Path) -> None:
    for settings in ({}, {"base_model_name_or_path": None}, {"base_model_name_or_path": ""}):
        folder = write(tmp_path / f"bare{len(list(tmp_path.iterdir()))}", settings)
        with pytest.raises(ValueError, match=r"does not say of which model. Give the model.s path"):
            AdapterFolders(str(folder))
    with pytest.raises(ValueError, match=r"holds an adapter of a model that is not there: .*there is no such folder"):
        AdapterFolders(str(write(tmp_path / "gone", base="./nowhere")))


def test_added_adapters_have_a_name_of_their_own(model: Path, tmp_path: Path) -> None:
    adapters = AdapterFolders(str(model))
    folder = write(tmp_path / "run7", task="clustering", prompts={"query": "c"})
    assert adapters.add(str(folder)) == "clustering"
    assert adapters.add(str(folder), "other") == "other"
    assert adapters.prompts("other") == {"query": "c"}
    with pytest.raises(ValueError, match=r"Got a second adapter named 'sts', from .*run7'; the first is from .*/sts'"):
        adapters.add(str(folder), "sts")
    with pytest.raises(ValueError, match=r"which has no adapter_config\.json. Give an exported one"):
        adapters.add(str(tmp_path))
    with pytest.raises(ValueError, match=r"Got an adapter named 'a/b'"):
        adapters.add(str(folder), "a/b")
    adapters.remove("other")
    assert list(adapters.folders) == ["bare", "sts", "clustering"]
