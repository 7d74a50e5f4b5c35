"""Rows from files on this machine: JSON lines, CSV, Parquet and Arrow."""

import difflib
import glob
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning_jv5.data.cache import cache_folder, fingerprint
from lightning_jv5.data.source import Source, check_texts, first_rows, rename_columns, text_columns
from lightning_jv5.data.vector_manifest import read_manifest
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
        format: The files' format, if their names do not tell.
        rows: How many rows, from the first; all if left out.
    """

    def __init__(
        self,
        paths: str | list[str],
        *,
        columns: dict[str, str] | None = None,
        format: Format | None = None,  # named as it reads in YAML
        rows: int | None = None,
    ) -> None:
        if format not in {None, *_SUFFIXES.values()}:
            raise ValueError(f"Got format={format!r}; need one of {', '.join(sorted(set(_SUFFIXES.values())))}.")
        self.paths = paths
        self.columns = columns
        self.format = format
        self.rows = rows

    def load(self) -> "datasets.Dataset":
        """Read the files, or what was cached of them.

        Raises:
            ValueError: If a file is missing or broken (says where), formats or columns do not fit together, a text is
                empty, or there are fewer rows than asked for.
        """
        paths = [self.paths] if isinstance(self.paths, str) else self.paths
        files = [file for path in paths for file in _expand(path)]
        formats = {file: self.format or _format(file) for file in files}
        if len(set(formats.values())) != 1:
            listed = ", ".join(f"{file} ({kind})" for file, kind in formats.items())
            raise ValueError(
                f"Got files of several formats: {listed}; need one format. Name them as two sources, or convert one."
            )
        dataset = _read(files, formats[files[0]])
        origin = ", ".join(paths)
        dataset = rename_columns(dataset, self.columns or {}, origin)
        dataset = first_rows(dataset, self.rows, origin)
        check_texts(dataset, text_columns(dataset), origin)
        return dataset


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
            {"jsonl": "json"}.get(kind, kind),
            data_files=[glob.escape(str(file.resolve())) for file in files],
            split="train",
            cache_dir=str(cache_folder() / "files"),
        )
    except (DatasetGenerationError, ValueError, OSError) as error:
        if kind == "jsonl":
            _find_broken_line(files)
        cause = error.__cause__ or error
        raise ValueError(
            f"Cannot read {', '.join(map(str, files))} as {kind}: {cause}. Check that every file is {kind} with the "
            "same columns, or say which format it is: format=..."
        ) from error
    stats: list[Plain] = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    dataset._fingerprint = fingerprint("files", kind, stats)  # the same in every process while the files are the same
    return dataset


def _find_broken_line(files: list[Path]) -> None:
    """Name the first line that is no JSON object: the readers of whole blocks cannot say which it was."""
    for file in files:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    wrong = f"{error}"
                else:
                    if isinstance(row, dict):
                        continue
                    wrong = f"a {type(row).__name__} instead of an object"
                shown = line[:80].decode(errors="replace").strip()
                raise ValueError(
                    f"{file}:{number}: broken JSON, {wrong}, in {shown!r}. Every line needs one JSON object in UTF-8; "
                    "correct the line or remove it."
                )
