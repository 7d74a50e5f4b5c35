from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from lightning_jv5.encoder import Encoder, load
from lightning_jv5.search.corpus import Corpus, open_corpus
from lightning_jv5.search.searcher import Searcher
from lightning_jv5.search.server import SearchServer
from tests.models.tiny_adapters import write_adapter
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer

# Texts that would do something in a page that takes them for HTML
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\"> the red cat",
    "</p><script>document.title = 'owned'</script> a dog",
    'the house " onmouseover="document.title=\'owned\'" & <b>bold</b>',
]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an adapter for retrieval."""
    place = tmp_path_factory.mktemp("search") / "model"
    model = save_tiny_sentence_transformer(place, prompts={"query": "who : ", "document": ""})
    described = {"task": "retrieval", "prompts": {"query": "where : ", "document": "document : "}}
    write_adapter(place / "adapters" / "retrieval", model, seed=1, described=described)
    return model


@pytest.fixture(scope="session")
def adapter(model: str) -> str:
    """The folder of an adapter alone, which has the prompts of its model."""
    return str(write_adapter(Path(model).parent / "clustering", model, seed=2, base=model))


@pytest.fixture(scope="session")
def encoder(model: str) -> Encoder:
    return load(model, "cpu")


@pytest.fixture(scope="session")
def corpus(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """25 texts, for the model alone and for its adapter."""
    texts = [*TEXTS, *HOSTILE, *(f"{text} {number * 'slow '}" for number in (1, 3) for text in TEXTS), "a tree", "red"]
    file: Path = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n".join(texts))
    return open_corpus(str(file), encoder, tasks=[None, "retrieval"])


@pytest.fixture
def searcher(encoder: Encoder, corpus: Corpus) -> Searcher:
    return Searcher(encoder, corpus)


@pytest.fixture
def server(searcher: Searcher) -> Iterator[SearchServer]:
    with SearchServer(searcher, port=0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
