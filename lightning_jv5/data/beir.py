"""Folders as BEIR lays them out: a corpus, queries, and judgements of which document answers which query."""

import contextlib
import difflib
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lightning_jv5.data.arrow_cache import ArrowColumn, cached_rows
from lightning_jv5.data.bad_rows import BadRows, OnBadRow
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.identified_rows import BadRecordError, Identity, identified_rows, identified_text
from lightning_jv5.data.judgements import JUDGEMENT_COLUMNS, judgement, judgement_schema, place_judgements
from lightning_jv5.data.source import Source, first_rows
from lightning_jv5.rebuildable import Plain

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

# Raise it whenever the files change: those cached by older code are then made anew.
_FORMAT = 1
_ROWS_PER_TABLE = 1000

_Parsed = tuple[Identity, dict[str, Any]]  # what may come only once, and the row


def read_corpus(
    folder: str | Path, *, title: bool = True, on_bad_row: OnBadRow = "error", max_bad_share: float = 0.01
) -> "datasets.Dataset":
    """Read ``corpus.jsonl`` (or ``.jsonl.gz``): a document in each line, with ``_id``, ``title`` and ``text``.

    Read once, then kept as Arrow in the cache folder until the file changes.

    Args:
        folder: The BEIR folder.
        title: Whether a document is its title, a space and its text, as BEIR has it; else its text alone.
        on_bad_row: What to do about a line that is broken or repeats an id.
        max_bad_share: As for :class:`~lightning_jv5.data.bad_rows.BadRows`.

    Returns:
        Columns ``id`` and ``text`` in the order of the file; documents without text have ``""``.

    Raises:
        ValueError: If the file is missing, empty or broken; says in which line.
    """
    fields = ("title", "text") if title else ("text",)
    return _read_texts(folder, "corpus", fields, on_bad_row=on_bad_row, max_bad_share=max_bad_share)


def read_queries(
    folder: str | Path, *, group: str | None = None, on_bad_row: OnBadRow = "error", max_bad_share: float = 0.01
) -> "datasets.Dataset":
    """Read ``queries.jsonl`` (or ``.jsonl.gz``): a query in each line, with ``_id`` and ``text``.

    Args, returns and raises as :func:`read_corpus`, without titles. ``group`` names a field that every query has, such
    as its language: it is returned as the column ``group``, of strings (or nulls).
    """
    return _read_texts(folder, "queries", ("text",), on_bad_row=on_bad_row, max_bad_share=max_bad_share, group=group)


def read_qrels(
    folder: str | Path, split: str, *, on_bad_row: OnBadRow = "error", max_bad_share: float = 0.01
) -> "datasets.Dataset":
    """Read ``qrels/<split>.tsv`` (or ``.tsv.gz``): a header ``query-id corpus-id score``, then judgements.

    Args:
        folder: The BEIR folder.
        split: ``"train"``, ``"dev"``, ``"test"``.
        on_bad_row: What to do about a line that is broken or judges the same pair again.
        max_bad_share: As for :class:`~lightning_jv5.data.bad_rows.BadRows`.

    Returns:
        Columns ``query_id``, ``document_id``, ``grade`` (0 and below are irrelevant) and ``line``, in the order of the
        file. Whether the ids exist is for the caller to see.

    Raises:
        ValueError: If the file is missing, empty or broken; says in which line.
    """
    file = qrels_file(folder, split)
    bad = BadRows(str(file), on_bad_row, max_bad_share)
    return _read(file, judgement_schema(), _qrels_parser(str(file)), [], bad)


def qrels_file(folder: str | Path, split: str) -> Path:
    """Return ``qrels/<split>.tsv``, or what it is gzipped.

    Raises:
        ValueError: If there is neither.
    """
    return _find(Path(folder).expanduser() / "qrels", f"{split}.tsv")


