"""The page in a browser, where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightning_jv5.search.searcher import Searcher
from lightning_jv5.search.server import SearchServer
from tests.search.conftest import HOSTILE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to run the page's JavaScript")


class Elements(HTMLParser):
    """Tag, attributes and text of every element with an id or a class."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[list[str]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), texts := []))
        if tag not in ("meta", "link", "input", "img", "br"):
            self._open.append(texts)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for texts in self._open:
            texts.append(data)

    def texts(self, **attributes: str) -> list[str]:
        """Texts of the visible elements with these attributes; ``klass`` is one of the classes."""
        wanted = attributes.pop("klass", None)
        return [
            " ".join("".join(texts).split())
            for _, has, texts in self.found
            if all(has.get(name) == value for name, value in attributes.items())
            and (wanted is None or wanted in (has.get("class") or "").split())
            and "hidden" not in has
        ]


def page(server: SearchServer, folder: Path, query: str = "") -> Elements:
    """The page once its scripts have run."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    ended = subprocess.run(
        [*command, "--virtual-time-budget=10000", "--dump-dom", f"{server.url}{query}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return Elements(ended.stdout)


def test_a_search_shows_both_rankings_and_what_became_of_each_hit(
    server: SearchServer, searcher: Searcher, tmp_path: Path
) -> None:
    shown = page(server, tmp_path, "?q=the+red+cat+on+the+mat&dim=8&precision=binary&depth=5&task=retrieval")
    found = searcher.search("the red cat on the mat", dim=8, precision="binary", task="retrieval", depth=5)
    sides = found["reference"]["hits"], found["view"]["hits"]
    assert shown.texts(klass="text") == [" ".join(hit["text"].split()) for hits in sides for hit in hits]
    lost = [hit for hit in sides[0] if hit["other_rank"] > 5]
    assert 0 < len(lost) < 5  # or nothing is tested
    assert len(shown.texts(klass="lost")) == len(shown.texts(klass="new")) == len(lost)
    marks = shown.texts(klass="mark")
    for mark, hit in zip(marks[:5], sides[0], strict=True):
        assert mark == "✓ kept" if hit["other_rank"] <= 5 else re.match(rf"✕ lost: {hit['other_rank']}\w\w in", mark)
    for mark, hit in zip(marks[5:], sides[1], strict=True):
        moved = hit["other_rank"] - hit["rank"]
        if hit["other_rank"] > 5:
            assert mark.startswith(f"+ new: {hit['other_rank']}")
        else:
            assert mark == (
                "= same rank" if not moved else f"{'▲' if moved > 0 else '▼'} {abs(moved)} (was {hit['other_rank']})"
            )
    [figures] = shown.texts(id="figures")
    assert f"Hits kept{found['kept']} of 5" in figures
    assert "Bytes per vector1" in figures
    assert "1/128 of 128" in figures
    [score] = {text.split(" · ")[0] for text in shown.texts(klass="score")[5:6]}
    assert score == f"{round((1 - sides[1][0]['score']) * 4)} of 8 bits differ"
    assert not shown.texts(id="error")  # hidden
    assert shown.texts(id="dim") == ["32 (all)168"]


def test_hostile_texts_are_shown_and_never_run(server: SearchServer, tmp_path: Path) -> None:
    shown = page(server, tmp_path, f"?q={'%3Cimg src=x onerror=document.title=1%3E'.replace(' ', '%20')}&depth=50")
    texts = shown.texts(klass="text")
    assert {" ".join(text.split()) for text in HOSTILE} <= set(texts)
    assert [texts for tag, _, texts in shown.found if tag == "title"] == [["Search: what fewer dims and bits cost"]]
    assert not {"img", "b"} & {tag for tag, *_ in shown.found}
    assert len([tag for tag, *_ in shown.found if tag == "script"]) == 1
    assert not [name for _, has, _ in shown.found for name in has if name.startswith("on")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?q=", "Got an empty query; need some words to search for."),
        ("?q=cat&dim=1000", "Got dim '1000'; need a whole number from 1 to 32."),
        ("?q=cat&precision=<b>", "Got precision '<b>'; need one of float, int8, binary, asymmetric, rescored."),
    ],
)
def test_errors_are_messages_in_the_page(server: SearchServer, tmp_path: Path, query: str, message: str) -> None:
    shown = page(server, tmp_path, query)
    assert shown.texts(role="alert") == [message]
    assert not shown.texts(id="results")


def test_the_page_waits_for_a_query_and_offers_what_there_is(server: SearchServer, tmp_path: Path) -> None:
    shown = page(server, tmp_path)
    assert not shown.texts(id="results")
    assert not shown.texts(role="alert")
    assert shown.texts(id="precision") == ["floatint8binaryasymmetricrescored"]
    assert shown.texts(id="task") == ["noneretrieval"]
    assert "23 texts of " in shown.texts(id="about")[0]
    labelled = re.findall(r"\w+", " ".join("".join(texts) for tag, _, texts in shown.found if tag == "label"))
    assert {"Query", "Dims", "Precision", "Task", "Hits"} <= set(labelled)
