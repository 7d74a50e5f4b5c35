"""The commands and settings that the README and the docs show are those that there are."""

import re
import shlex
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


def commands_in(text: str) -> list[tuple[str, list[str]]]:
    """Every command of ours in a text, and the words after it, those on continued lines among them."""
    found = re.findall(r"-m lightning_jv5 (\w+)([^`\n]*)", re.sub(r"\s*\\\n\s*", " ", text))
    # README says after two spaces what a line does, and dots stand for more of the same
    return [(name, shlex.split(words.strip().partition("  ")[0].replace(", ...", ""))) for name, words in found]


def without_configs(words: list[str]) -> tuple[list[str], list[str]]:
    """Part words in options and names of configs."""
    options, configs, rest = [], [], iter(words)
    for word in rest:
        flag, equals, name = word.partition("=")
        if flag == "--config":
            configs.append(name if equals else next(rest))
        else:
            options.append(word)
    return options, configs


def check_commands(commands: list[tuple[str, list[str]]]) -> None:
    """Have the options of commands parsed, as they would be, but for configs."""
    of_trainer: dict[str, list[str]] = {}
    for command, words in commands:
        assert command in COMMANDS
        options, configs = without_configs(words)
        assert set(configs) <= {"mine.yaml", "embed.yaml", *config_names(packaged_configs())}
        if command in FUNCTIONS:
            parse(command, options)
        else:  # together, as their parser takes a second; of the same option the last one counts
            of_trainer[command] = [*of_trainer.get(command, []), *options]
    for command, options in of_trainer.items():
        parse(command, options)


def parse(command: str, options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, *(option for option in options if option != "--print_config"), "--print_config"])
    assert ended.value.code == 0, f"{command} {shlex.join(options)}"


PAGES = {page: commands_in(page.read_text()) for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}


@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if found], ids=lambda page: page.stem)
def test_the_commands_of_a_page_name_what_there_is(page: Path) -> None:
    check_commands(PAGES[page])


def test_commands_are_found_on_continued_lines_and_behind_launchers() -> None:
    nodes = ["--trainer.num_nodes=2", "--trainer.devices=8"]
    configs = ["jina_v5_small/distill.yaml", "jina_v5_hub/distill.yaml"]
    found = [(command, *without_configs(words)) for command, words in PAGES[ROOT / "docs" / "scaling.md"]]
    assert found.count(("fit", nodes, configs)) == 2  # srun and torchrun
    assert sum(command == "embed" for command, _ in PAGES[ROOT / "docs" / "teacher_vectors.md"]) == 4
    assert ("fit", ["--config", "small.yaml", "--print_config"]) in PAGES[ROOT / "README.md"]
    assert sum(map(len, PAGES.values())) > 50


@pytest.mark.parametrize(
    "text",
    [
        "srun \\\n    python -m lightning_jv5 fit \\\n    --trainer.num_node=2",
        "torchrun -m lightning_jv5 fit --config smal.yaml",
        "python -m lightning_jv5 validate --model.student.pth DIR",
        "python -m lightning_jv5 mine --pairs lightning_jv5.data.BeirFolder --pairs.pth scifact",
        "python -m lightning_jv5 convert --layout flat",
        "`python -m lightning_jv5 fitt`",
    ],
)
def test_a_slip_in_a_command_is_seen(text: str) -> None:
    [command] = commands_in(text)
    with pytest.raises(AssertionError):
        check_commands([command])