class BeirFolder(Source):
    """Pairs of a query and a document that answers it, from a folder as BEIR lays them out.

    ``corpus.jsonl`` (``_id, title, text``), ``queries.jsonl`` (``_id, text``) and ``qrels/<split>.tsv``; each may be
    gzipped. Rows have the columns ``query, document, query_id, document_id``, one for each judgement, in its order.

    Args:
        path: The folder.
        split: Which judgements: ``qrels/<split>.tsv``.
        min_grade: Lowest grade of a document that counts as an answer.
        title: Whether a document is its title, a space and its text, as BEIR has it; else its text alone.
        rows: How many rows, from the first; all if left out.
        on_bad_row: ``"error"`` stops at a line that cannot be used (broken, an id for the second time, a judgement
            of something that does not exist or has no text); ``"skip"`` leaves it out. What is skipped is
            counted and said when the files are first read.
        max_bad_share: With ``"skip"``: most lines of a file that may be left out, as a share of all.

    Raises:
        ValueError: When loading, if a file is missing or a line cannot be used (says which), no judgement has the
            grade, or there are fewer rows than asked for.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "train",
        min_grade: int = 1,
        title: bool = True,
        rows: int | None = None,
        on_bad_row: OnBadRow = "error",
        max_bad_share: float = 0.01,
    ) -> None:
        BadRows(path, on_bad_row, max_bad_share)  # refuses a wrong setting before anything is read
        self.path, self.split, self.min_grade, self.title, self.rows = path, split, min_grade, title, rows
        self.on_bad_row, self.max_bad_share = on_bad_row, max_bad_share

    def load(self) -> "datasets.Dataset":
        """Return the pairs, or what was cached of them."""
        return first_rows(self._pairs(self.min_grade), self.rows, f"{self.path}, split {self.split}")

    def corpus(self) -> "datasets.Dataset":
        """Return all documents, judged or not: :func:`read_corpus`."""
        return read_corpus(self.path, title=self.title, on_bad_row=self.on_bad_row, max_bad_share=self.max_bad_share)

    def relevant(self) -> "datasets.Dataset":
        """Return the pairs of every judgement above 0, whatever :attr:`min_grade` and :attr:`rows`: no negatives."""
        return self._pairs(min(self.min_grade, 1))

    def _pairs(self, min_grade: int) -> "datasets.Dataset":
        import pyarrow as pa

        bad: dict[str, Any] = {"on_bad_row": self.on_bad_row, "max_bad_share": self.max_bad_share}
        corpus = self.corpus()
        queries = read_queries(self.path, **bad)
        qrels = read_qrels(self.path, self.split, **bad)
        key = fingerprint(
            *("beir pairs", _FORMAT, corpus._fingerprint, queries._fingerprint, qrels._fingerprint),
            *(min_grade, self.on_bad_row, self.max_bad_share),
        )
        schema = pa.schema({name: pa.string() for name in ("query", "document", "query_id", "document_id")})
        file = qrels_file(self.path, self.split)

        def tables() -> "Iterator[pa.Table]":
            judged = _judged(qrels, min_grade, str(file))
            return _joined(judged, queries, corpus, BadRows(str(file), **bad), schema)

        return cached_rows("beir", key, schema, tables)


def _judged(qrels: "datasets.Dataset", min_grade: int, origin: str) -> "pa.Table":
    """Return the judgements of a grade or more."""
    import pyarrow.compute as pc

    table = qrels.with_format("arrow")[:]
    judged = table.filter(pc.greater_equal(table["grade"], min_grade)).combine_chunks()
    if not len(judged):
        highest = pc.max(table["grade"]).as_py()
        raise ValueError(f"{origin} has no grade of {min_grade} or more; the highest is {highest}. Lower min_grade.")
    return judged


def _joined(
    judged: "pa.Table", queries: "datasets.Dataset", corpus: "datasets.Dataset", bad: BadRows, schema: "pa.Schema"
) -> "Iterator[pa.Table]":
    """Yield the texts that are judged beside their ids, some at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from tqdm.auto import tqdm

    usable, rows = place_judgements(judged, queries, corpus, bad)
    columns = {"query": ArrowColumn(queries, "text"), "document": ArrowColumn(corpus, "text")}
    numbers = usable.nonzero()[0]
    for start in tqdm(range(0, len(numbers), _ROWS_PER_TABLE), desc="Reading the pairs", unit="kpair", delay=1):
        some = numbers[start : start + _ROWS_PER_TABLE]
        part = judged.take(pa.array(some)).combine_chunks()
        pairs = {role: texts[rows[role][some].tolist()] for role, texts in columns.items()}
        pairs |= {column: part[column].combine_chunks() for column in ("query_id", "document_id")}
        empty = {role: pc.equal(pc.utf8_trim_whitespace(pairs[role]), "") for role in columns}
        for number in pc.indices_nonzero(pc.or_(*empty.values())).to_pylist():
            role = "query" if empty["query"][number].as_py() else "document"
            what = f"judges {role} {pairs[f'{role}_id'][number].as_py()!r}, which has no text"
            bad.report(f"line {part['line'][number]}", what, "Remove the judgement, or fill the text in.")
        yield pa.table(pairs, schema).filter(pc.invert(pc.or_(*empty.values())))
    bad.finish(len(judged))


