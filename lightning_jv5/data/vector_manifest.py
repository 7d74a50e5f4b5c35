"""What is known about a folder of vectors: which model made them, of which rows, and whether its files are whole."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from lightning_jv5.data.cache import write_json
from lightning_jv5.data.source import did_you_mean
from lightning_jv5.rebuildable import Plain

MANIFEST = "manifest.json"
PLAN = "embed.json"
_KIND = "lightning_jv5 vectors"
_FORMAT = 1  # raise when folders written before can no longer be read, or continued, as they are
_BLOCK = 1 << 20


class HasFacts(Protocol):
    """What gives vectors: :class:`~lightning_jv5.models.Teacher`, or anything like it."""

    def facts(self, role: str) -> dict[str, Plain]:
        """Return what decides the vectors of a role, by the names of :class:`VectorColumn`'s attributes."""


@dataclass(frozen=True)
class VectorColumn:
    """How the vectors of one column came about.

    Attributes:
        source_column: The column of the texts.
        role: ``"query"`` or ``"document"``: whose prompt and limit were used.
        model: Path of the model as it was given; None for one with random weights.
        fingerprint: ``Teacher.fingerprint``.
        weights: ``Teacher.weights_identity``: hashes of the model's files, or its hub id and commit.
        tokenizer: Hash of the tokenizer.
        prompt: Put before each text; an instruction is part of it.
        max_length: Most tokens of a text.
        pooling: ``"last"``, ``"mean"`` or ``"cls"``.
        dtype: Dtype of the model's weights.
        full_dim: Dimension of the model's embeddings.
        dim: Dimension that was kept, normalised again.
        precision: How the numbers are stored: ``"float32"``, ``"float16"``, ``"int8"`` or ``"binary"``.
    """

    source_column: str
    role: str
    model: str | None
    fingerprint: str
    weights: list[str]
    tokenizer: str
    prompt: str
    max_length: int
    pooling: str
    dtype: str
    full_dim: int
    dim: int
    precision: str


@dataclass(frozen=True)
class VectorShard:
    """One file.

    Attributes:
        file: Its name in the folder.
        rows: How many rows it holds.
        bytes: Its size.
        sha256: Hash of its content.
    """

    file: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def of_file(cls, path: Path, rows: int, name: str) -> "VectorShard":
        """Measure and hash a file that will be called ``name``."""
        return cls(name, rows, path.stat().st_size, _sha256(path))


@dataclass(frozen=True)
class VectorManifest:
    """A folder of Parquet files whose rows carry vectors. Without shards it is the plan of one.

    Attributes:
        rows: Number of rows, in the order of the source.
        rows_per_shard: Rows of each file but the last.
        source: Class of the source and fingerprint of its rows.
        columns: By name of the vector column.
        shards: The files, in the order of the rows.
    """

    rows: int
    rows_per_shard: int
    source: dict[str, str]
    columns: dict[str, VectorColumn]
    shards: tuple[VectorShard, ...] = ()

    def check_teacher(self, teacher: HasFacts, column: str, role: str | None = None) -> None:
        """Check that a column holds what this teacher would compute, in a precision that can be trained on.

        Args:
            teacher: The teacher of the config; its weights are hashed, if all else fits, but not loaded.
            column: Name of the vector column.
            role: Whose prompt the column's texts are to have; by default that with which they were embedded.

        Raises:
            ValueError: If it does not; names each difference.
        """
        if column not in self.columns:
            raise ValueError(
                f"The manifest tells of no column {column!r}, only of {', '.join(self.columns)}."
                f"{did_you_mean(column, self.columns)} Embed its texts too, or leave the column out."
            )
        found = self.columns[column]
        different = [
            f"{_WORDS[name]} ({_shown(getattr(found, name))} of the vectors, {_shown(wanted)} of the teacher)"
            for name, wanted in teacher.facts(role or found.role).items()
            if getattr(found, name) != wanted
        ]
        if found.dim != found.full_dim:
            different.append(f"dim ({found.dim} of the vectors, cut from {found.full_dim})")
        if found.precision == "binary":
            different.append("precision (binary codes cannot be trained on)")
        if different:
            raise ValueError(
                f"The vectors in column {column!r} do not fit the teacher of the config: they differ in "
                f"{'; '.join(different)}. Set the teacher to what made them, embed again, or leave the column out."
            )

    def check_continues(self, earlier: "VectorManifest", folder: Path) -> None:
        """Check that a folder may be continued with this plan.

        Raises:
            ValueError: If it was begun with another; names each difference.
        """
        before, now = (_flat({**asdict(plan), "shards": ()}) for plan in (earlier, self))
        different = [
            f"{name} (was {_shown(before.get(name))}, is {_shown(now.get(name))})"
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name)
        ]
        if different:
            raise ValueError(
                f"The folder {str(folder)!r} was begun with other settings: {'; '.join(different)}. "
                "Go on with the same ones, or name another folder as output."
            )

    def verify(self, folder: str | Path, *, hashes: bool = False) -> list[Path]:
        """Check that the folder's files are those that were written.

        Args:
            folder: Where they are.
            hashes: Compare their contents too, which reads everything; otherwise sizes and numbers of rows.

        Returns:
            The files, in the order of the rows.

        Raises:
            ValueError: If one is missing or differs; names it.
        """
        import pyarrow.parquet as pq

        remedy = "Copy it again from where the folder was written, or remove it and run the same embed command again"
        paths = [Path(folder) / shard.file for shard in self.shards]
        total = sum(shard.bytes for shard in self.shards)
        with tqdm(total=total, desc=f"Checking {folder}", unit="B", unit_scale=True, delay=1) as bar:
            for path, shard in zip(paths, self.shards, strict=True):
                if not path.is_file():
                    raise ValueError(f"{path} is missing. {remedy}.")
                if (size := path.stat().st_size) != shard.bytes:
                    raise ValueError(f"{path} has {size} bytes, need {shard.bytes}. {remedy}.")
                if (rows := pq.read_metadata(path).num_rows) != shard.rows:
                    raise ValueError(f"{path} has {rows} rows, need {shard.rows}. {remedy}.")
                if hashes and _sha256(path) != shard.sha256:
                    raise ValueError(f"{path} has another content than was written (sha256). {remedy}.")
                bar.update(shard.bytes)
        if (counted := sum(shard.rows for shard in self.shards)) != self.rows:
            raise ValueError(f"The files of {folder} have {counted} rows, need {self.rows}. Embed the rows again.")
        return paths

    def summary(self) -> str:
        """Say in a line for each column what the folder holds."""
        size = sum(shard.bytes for shard in self.shards)
        files = "1 file" if len(self.shards) == 1 else f"{len(self.shards)} files"
        lines = [f"{self.rows} rows in {files}, {size / 1e6:.1f} MB"]
        lines += [
            f"{name}: {column.dim} dims, {column.precision}, of {column.source_column} as {column.role} "
            f"with the prompt {column.prompt!r}"
            for name, column in self.columns.items()
        ]
        return "\n".join(lines)


