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
from lightning_jv5.data.source import Source, did_you_mean, first_rows
from lightning_jv5.rebuildable import Plain

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pyarrow as pa

# Raise it whenever the files change: those cached by older code are then made anew.
_FORMAT = 1
_ROWS_PER_TABLE = 1000
_IDS_PER_LOOK_UP = 1_000_000
_MOST_IDS_TO_GUESS_FROM = 20_000  # the nearest of a million names takes minutes to find
_JUDGEMENT_COLUMNS = ("query-id", "corpus-id", "score")

_Parsed = tuple[str | tuple[str, str], dict[str, Any]]  # what may come only once, and the row


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
    return _read_texts(folder, "corpus", ("title", "text") if title else ("text",), on_bad_row, max_bad_share)


def read_queries(
    folder: str | Path, *, on_bad_row: OnBadRow = "error", max_bad_share: float = 0.01
) -> "datasets.Dataset":
    """Read ``queries.jsonl`` (or ``.jsonl.gz``): a query in each line, with ``_id`` and ``text``.

    Args, returns and raises as :func:`read_corpus`, without titles.
    """
    return _read_texts(folder, "queries", ("text",), on_bad_row, max_bad_share)


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
    import pyarrow as pa

    file = _find(Path(folder).expanduser() / "qrels", f"{split}.tsv")
    fields = {"query_id": pa.string(), "document_id": pa.string(), "grade": pa.int64(), "line": pa.int64()}
    bad = BadRows(str(file), on_bad_row, max_bad_share)
    return _read(file, pa.schema(fields), _qrels_parser(str(file)), [], bad)


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
        file = _find(Path(self.path).expanduser() / "qrels", f"{self.split}.tsv")

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
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from tqdm.auto import tqdm

    usable = np.ones(len(judged), dtype=bool)
    rows = {}
    for role, texts, home in (("query", queries, "queries.jsonl"), ("document", corpus, "corpus.jsonl")):
        rows[role] = _rows_of(judged[f"{role}_id"], texts)
        missing = (usable & (rows[role] < 0)).nonzero()[0]
        if len(missing):
            name, line = (judged[column][int(missing[0])].as_py() for column in (f"{role}_id", "line"))
            what = f"judges {role} {name!r}, which is not in {home}"
            bad.report(f"line {line}", what, _where_is(name, texts), count=len(missing))
        usable &= rows[role] >= 0
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
    folder: str | Path, name: str, fields: Sequence[str], on_bad_row: OnBadRow, max_bad_share: float
) -> "datasets.Dataset":
    import pyarrow as pa

    file = _find(Path(folder).expanduser(), f"{name}.jsonl")
    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    bad = BadRows(str(file), on_bad_row, max_bad_share)
    return _read(file, schema, lambda line, _: _parse_text(line, fields), list(fields), bad)


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
    return cached_rows("beir", key, schema, lambda: _tables(file, schema, parse, bad))


def _tables(
    file: Path, schema: "pa.Schema", parse: Callable[[bytes, int], _Parsed | None], bad: BadRows
) -> "Iterator[pa.Table]":
    """Yield the rows of a file, some at a time."""
    import pyarrow as pa

    seen: set[int] = set()  # hashes: the ids themselves would take several times as much
    rows: list[dict[str, Any]] = []
    lines = kept = 0
    for number, line in _lines(file):
        try:
            parsed = parse(line, number)
        except _BadLineError as error:
            bad.report(f"line {number}", error.what, error.remedy)
            lines += 1
            continue
        if parsed is None:
            continue
        lines += 1
        identity, row = parsed
        if hash(identity) in seen:
            bad.report(f"line {number}", f"{_shown(identity)} comes for the second time", "Remove one of the two.")
            continue
        seen.add(hash(identity))
        kept += 1
        rows.append(row)
        if len(rows) == _ROWS_PER_TABLE:
            yield pa.Table.from_pylist(rows, schema)
            rows = []
    if not kept and not bad.count:
        raise ValueError(f"{file} holds no rows; need at least one. Is it the right file, and was it copied whole?")
    bad.finish(lines)
    yield pa.Table.from_pylist(rows, schema)