def _read_texts(
    folder: str | Path,
    name: str,
    fields: Sequence[str],
    *,
    on_bad_row: OnBadRow,
    max_bad_share: float,
    group: str | None = None,
) -> "datasets.Dataset":
    import pyarrow as pa

    file = _find(Path(folder).expanduser(), f"{name}.jsonl")
    columns = ["id", "text"] if group is None else ["id", "text", "group"]
    settings: list[Plain] = [*fields] if group is None else [*fields, {"group": group}]
    bad = BadRows(str(file), on_bad_row, max_bad_share)
    schema = pa.schema({column: pa.string() for column in columns})
    return _read(file, schema, lambda line, _: _parse_text(line, fields, group), settings, bad)


def _read(
    file: Path,
    schema: "pa.Schema",
    parse: Callable[[bytes, int], _Parsed | None],
    settings: list[Plain],
    bad: BadRows,
) -> "datasets.Dataset":
    stat = file.stat()
    known: list[Plain] = [str(file.resolve()), stat.st_size, stat.st_mtime_ns]
    key = fingerprint("beir", _FORMAT, known, settings, bad.on_bad_row, bad.max_bad_share)
    return cached_rows("beir", key, schema, lambda: identified_rows(_lines(file), parse, schema, bad))


def _parse_text(line: bytes, fields: Sequence[str], group: str | None) -> _Parsed:
    shown = line[:80].decode(errors="replace").strip()
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadRecordError(
            f"broken JSON, {error}, in {shown!r}", "Every line needs one JSON object in UTF-8."
        ) from error
    if not isinstance(row, dict):
        raise BadRecordError(
            f"a {type(row).__name__} instead of an object, {shown!r}", "Every line needs one JSON object."
        )
    return identified_text(row, fields, group)


def _qrels_parser(file: str) -> Callable[[bytes, int], _Parsed | None]:
    """Return a parser that learns the order of the columns from the header."""
    header: list[str] = []

    def parse(line: bytes, number: int) -> _Parsed | None:
        try:
            fields = line.decode().rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise BadRecordError(f"no UTF-8, {error}", "Save the file as UTF-8.") from error
        if not header:
            if sorted(fields) != sorted(JUDGEMENT_COLUMNS):
                raise ValueError(
                    f"{file}, line {number}: got {' '.join(fields)!r}; need the header "
                    f"{' '.join(JUDGEMENT_COLUMNS)!r}, with tabs between the names. Write it above the judgements."
                )
            header.extend(fields)
            return None
        if len(fields) != len(header):
            raise BadRecordError(
                f"{len(fields)} columns in {line[:80].decode(errors='replace').strip()!r}",
                f"Need {', '.join(header)}, with tabs between them.",
            )
        query, document, grade = (fields[header.index(column)] for column in JUDGEMENT_COLUMNS)
        return judgement(query, document, grade, number)

    return parse


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that have something in them, and their numbers, with a bar that counts bytes."""
    from tqdm.auto import tqdm

    bar = tqdm(total=file.stat().st_size, desc=f"Reading {file.name}", unit="B", unit_scale=True, delay=1)
    with file.open("rb") as raw, bar, _unpacked(raw, file) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                bar.update(raw.tell() - bar.n)
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{file} is no whole gzip file: {error}. Copy it again, or unpack it.") from error


def _unpacked(raw: BinaryIO, file: Path) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    return gzip.open(raw) if file.suffix == ".gz" else contextlib.nullcontext(raw)


def _find(folder: Path, name: str) -> Path:
    """Return a file of the folder, gzipped or not."""
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    there = folder
    while not there.is_dir():  # the lowest folder that exists, to name the nearest of what is in it
        there = there.parent
    sought = folder / name
    wanted = sought.relative_to(there).parts[0]
    names = sorted(file.name for file in there.iterdir())
    nearest = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    hint = f"Did you mean {str(there / nearest[0])!r}?" if nearest else f"It holds {', '.join(names[:8]) or 'nothing'}."
    raise ValueError(
        f"No file {str(sought)!r}; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/<split>.tsv. "
        f"{str(there)!r} has no {wanted!r}. {hint}"
    )
