"""The command ``search``."""

from dataclasses import dataclass

from lightning_jv5.encoder import load
from lightning_jv5.search.corpus import open_corpus
from lightning_jv5.search.searcher import NO_TASK, Searcher
from lightning_jv5.search.server import SearchServer, is_loopback


@dataclass(frozen=True)
class Served:
    """What a server did until it was stopped.

    Attributes:
        searches: How many queries it answered.
    """

    searches: int

    def summary(self) -> str:
        """Say how many queries were answered."""
        return f"Stopped after {self.searches} {'search' if self.searches == 1 else 'searches'}."


def search(
    model: str,
    corpus: str | None = None,
    *,
    texts: str | None = None,
    columns: dict[str, str] | None = None,
    tasks: list[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
) -> Served:
    """Serve a page that searches a corpus and shows what fewer dims and fewer bits cost, until Ctrl-C.

    The page has two rankings side by side: that of whole floats, and that of the dims and the precision that are
    chosen. Everything it needs comes with the package; nothing is fetched from elsewhere. ``/search?q=...`` gives the
    same as JSON.

    Args:
        model: A model folder, a hub id, or ``package://name/sub/path`` inside an installed package.
        corpus: A folder that embed or EmbeddingWriter wrote; JSON lines, CSV or Parquet with a column ``document`` or
            ``text``, or a ``.txt`` file of lines, which are encoded once and kept in the cache. By default the
            docstrings of installed packages.
        texts: For a folder of EmbeddingWriter: the file of its texts, in the same order.
        columns: From our name (``document`` or ``text``) to the files' own.
        tasks: Which adapters of the model to offer; ``none`` is the model without one.
        host: Where to listen. The default lets only this machine in; ``0.0.0.0`` everyone who reaches it.
        port: Where to listen; 0 for any port that is free.
        device: Such as cpu or cuda:1; by default the first GPU, or the CPU where there is none.

    Returns:
        What was served.

    Raises:
        ValueError: If model or corpus are wrong or do not fit each other, or the port is taken.

    Example::

        search("runs/small/model", "corpus.jsonl", port=8080)
    """
    encoder = load(model, device)
    wanted = None if tasks is None else [None if task == NO_TASK else task for task in tasks]
    searcher = Searcher(encoder, open_corpus(corpus, encoder, texts=texts, columns=columns, tasks=wanted))
    with SearchServer(searcher, host, port) as server:
        if not is_loopback(host):
            print(f"Whoever reaches {host} can read the corpus.")
        print(f"Search {len(searcher.corpus.texts)} texts at {server.url}  (Ctrl-C stops)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return Served(searcher.searches)
