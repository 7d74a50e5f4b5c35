"""The search page over HTTP: the standard library's server, three files and two JSON answers."""

import importlib.resources
import ipaddress
import json
import socket
import sys
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from lightning_jv5.search.searcher import Searcher

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Texts of a corpus are shown as they are, so that not even a mistake in the page could run what is in them
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class SearchServer(ThreadingHTTPServer):
    """Serve the page of a searcher.

    ``/`` is the page, ``/about`` what can be asked, ``/search?q=...&dim=...&precision=...&task=...&depth=...`` what
    :meth:`Searcher.answer` gives. What is wrong with a request is ``{"error": ...}`` with status 400.

    Args:
        searcher: Answers.
        host: Where to listen: a name or an address, of IPv6 too.
        port: Where to listen; 0 for any port that is free.

    Attributes:
        url: Address of the page.

    Raises:
        ValueError: If nothing can listen there.
    """

    daemon_threads = True

    def __init__(self, searcher: Searcher, host: str = "127.0.0.1", port: int = 8000) -> None:
        self.searcher, self.host = searcher, host
        if not 0 <= port <= 65535:
            raise ValueError(f"Got port {port}; need 1 to 65535, or 0 for any port that is free.")
        address = host.strip("[]")
        if ":" in address:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            raise ValueError(
                f"Cannot listen on {host}, port {port}: {error.strerror or error}. Is another server there? Name "
                "another port, or 0 for any that is free; and a host that this machine has."
            ) from error
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{self.server_address[1]}/"


def is_loopback(host: str) -> bool:
    """Return whether a host name is this machine's own, which no other machine reaches.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without its port; nothing where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as "["
        return ""


class _Handler(BaseHTTPRequestHandler):
    server: SearchServer
    server_version = "lightning_jv5"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request."""
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError):  # a page that was closed, or has asked again
            self.close_connection = True
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._json({"error": "The server failed; its terminal says how."}, 500)

    def _answer(self) -> None:
        # A foreign site may have its name point here, and its scripts would read the corpus
        host = self.headers.get("Host", "")
        if is_loopback(self.server.host) and not is_loopback(_name_of(host)):
            self._json({"error": f"Got a request for the host {host!r}; need one for localhost."}, 403)
            return
        try:
            asked = urlsplit(self.path)
        except ValueError as error:
            self._json({"error": f"Got the address {self.path!r}: {error}. There are /, /about and /search?q=..."}, 400)
            return
        if asked.path in _FILES:
            file, kind = _FILES[asked.path]
            content = (importlib.resources.files(__package__) / "page" / file).read_bytes()
            self._send(content, f"{kind}; charset=utf-8", 200)
        elif asked.path == "/about":
            self._json(self.server.searcher.about(), 200)
        elif asked.path == "/search":
            try:
                found = self.server.searcher.answer(dict(parse_qsl(asked.query, keep_blank_values=True)))
            except ValueError as error:
                self._json({"error": str(error)}, 400)
            else:
                self._json(found, 200)
        else:
            self._json({"error": f"There is no {asked.path}; there are /, /about and /search?q=..."}, 404)

    def _json(self, content: Any, status: int) -> None:
        self._send(json.dumps(content, ensure_ascii=False).encode(), "application/json; charset=utf-8", status)

    def _send(self, content: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for what matters."""