class _BadLineError(Exception):
    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def _parse_text(line: bytes, fields: Sequence[str]) -> _Parsed:
    shown = line[:80].decode(errors="replace").strip()
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _BadLineError(
            f"broken JSON, {error}, in {shown!r}", "Every line needs one JSON object in UTF-8."
        ) from error
    if not isinstance(row, dict):
        raise _BadLineError(
            f"a {type(row).__name__} instead of an object, {shown!r}", "Every line needs one JSON object."
        )
    values = {}
    for field in ("_id", *fields):
        value = row.get(field, "" if field == "title" else None)
        if not isinstance(value, str) or (field == "_id" and not value):
            what = f"{field} is {value!r:.40}" if field in row else f"there is no {field}, but {', '.join(row)}"
            hint = "" if field in row else did_you_mean(field, row)
            raise _BadLineError(what, f"Need a string{' with something in it' if field == '_id' else ''}.{hint}")
        values[field] = value
    text = " ".join(values[field] for field in fields).strip()
    return values["_id"], {"id": values["_id"], "text": text}


def _qrels_parser(file: str) -> Callable[[bytes, int], _Parsed | None]:
    """Return a parser that learns the order of the columns from the header."""
    header: list[str] = []

    def parse(line: bytes, number: int) -> _Parsed | None:
        try:
            fields = line.decode().rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise _BadLineError(f"no UTF-8, {error}", "Save the file as UTF-8.") from error
        if not header:
            if sorted(fields) != sorted(_JUDGEMENT_COLUMNS):
                raise ValueError(
                    f"{file}, line {number}: got {' '.join(fields)!r}; need the header "
                    f"{' '.join(_JUDGEMENT_COLUMNS)!r}, with tabs between the names. Write it above the judgements."
                )
            header.extend(fields)
            return None
        if len(fields) != len(header):
            raise _BadLineError(
                f"{len(fields)} columns in {line[:80].decode(errors='replace').strip()!r}",
                f"Need {', '.join(header)}, with tabs between them.",
            )
        query, document, grade = (fields[header.index(column)] for column in _JUDGEMENT_COLUMNS)
        try:
            row = {"query_id": query, "document_id": document, "grade": int(grade), "line": number}
        except ValueError as error:
            raise _BadLineError(f"the score is {grade!r}", "Need a whole number; 0 means irrelevant.") from error
        return (query, document), row

    return parse


def _shown(identity: str | tuple[str, str]) -> str:
    return f"_id {identity!r}" if isinstance(identity, str) else f"the judgement of {identity[0]!r}, {identity[1]!r}"


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


def _rows_of(wanted: "pa.ChunkedArray", texts: "datasets.Dataset") -> "np.ndarray":
    """Return the row of each wanted id, -1 where there is none; memory grows with what is wanted alone."""
    import numpy as np
    import pyarrow.compute as pc

    distinct = wanted.unique()
    rows = np.full(len(distinct), -1, np.int64)
    ids = ArrowColumn(texts, "id")
    for start in range(0, len(texts), _IDS_PER_LOOK_UP):
        places = pc.index_in(ids[start : start + _IDS_PER_LOOK_UP], value_set=distinct)
        found = pc.indices_nonzero(pc.is_valid(places)).to_numpy()
        rows[places.drop_null().to_numpy()] = start + found.astype(np.int64)
    return np.asarray(rows[pc.index_in(wanted, value_set=distinct).to_numpy()])


def _where_is(name: str, texts: "datasets.Dataset") -> str:
    ids = ArrowColumn(texts, "id")[:_MOST_IDS_TO_GUESS_FROM].to_pylist()
    return f"Correct the id or remove the judgement; do the files belong together?{did_you_mean(name, ids)}"