_WORDS = {
    "weights": "model weights",
    "tokenizer": "tokenizer",
    "prompt": "prompt",
    "max_length": "max_length",
    "pooling": "pooling",
    "dtype": "dtype",
    "full_dim": "dim",
}


def read_manifest(folder: str | Path) -> VectorManifest | None:
    """Read what is known about a folder of vectors.

    Returns:
        The manifest; None if the folder is none of those that ``embed`` writes.

    Raises:
        ValueError: If ``embed`` has not finished the folder, or its manifest cannot be read.
    """
    folder = Path(folder)
    manifest = _read(folder / MANIFEST)
    if manifest is None and _read(folder / PLAN) is not None:
        raise ValueError(
            f"The vectors in {str(folder)!r} are not complete: there is no {MANIFEST} beside {PLAN}. "
            "Run the same embed command again; it goes on where it stopped."
        )
    return manifest


def read_plan(folder: Path) -> VectorManifest | None:
    """Read what a folder was begun with; None if it was not begun.

    Raises:
        ValueError: If it cannot be read.
    """
    return _read(folder / PLAN)


def read_shard(path: Path) -> VectorShard | None:
    """Read the note on one file; None if there is none."""
    try:
        shard: VectorShard = _build(VectorShard, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return None
    return shard


def write_manifest(manifest: VectorManifest, path: Path) -> None:
    """Write a manifest, or a plan, whole or not at all."""
    write_json(path, {"kind": _KIND, "format": _FORMAT, **asdict(manifest)})


def _read(path: Path) -> VectorManifest | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # whole or not at all: this was written by somebody else
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        return None
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')!r}; this version reads {_FORMAT}. "
            "Use the version of lightning_jv5 that wrote it, or embed again."
        )
    try:
        return VectorManifest(
            rows=content["rows"],
            rows_per_shard=content["rows_per_shard"],
            source=content["source"],
            columns={name: _build(VectorColumn, column) for name, column in content["columns"].items()},
            shards=tuple(_build(VectorShard, shard) for shard in content["shards"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} was changed: {error!r}. Restore it, or embed again into another folder.") from error


def _build(kind: type[Any], content: Mapping[str, Any]) -> Any:
    return kind(**{field.name: content[field.name] for field in fields(kind)})


def _flat(tree: Any, above: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {above: tree}
    return {
        name: value for key, item in tree.items() for name, value in _flat(item, f"{above}.{key}".lstrip(".")).items()
    }


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(part)[:12] or "''" for part in value)
    return repr(value if not isinstance(value, str) or len(value) < 60 else f"{value[:56]}...")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
