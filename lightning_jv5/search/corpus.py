"""What is searched: texts with the vectors that the model gives them, read where they were written or encoded now."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_jv5.data.cache import atomic_file, cache_folder, fingerprint
from lightning_jv5.data.docstrings import Docstrings
from lightning_jv5.data.files import LocalFiles
from lightning_jv5.data.source import Source
from lightning_jv5.data.text_column import TextColumn
from lightning_jv5.data.vector_columns import SCALE, vectors
from lightning_jv5.data.vector_manifest import VectorManifest, read_manifest
from lightning_jv5.encoder import Encoder
from lightning_jv5.models.fingerprint import fingerprint_of

if TYPE_CHECKING:
    import datasets

_WRITTEN = "embeddings.json"  # in a folder of EmbeddingWriter
_DOCSTRINGS = 2000  # what two cores encode in a minute or two
_COLUMNS = ("document", "text")
_SAME_MODEL = 0.99  # cosine with a stored vector, which may be float16, int8, or encoded in bfloat16
_SAME_CACHE = 1e-3
_FORMAT = 1  # raise when the same corpus and model would give other vectors


@dataclass(frozen=True)
class Corpus:
    """Texts, and for each task the vectors of all of them.

    Attributes:
        origin: Where the texts are from.
        texts: The texts.
        vectors: By task, None for the model without an adapter: float32, shape ``(texts, dim)``.
        stored_as: The precision that the vectors were read in.
    """

    origin: str
    texts: Sequence[str]
    vectors: dict[str | None, Tensor]
    stored_as: str = "float32"

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return next(iter(self.vectors.values())).shape[1]


def open_corpus(
    path: str | None,
    encoder: Encoder,
    *,
    texts: str | None = None,
    columns: dict[str, str] | None = None,
    tasks: Sequence[str | None] | None = None,
) -> Corpus:
    """Read a corpus; encode it, or take what was encoded of it before, where it has no vectors.

    Args:
        path: A folder that ``embed`` wrote, or ``EmbeddingWriter``; files as
            :class:`~lightning_jv5.data.LocalFiles` takes them; a ``.txt`` file with a text in each line; or None for
            the docstrings of installed packages.
        encoder: The model.
        texts: For a folder of ``EmbeddingWriter``, which holds no texts: the files that have them, in the same order.
        columns: From our name (``document`` or ``text``) to the files' own.
        tasks: For which adapters to have vectors, None being the model without one. By default that for retrieval,
            where the model has it, else what the encoder uses; of vectors that are there, the one that made them.

    Raises:
        ValueError: If there is no such corpus, it has no texts, or its vectors are not of this model.
    """
    folder = Path(path).expanduser() if path is not None else None
    if folder is not None and (folder / _WRITTEN).is_file():
        if texts is None:
            raise ValueError(
                f"{path!r} holds vectors without their texts. Give the file that was encoded, with its rows in the "
                "same order: --texts FILE."
            )
        found, kept, stored_as = _written(str(path), _read_texts(texts, columns)[0])
    elif texts is not None:
        raise ValueError(f"Got texts {texts!r} for {path!r}, which has its own. Leave texts out.")
    elif folder is not None and folder.is_dir() and (manifest := read_manifest(folder)) is not None:
        found, kept, stored_as = _embedded(str(path), manifest)
    else:
        found, key = _read_texts(path, columns)
        wanted = tasks or ["retrieval" if "retrieval" in encoder.tasks else encoder.task]
        encoded = {task: _encoded(found, key, encoder, task) for task in wanted}
        return Corpus(path or "docstrings of installed packages", found, encoded)
    if kept.shape[1] > encoder.embedder.dim:
        raise ValueError(
            f"{path!r} holds vectors of {kept.shape[1]} dims; the model gives {encoder.embedder.dim}. Give the model "
            "that encoded them."
        )
    return Corpus(str(path), found, {_task_of(str(path), found, kept, encoder, tasks): kept}, stored_as)


def _task_of(
    path: str, texts: Sequence[str], kept: Tensor, encoder: Encoder, tasks: Sequence[str | None] | None
) -> str | None:
    """Return the task that vectors were made for, by encoding a few texts again."""
    if tasks is not None and len(tasks) != 1:
        raise ValueError(
            f"Got the tasks {', '.join(task or 'none' for task in tasks)} for {path!r}, whose vectors are of one. "
            "Leave tasks out, or search the texts themselves, to have them encoded for each."
        )
    tried = tasks or dict.fromkeys([encoder.task, *encoder.tasks])
    best: str | None = None
    place, cosine = 0, -2.0
    for task in tried:
        its_place, its_cosine = _least_like(texts, kept, encoder, task)
        if its_cosine > cosine:
            best, place, cosine = task, its_place, its_cosine
    if cosine < _SAME_MODEL:
        raise ValueError(
            f"{path!r}: the vector in row {place} (the first is 0) has a cosine of {cosine:.3f} with what the model "
            f"gives for its text; need {_SAME_MODEL}. Give the model, task and texts that the vectors were made of, or "
            "search the texts themselves, to have them encoded."
        )
    return best


# Where texts are


def _read_texts(path: str | None, columns: dict[str, str] | None) -> tuple[Sequence[str], str]:
    """Return texts, and a name for them that is theirs alone."""
    if path is not None and path.endswith(".txt"):
        try:
            content = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"Cannot read {path!r}: {error}. Give a UTF-8 file with a text in each line.") from error
        # Not splitlines(), to which a form feed ends a line, too
        lines = [line for line in content.split("\n") if line.strip()]
        if not lines:
            raise ValueError(f"{path!r} has no text to search. Give a file with a text in each line.")
        return lines, hashlib.sha256(content.encode()).hexdigest()
    source: Source = Docstrings("train", rows=_DOCSTRINGS) if path is None else LocalFiles(path, columns=columns)
    rows = source.load()
    column = next((name for name in _COLUMNS if name in rows.column_names), None)
    if column is None or not len(rows):
        raise ValueError(
            f"{path!r} has {len(rows)} rows with the columns {', '.join(rows.column_names)}; need texts in "
            f"{' or '.join(_COLUMNS)}. Say which to search: --columns '{{text: NAME}}'."
        )
    return _texts(rows, column), fingerprint(rows._fingerprint, column)


def _texts(rows: "datasets.Dataset", column: str) -> Sequence[str]:
    # Rows that were filtered or cut are a selection, which a column of the file does not know of
    return TextColumn(rows.flatten_indices() if rows._indices is not None else rows, column)


def _written(path: str, texts: Sequence[str]) -> tuple[Sequence[str], Tensor, str]:
    from lightning_jv5.callbacks.embedding_writer import read_embeddings

    kept = read_embeddings(path)
    if len(kept) != len(texts):
        raise ValueError(
            f"{path!r} holds {len(kept)} vectors for {len(texts)} texts; need one for each. Give the file that was "
            "encoded, unchanged."
        )
    return texts, kept.float(), str(kept.dtype).removeprefix("torch.")


def _embedded(path: str, manifest: VectorManifest) -> tuple[Sequence[str], Tensor, str]:
    documents = {column.source_column: name for name, column in manifest.columns.items() if column.role == "document"}
    source = next((name for name in _COLUMNS if name in documents), next(iter(documents), None))
    if source is None:
        raise ValueError(
            f"{path!r} holds vectors of {', '.join(column.source_column for column in manifest.columns.values())}, all "
            "as queries; need some of documents. Embed them: --columns '{document: document}'."
        )
    name = documents[source]
    if manifest.columns[name].precision == "binary":
        raise ValueError(
            f"{path!r} holds sign bits, which leave nothing to compare them with. Embed with precision float16; the "
            "page shows its sign bits, too."
        )
    rows = LocalFiles(path).load()
    kind = rows.features.arrow_schema.field(source).type
    if hasattr(kind, "value_type"):
        raise ValueError(
            f"{path!r}: column {source!r} has lists of texts; need one text in each row. Embed documents one to a row."
        )
    table = rows.select_columns([one for one in (name, f"{name}{SCALE}") if one in rows.column_names])
    kept = vectors(table.with_format("arrow")[:], name).float()
    return _texts(rows, source), kept, manifest.columns[name].precision


# Vectors of this model


def _encoded(texts: Sequence[str], key: str, encoder: Encoder, task: str | None) -> Tensor:
    """Encode texts, or read what an earlier run kept."""
    embedder = encoder.embedder
    with embedder.using(task):
        weights = embedder.state_dict()
        name = fingerprint(
            _FORMAT,
            key,
            fingerprint_of(weights),
            fingerprint_of(weights, adapter=task) if task else None,
            embedder.tokenization.fingerprint,
            embedder.pooling,
        )
    file = cache_folder() / "search" / f"{name}.npy"
    if file.is_file():
        kept = torch.from_numpy(np.load(file))
        if len(kept) == len(texts) and _least_like(texts, kept, encoder, task)[1] >= 1 - _SAME_CACHE:
            return kept
    print(f"Encoding {len(texts)} texts{f' for {task}' if task else ''}, once", flush=True)
    with embedder.using(task):
        found: Any = encoder.encode_document(texts, batch_size=None, show_progress_bar=True)
    with atomic_file(file) as temporary, temporary.open("wb") as opened:
        np.save(opened, found)
    return torch.from_numpy(found)


def _least_like(texts: Sequence[str], kept: Tensor, encoder: Encoder, task: str | None) -> tuple[int, float]:
    """Encode a few of the texts again: return the row whose vector is least like that, and its cosine."""
    places = sorted({0, len(texts) // 2, len(texts) - 1})
    with encoder.embedder.using(task):  # an encoder takes task=None for what it uses anyway
        again = encoder.encode_document([texts[place] for place in places], show_progress_bar=False)
    cosines = F.cosine_similarity(torch.from_numpy(again)[:, : kept.shape[1]], kept[places], dim=1)
    worst = int(cosines.nan_to_num(nan=-1.0).argmin())
    return places[worst], float(cosines[worst])
