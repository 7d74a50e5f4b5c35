"""The command mine, and the page about it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from lightning_jv5.cli import main
from lightning_jv5.data import LocalFiles
from tests.doc_pages import ROOT, yaml_blocks
from tests.tiny_beir import write_beir
from tests.tiny_configs import write_pairs
from tests.tiny_models import save_tiny_sentence_transformer

PAGE = ROOT / "docs" / "hard_negatives.md"
SMALL = ["--negatives=2", "--depth=3", "--relative_margin=null"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with all that the page speaks of, tiny."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    corpus = [
        {"_id": f"d{row}", "text": text} for row, text in enumerate(["a cat", "a dog", "the mat", "a tree", "red"])
    ]
    queries = [{"_id": "q1", "text": "what is a cat"}, {"_id": "q2", "text": "who sat on the mat"}]
    write_beir(tmp_path / "scifact", corpus, queries, [("q1", "d0", 1), ("q2", "d2", 1)])
    write_pairs(tmp_path / "pairs.jsonl", count=12)
    Path("corpus.jsonl").write_text('{"text": "the slow dog"}\n')
    save_tiny_sentence_transformer(tmp_path / "model")
    return tmp_path


def mine(*words: str) -> None:
    main(["mine", *words])


def beir(*words: str, output: str = "mined") -> list[str]:
    pairs = ["--pairs", "lightning_jv5.data.BeirFolder", "--pairs.path", "scifact"]
    return [*pairs, "--model.path", "model", "--output", output, *SMALL, *words]


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        mine(*words)
    assert ended.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_it_writes_pairs_with_negatives_and_prints_what_was_dropped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine(*beir())
    rows = pq.read_table(folder / "mined" / "pairs.parquet").to_pylist()
    assert [(row["query"], row["document"]) for row in rows] == [
        ("what is a cat", "a cat"),
        ("who sat on the mat", "the mat"),
    ]
    assert all(row["negative"] and row["negative_2"] for row in rows)
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert (printed["rows"], printed["documents"], printed["negatives"]) == ("2", "5", "4")


def test_a_config_says_the_same_as_options(folder: Path) -> None:
    config: dict[str, Any] = {
        "pairs": {"class_path": "lightning_jv5.data.BeirFolder", "init_args": {"path": "scifact"}},
        "model": {"path": "model"},
        "output": "other",
        "negatives": 2,
        "depth": 3,
        "relative_margin": None,
    }
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    mine("--config=mine.yaml")
    mine(*beir())
    assert (folder / "other" / "pairs.parquet").read_bytes() == (folder / "mined" / "pairs.parquet").read_bytes()


def test_help_and_the_whole_config_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "--print_config"):
        with pytest.raises(SystemExit) as ended:
            mine(*(beir(word) if word == "--print_config" else [word]))
        assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "By how much a negative must be less similar" in printed
    assert "margin_from: lowest" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dept=3"], "error: --dept: no key dept; did you mean depth?"),
        (["--pairs.pth=x"], "no key pth in pairs; did you mean path?"),
        (["--pairs.split=trian"], "Did you mean 'scifact/qrels/train.tsv'?"),
        (["--depth=1"], "Got depth 1, of which skip_top leaves out 0; need at least 2"),
        (["--depth=many"], "--depth: expected int, got 'many'"),
        (["--model.path=modle"], "modle"),
        (["--sampling=best"], "sampling"),
    ],
)
def test_errors_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert message in error_of(capsys, *beir(*words))


def test_an_output_that_exists_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mined").mkdir()
    assert "Got output 'mined', which exists already" in error_of(capsys, *beir())


# The page


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.strip().splitlines()]


def test_what_the_page_shows_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    margin = "--relative_margin=null"  # the tiny texts are no match for the default one
    for command in commands():
        assert command[:3] == ["python", "-m", "lightning_jv5"]
        main([*command[3:], margin])
    training, mining = yaml_blocks(PAGE)
    Path("mine.yaml").write_text(yaml.safe_dump(mining))
    mine("--config=mine.yaml", margin)
    [summary] = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    printed = [line.rsplit(maxsplit=1)[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert printed[:14] == [line.rsplit(maxsplit=1)[0] for line in summary.splitlines()]

    source = training["data"]["train"]
    rows = LocalFiles(**source["init_args"]).load()
    assert {"query", "document", "negative", "negative_7"} <= set(rows.column_names)
    Path("train.yaml").write_text(yaml.safe_dump(training))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=small.yaml", "--config=train.yaml", "--print_config"])
    assert ended.value.code == 0
    printed_source = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["train"]
    assert printed_source["class_path"] == source["class_path"]
    assert printed_source["init_args"]["paths"] == source["init_args"]["paths"]
