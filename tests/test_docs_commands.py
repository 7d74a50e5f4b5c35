"""The commands and settings that the README and the docs show are those that there are."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

from lightning_jv5.cli import COMMANDS, main
from lightning_jv5.config_files import config_names, packaged_configs
from lightning_jv5.data_commands import FUNCTIONS
from tests.doc_pages import ROOT, yaml_blocks


def test_the_readmes_own_config_goes_on_top_of_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [mine] = yaml_blocks(ROOT / "README.md")
    Path("mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=small.yaml", "--config=mine.yaml", "--print_config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["batch_size"] == mine["data"]["batch_size"]
    teacher = printed["model"]["init_args"]["teacher"]
    assert teacher["init_args"]["path"] == mine["model"]["teacher"]["path"]


@pytest.mark.parametrize("page", ["index", "scaling"])
def test_the_settings_of_a_page_go_on_top_of_the_packaged_ones(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [mine] = yaml_blocks(ROOT / "docs" / f"{page}.md")
    Path("mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=small.yaml", "--config=mine.yaml", "--print_config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    strategy = mine["trainer"].pop("strategy", None)
    assert mine["trainer"].items() <= printed.items()
    assert strategy is None or strategy["init_args"].items() <= printed["strategy"]["init_args"].items()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(f"docs/{page}.md" for page in ("adapters", "deploy", "index", "recipe", "scaling", "sentence_transformers")),
    ],
)
def test_the_commands_of_a_page_name_what_there_is(page: str) -> None:
    commands = re.findall(r"python -m lightning_jv5 (\w+)((?:[^`\n]|\\\n)*)", (ROOT / page).read_text())
    assert commands
    for command, words in commands:
        assert command in COMMANDS
        for name in re.findall(r"--config[= ](\S+\.yaml)", words):
            assert name in {"mine.yaml", "embed.yaml"} or name in config_names(packaged_configs())
        if command in FUNCTIONS:
            module, _, function = FUNCTIONS[command].partition(":")
            known = {*inspect.signature(getattr(importlib.import_module(module), function)).parameters, "config"}
            assert set(re.findall(r"--(\w+)", words)) <= known
