import http.client
import importlib.resources
import json
import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from lightning_jv5.search.searcher import Searcher
from lightning_jv5.search.server import SearchServer, is_loopback
from tests.search.conftest import HOSTILE


def get(server: SearchServer, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)  # type: ignore[misc]
    connection.request("GET", path, headers=dict(headers or {}))
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content, answer.headers


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]
)
def test_the_files_of_the_page_are_served(server: SearchServer, path: str, kind: str) -> None:
    status, content, headers = get(server, path)
    assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    assert len(content) > 500
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_deep_link_is_the_page(server: SearchServer) -> None:
    assert get(server, "/?q=cat&dim=16")[1] == get(server, "/")[1]


def test_the_page_names_nothing_outside_the_package() -> None:
    for file in ("index.html", "page.css", "page.js"):
        content = (importlib.resources.files("lightning_jv5.search") / "page" / file).read_text()
        assert not re.findall(r"(?:https?:)?//[\w-]+\.\w", content)
        assert "innerHTML" not in content
        assert not re.findall(r"\son\w+=|<style|style=", content)


def test_search_answers_as_json(server: SearchServer, searcher: Searcher) -> None:
    status, content, headers = get(server, "/search?q=the+red+cat&dim=16&precision=binary&task=retrieval&depth=3")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    found = json.loads(content)
    expected = searcher.search("the red cat", dim=16, precision="binary", task="retrieval", depth=3)
    assert found["view"]["hits"] == expected["view"]["hits"]
    assert found["reference"]["hits"] == expected["reference"]["hits"]
    assert json.loads(get(server, "/about")[1]) == searcher.about()


def test_searches_at_the_same_time_are_answered_as_one_after_the_other(server: SearchServer) -> None:
    def hits(asked: tuple[str, str]) -> Any:
        found = json.loads(get(server, f"/search?q=the+slow+dog&dim=16&precision={asked[0]}&task={asked[1]}")[1])
        return [[hit["row"] for hit in found[side]["hits"]] for side in ("reference", "view")]

    asked = [(precision, task) for precision in ("float", "binary", "rescored") for task in ("none", "retrieval")]
    expected = [hits(one) for one in asked]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(hits, 4 * asked)) == 4 * expected


def test_letters_of_any_script_come_through(server: SearchServer) -> None:
    assert json.loads(get(server, f"/search?q={quote('größe 大小 <b>&')}")[1])["query"] == "größe 大小 <b>&"


def test_texts_of_the_corpus_come_as_they_are(server: SearchServer) -> None:
    found = json.loads(get(server, "/search?q=a&depth=50")[1])
    assert set(HOSTILE) <= {hit["text"] for hit in found["view"]["hits"]}


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/search?q=", 400, "Got an empty query"),
        ("/search?q=a&dim=1000", 400, "Got dim '1000'; need a whole number from 1 to 32"),
        ("/search?q=a&precision=half", 400, "Got precision 'half'"),
        ("/search?q=a&task=x", 400, "Start search with --tasks=[x]"),
        ("/sarch?q=a", 404, "There is no /sarch; there are /, /about and /search"),
        ("/../pyproject.toml", 404, "There is no /../pyproject.toml"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(server: SearchServer, path: str, status: int, message: str) -> None:
    found, content, _ = get(server, path)
    assert found == status
    assert message in json.loads(content)["error"]


def test_names_of_other_sites_that_point_here_are_refused(server: SearchServer) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", "", "[", "[::1", "[x]", "a]b"):
        status, content, _ = get(server, "/search?q=a", {"Host": name})
        assert (status, "need one for localhost" in content) == (403, True)
    for name in ("localhost:9999", "127.0.0.1", "[::1]:80"):
        assert get(server, "/about", {"Host": name})[0] == 200


@pytest.mark.parametrize("name", ["[", "[::1"])
def test_a_host_that_is_none_is_no_failure(server: SearchServer, capfd: pytest.CaptureFixture[str], name: str) -> None:
    assert get(server, "/", {"Host": name})[0] == 403
    assert get(server, f"HTTP://{name}/")[0] == 400  # in capitals, as the client reads the others itself
    assert not capfd.readouterr().err


def test_a_failure_is_told_in_the_terminal_not_in_the_page(
    server: SearchServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(asked: Any) -> Any:
        raise RuntimeError("secret path")

    monkeypatch.setattr(server.searcher, "answer", fail)
    status, content, _ = get(server, "/search?q=a")
    assert (status, "secret" in content) == (500, False)
    assert "RuntimeError: secret path" in capfd.readouterr().err
    assert get(server, "/about")[0] == 200  # and it goes on


def test_only_this_machine_is_let_in_by_default(server: SearchServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"
    assert [is_loopback(host) for host in ("localhost", "::1", "127.0.0.2")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "localhost.example", "")] == [False] * 4


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_this_machine_can_be_named_by_its_address_of_ipv6(searcher: Searcher, host: str) -> None:
    with SearchServer(searcher, host, port=0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert server.url == f"http://[::1]:{server.server_address[1]}/"
            assert urlopen(f"{server.url}about", timeout=20).status == 200
            assert get(server, "/about", {"Host": "evil.example"})[0] == 403
        finally:
            server.shutdown()
            thread.join()


def test_a_host_that_this_machine_is_not_is_refused(searcher: Searcher) -> None:
    with pytest.raises(ValueError, match=r"Cannot listen on 192\.0\.2\.1.*and a host that this machine has"):
        SearchServer(searcher, "192.0.2.1", port=0)


def test_a_port_that_is_taken_is_named(server: SearchServer, searcher: Searcher) -> None:
    port = server.server_address[1]
    with pytest.raises(ValueError, match=f"Cannot listen on 127.0.0.1, port {port}: .*Name another port"):
        SearchServer(searcher, port=port)


def test_a_port_that_cannot_be_is_refused(searcher: Searcher) -> None:
    with pytest.raises(ValueError, match="Got port 65536; need 1 to 65535, or 0"):
        SearchServer(searcher, port=65536)
