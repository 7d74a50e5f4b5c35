"""The command ``search``, and what its page in the docs says of it and of ``load``."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest

from lightning_jv5 import Embedder, Teacher
from lightning_jv5.cli import main
from lightning_jv5.data import Docstrings, LocalFiles
from lightning_jv5.data.embed_columns import embed_columns
from lightning_jv5.search import corpus as corpus_module
from lightning_jv5.search.server import SearchServer
from tests.doc_pages import ROOT, blocks
from tests.models.tiny_adapters import write_adapter
from tests.search.test_corpus import write, write_predicted
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer

PAGE = ROOT / "docs" / "search.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    model = save_tiny_sentence_transformer("models/small")
    write_adapter(Path("models/small/adapters/clustering"), model)
    write("corpus.jsonl", TEXTS)
    write("papers.jsonl", TEXTS, "abstract")
    Path("lines.txt").write_text("\n".join(TEXTS))
    return tmp_path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[SearchServer]:
    """The servers that commands started, each of which Ctrl-C stops at once."""
    servers: list[SearchServer] = []

    def stop(server: SearchServer) -> None:
        servers.append(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchServer, "serve_forever", stop)
    return servers


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["search", *words])
    assert ended.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


# A shell's background jobs, and what they start, ignore Ctrl-C
INTERRUPTIBLE = """
import signal
from lightning_jv5.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def test_a_server_answers_until_it_is_interrupted(folder: Path) -> None:
    words = ["search", "--model", "models/small", "--corpus", "corpus.jsonl", "--port", "0"]
    running = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert running.stdout is not None
    try:
        lines = []
        while not (lines and lines[-1].startswith("Search")):
            lines.append(running.stdout.readline())
            assert lines[-1], running.communicate()[1]
        assert lines[0] == "Encoding 6 texts, once\n"
        [url] = re.findall(r"Search 6 texts at (http://127\.0\.0\.1:\d+/)", lines[-1])
        with urllib.request.urlopen(f"{url}search?q=the+cat&dim=16&depth=2", timeout=60) as answer:
            found = json.load(answer)
        assert [hit["rank"] for hit in found["view"]["hits"]] == [1, 2]
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert rest.strip() == "Stopped after 1 search."
    assert "Traceback" not in said


def test_whoever_lets_others_in_is_told(
    folder: Path, served: list[SearchServer], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model=models/small", "--corpus=lines.txt", "--port=0"]
    main(["search", *words])
    assert "can read the corpus" not in capsys.readouterr().out
    main(["search", *words, "--host=0.0.0.0"])
    assert "Whoever reaches 0.0.0.0 can read the corpus." in capsys.readouterr().out
    assert [server.server_address[0] for server in served] == ["127.0.0.1", "0.0.0.0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=./modle"], "Got path './modle', but there is no such folder"),
        (["--corpus=corpus.json"], "Did you mean 'corpus.jsonl'?"),
        (["--tasks=[sorting]"], "Got task 'sorting'; the embedder has adapters for clustering"),
        (["--prt=80"], "--prt: no key prt; did you mean port?"),
        (["--port=eighty"], "--port: expected int, got 'eighty'"),
        (["--port=99999"], "Got port 99999; need 1 to 65535"),
        (["--device=gpu"], "Got device 'gpu'; need one such as cpu, cuda or cuda:1"),
        (["--texts=corpus.jsonl"], "which has its own. Leave texts out"),
    ],
)
def test_wrong_options_are_one_line(
    folder: Path, served: list[SearchServer], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in error_of(capsys, "--model=models/small", "--corpus=corpus.jsonl", "--port=0", *words)
    assert not served


def test_the_overview_and_the_help_tell_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in ((["--help"], "search    search a corpus in a page"), (["search", "--help"], "--corpus")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        assert said in capsys.readouterr().out


# The page


def test_the_commands_of_the_page_work(
    folder: Path, served: list[SearchServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        corpus_module, "Docstrings", lambda split, rows: Docstrings(split, rows=8, packages=["peft"], heldout=10)
    )
    embed_columns(LocalFiles("corpus.jsonl"), Teacher("models/small"), "corpus-vectors")
    write_predicted("predicted", Embedder("models/small").encode(TEXTS), list(range(len(TEXTS))))
    commands = [shlex.split(line) for block in blocks(PAGE, "sh") for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands[:-1]:
        assert command[:4] == ["python", "-m", "lightning_jv5", "search"]
        main([*command[3:], "--port=0"])
        assert "Stopped after 0 searches." in capsys.readouterr().out
    assert [len(server.searcher.corpus.texts) for server in served] == [8, *[len(TEXTS)] * 5]
    assert list(served[2].searcher.corpus.vectors) == [None, "clustering"]

    address = urlsplit(commands[-1][1])
    assert (commands[-1][0], address.netloc, address.path) == ("curl", "127.0.0.1:8000", "/search")
    found = served[0].searcher.answer(dict(parse_qsl(address.query)))
    sentence = PAGE.read_text().split("`reference` and `view` have")[1].split(";")[0]
    named = set(re.findall(r"`(\w+)`", sentence))
    assert named <= {*found["view"], *found["view"]["hits"][0]}
    assert {"hits", "other_rank", "bytes_per_vector"} <= named


def test_the_python_of_the_page_runs(folder: Path) -> None:
    [code] = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(code, names)
    shapes = {name: tuple(names[name].shape) for name in ("documents", "query", "scores", "short", "codes", "topics")}
    assert shapes == {
        "documents": (2, 32),
        "query": (32,),
        "scores": (1, 2),
        "short": (1, 16),
        "codes": (1, 2),
        "topics": (1, 32),
    }
    assert isinstance(names["documents"], np.ndarray)
