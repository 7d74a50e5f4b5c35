"""Rows from files on this machine: JSON lines, CSV, Parquet and Arrow."""

import difflib
import functools
import glob
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from lightning_jv5.data.bad_rows import BadRows, OnBadRow
from lightning_jv5.data.cache import atomic_folder, cache_folder, fingerprint, write_json
from lightning_jv5.data.row_checks import row_number
from lightning_jv5.data.row_rules import RowRules
from lightning_jv5.data.source import Source
from lightning_jv5.data.vector_manifest import HasFacts, read_manifest
from lightning_jv5.rebuildable import Plain

if TYPE_CHECKING:
    import datasets

Format = Literal["jsonl", "csv", "parquet", "arrow"]
_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


class LocalFiles(Source):
    """Rows of one or several files of the same format and columns.

    JSON lines (``.jsonl``, ``.json``) and CSV, both also gzipped, Parquet, ``.arrow`` files, and folders written by
    ``Dataset.save_to_disk``. What is read is converted to Arrow once, in our cache folder.

    Args:
        paths: Files, folders or globs (``"data/*.jsonl"``); several are read one after the other. A folder that
            ``save_to_disk`` did not write stands for the files of a known format in it; one that ``embed`` wrote for
            its rows with their vectors.
        columns: From our name (``query``, ``document``, ``text``, ...) to the files' own.
        filter: Condition on the renamed columns that a row must meet, such as ``"score >= 4 and lang == 'de'"``:
            :class:`~lightning_jv5.data.row_filter.RowFilter`.
        format: The files' format, if their names do not tell.
        rows: How many rows, from the first that meet the condition; all if left out.
        on_bad_row: ``"error"`` at the first row that cannot be used (an empty text, a missing score or label, broken
            JSON), or ``"skip"`` them, counted.
        max_bad_share: Most rows that may be skipped, as a share of all.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        paths: str | list[str],
        *,
        columns: dict[str, str] | None = None,
        filter: str | None = None,  # named as they read in YAML
        format: Format | None = None,
        rows: int | None = None,
        on_bad_row: OnBadRow = "error",
        max_bad_share: float = 0.01,
    ) -> None:
        if format not in {None, *_SUFFIXES.values()}:
            raise ValueError(f"Got format={format!r}; need one of {', '.join(sorted(set(_SUFFIXES.values())))}.")
        self.paths = [paths] if isinstance(paths, str) else paths
        self.format = format
        self.rules = RowRules(columns, filter=filter, rows=rows, on_bad_row=on_bad_row, max_bad_share=max_bad_share)

    def load(self) -> "datasets.Dataset":
        """Read the files, or what was cached of them.

        Raises:
            ValueError: If a file is missing or broken (says where), formats or columns do not fit together, a text is
                empty, or there are fewer rows than asked for.
        """
        files, kind = self._files()
        whole = files
        if self.rules.skips and _mended_folder(files).is_dir():
            whole = _mended(files, self.rules.bad_rows(self.origin)) or files
        try:
            dataset = _read(whole, kind)
        except ValueError:
            mended = _mended(files, self.rules.bad_rows(self.origin)) if kind == "jsonl" else None
            if mended is None:
                raise
            whole, dataset = mended, _read(mended, kind)
        return self.rules.apply(dataset, self.origin, place=functools.partial(_place, files, whole, kind))

    def stream(self) -> "datasets.IterableDataset":
        """Return the rows as they are read, without converting the files first.

        Raises:
            ValueError: As :meth:`load`; what is wrong with a row is found when it is read.
        """
        from datasets import load_dataset

        files, kind = self._files()
        if kind == "arrow":
            return self.rules.apply_stream(_read(files, kind).to_iterable_dataset(), self.origin)
        if kind == "jsonl" and self.rules.skips:  # broken lines break the reader; what is whole is copied
            files = _mended(files, self.rules.bad_rows(self.origin)) or files
        stream = load_dataset(_READERS.get(kind, kind), data_files=_escaped(files), split="train", streaming=True)
        return self.rules.apply_stream(stream, self.origin)

    def check_vectors(self, teacher: HasFacts, columns: Mapping[str, str]) -> None:
        """Refuse vectors that ``embed`` made with something else than this teacher: a folder's manifest says.

        Raises:
            ValueError: If there are such; names what differs.
        """
        for folder in dict.fromkeys(file.parent for file in self._files()[0]):
            manifest = read_manifest(folder)
            for column, role in columns.items():
                theirs = self.rules.columns.get(column, column)
                if manifest is not None and theirs in manifest.columns:
                    manifest.check_teacher(teacher, theirs, role)

    @property
    def origin(self) -> str:
        """Where the rows are from, for messages."""
        return ", ".join(self.paths)

    def _files(self) -> tuple[list[Path], Format]:
        files = [file for path in self.paths for file in _expand(path)]
        formats = {file: self.format or _format(file) for file in files}
        if len(set(formats.values())) != 1:
            listed = ", ".join(f"{file} ({kind})" for file, kind in formats.items())
            raise ValueError(
                f"Got files of several formats: {listed}; need one format. Name them as two sources, or convert one."
            )
        return files, formats[files[0]]


def _expand(path: str) -> list[Path]:
    """Return the files that a path, folder or glob stands for."""
    place = Path(path).expanduser()
    if _is_saved(place) or place.is_file():
        return [place]
    if place.is_dir() and (manifest := read_manifest(place)) is not None:
        return manifest.verify(place)
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if _suffix(file) in _SUFFIXES and not file.name.startswith("."))
    else:
        found = sorted(Path(file) for file in glob.glob(str(place), recursive=True))
    if found:
        return found
    folder = place if place.is_dir() else place.parent
    if not folder.is_dir():
        raise ValueError(f"No file {path!r}: there is no folder {str(folder)!r}. Check it; we are in {Path.cwd()}.")
    names = sorted(file.name for file in folder.iterdir())
    nearest = difflib.get_close_matches(place.name, names, n=1, cutoff=0.4)
    hint = (
        f"Did you mean {str(folder / nearest[0])!r}?" if nearest else f"It holds {', '.join(names[:8]) or 'nothing'}."
    )
    raise ValueError(f"No file {path!r}; need files that end in {', '.join(_SUFFIXES)}. {hint}")


def _is_saved(place: Path) -> bool:
    return place.is_dir() and (place / "state.json").is_file()


def _suffix(file: Path) -> str:
    return file.with_suffix("").suffix if file.suffix == ".gz" else file.suffix


def _format(file: Path) -> Format:
    if _is_saved(file):
        return "arrow"
    if (found := _SUFFIXES.get(_suffix(file))) is None:
        raise ValueError(
            f"Cannot tell the format of {str(file)!r} from its name; need {', '.join(_SUFFIXES)} (or .gz after it). "
            "Say which it is: format=jsonl, csv, parquet or arrow."
        )
    return found


_READERS = {"jsonl": "json"}


def _escaped(files: list[Path]) -> list[str]:
    return [glob.escape(str(file.resolve())) for file in files]


def _place(files: list[Path], read: list[Path], kind: Format, row: int) -> str:
    """Name the file and the row in it, for a row of all files together; of mended ones, the row among whole lines."""
    if len(files) == 1:
        return row_number(row)
    for file, copy in zip(files[:-1], read, strict=False):
        rows = len(_read([copy], kind))
        if row < rows:
            return f"{file.name}, {row_number(row)}"
        row -= rows
    return f"{files[-1].name}, {row_number(row)}"


def _read(files: list[Path], kind: Format) -> "datasets.Dataset":
    from datasets import Dataset, concatenate_datasets, load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        if kind == "arrow":
            parts = [
                Dataset.load_from_disk(str(file)) if file.is_dir() else Dataset.from_file(str(file)) for file in files
            ]
            return concatenate_datasets(parts) if len(parts) > 1 else parts[0]
        dataset = load_dataset(
            _READERS.get(kind, kind),
            data_files=_escaped(files),
            split="train",
            cache_dir=str(cache_folder() / "files"),
        )
    except (DatasetGenerationError, ValueError, OSError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"Cannot read {', '.join(map(str, files))} as {kind}: {cause}. Check that every file is {kind} with the "
            "same columns, or say which format it is: format=..."
        ) from error
    dataset._fingerprint = fingerprint("files", kind, _stats(files))  # in every process, while the files are the same
    return dataset


def _stats(files: list[Path]) -> list[Plain]:
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _mended(files: list[Path], bad: BadRows) -> list[Path] | None:
    """Return copies of the files without the lines that are no JSON objects; None if there are no such lines.

    The readers of whole blocks cannot say which line it was.
    """
    folder = _mended_folder(files)
    copies = [folder / f"{number}.jsonl" for number in range(len(files))]
    if bad.on_bad_row == "skip" and folder.is_dir():
        found = json.loads((folder / "found.json").read_text())
        bad.recall(found["broken"], found["first"])
        bad.finish(found["lines"])
        return copies
    lines = sum(1 for file in files for _ in _whole_lines(file, bad))
    if not bad.finish(lines + bad.count):
        return None
    with atomic_folder(folder) as building:
        for file, copy in zip(files, copies, strict=True):
            with (building / copy.name).open("wb") as mended:
                mended.writelines(_whole_lines(file, BadRows(bad.origin, "skip")))
        write_json(building / "found.json", {"lines": lines + bad.count, "broken": bad.count, "first": bad.first})
    return copies


def _mended_folder(files: list[Path]) -> Path:
    return cache_folder() / "mended" / fingerprint("mended", 2, _stats(files))


def _whole_lines(file: Path, bad: BadRows) -> Iterator[bytes]:
    opened: Any = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # noqa: SIM115  (closed below)
    bar = tqdm(desc=f"Reading {file.name}", unit="line", unit_scale=True, delay=2, leave=False)
    with opened as lines, bar:
        for number, line in enumerate(lines, start=1):
            bar.update()
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                wrong = f"{error}"
            else:
                if isinstance(row, dict):
                    yield line if line.endswith(b"\n") else line + b"\n"
                    continue
                wrong = f"a {type(row).__name__} instead of an object"
            shown = line[:80].decode(errors="replace").strip()
            bad.report(
                f"{file.name}:{number}",
                f"broken JSON, {wrong}, in {shown!r}",
                "Every line needs one JSON object in UTF-8; correct the line or remove it.",
            )
