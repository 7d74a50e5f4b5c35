"""Encode columns of a data set once, and keep the vectors beside the texts, in Parquet files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tqdm.auto import tqdm

from lightning_jv5.data.joined_ranks import joined_ranks
from lightning_jv5.data.recent_vectors import RecentVectors
from lightning_jv5.data.roles import PROMPT_ROLES, check_role
from lightning_jv5.data.row_checks import negative_columns, text_columns
from lightning_jv5.data.source import Source, did_you_mean
from lightning_jv5.data.vector_columns import PRECISIONS, SCALE, Precision, StoredVectors, arrow_columns, store
from lightning_jv5.data.vector_folder import VectorFolder
from lightning_jv5.data.vector_manifest import VectorColumn, VectorManifest
from lightning_jv5.models.teacher import Teacher
from lightning_jv5.rebuildable import constructor_arguments

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_MOST_SHARDS = 99_999  # `datasets` knows files numbered with five digits as parts of one split
_TEXTS_PER_CALL = 1024
_CHARACTERS_PER_CALL = 1 << 16  # about one forward pass of 16,384 tokens: the bar moves after each


def embed_columns(
    source: Source,
    model: Teacher,
    output: str,
    *,
    columns: dict[str, Literal["query", "document"]] | None = None,
    suffix: str = "_teacher",
    truncate_dim: int | None = None,
    precision: Precision = "float16",
    rows_per_shard: int = 8192,
    cached_texts: int = 65_536,
    device: str | None = None,
) -> VectorManifest:
    """Encode columns of a data set and write all rows, with their vectors, to a folder of Parquet files.

    A text column ``query`` gets a column ``query_teacher`` of fixed-size lists (int8 codes also a factor per vector,
    ``query_teacher_scale``), a column of lists of texts a column of lists of vectors. Texts that are equal within a
    file are encoded once, those equal to one of the last ``cached_texts`` distinct texts not again. A file has its name
    once it is whole, so an interrupted run goes on where it stopped, also with another number of processes;
    ``manifest.json`` is written when all files are there. Started by torchrun, the processes divide the files.

    Args:
        source: The rows.
        model: What encodes them, with its prompts.
        output: Folder to write to: empty or not there, or one that the same call has begun.
        columns: From a column of texts to the role whose prompt it gets. By default ``query`` is a query; ``document``,
            ``text``, ``text1``, ``text2``, ``negative``, ``negative_2``, ... and ``negatives`` are documents.
        suffix: Makes the name of the vector column; training looks for ``_teacher``.
        truncate_dim: Keep only the first so many dimensions, normalised again.
        precision: float32; float16; int8 with a scale per vector, half of float16; or binary: packed sign bits.
        rows_per_shard: Rows in a file: what is held in memory, and what an interruption loses at most.
        cached_texts: How many vectors are remembered from file to file. With 0 a file depends on its rows alone, to the
            last bit on one machine; otherwise a text may have been encoded in other company, which moves its vector by
            rounding.
        device: Such as cpu or cuda:1; by default this process's GPU, or the CPU where there is none.

    Returns:
        The manifest of the folder.

    Raises:
        ValueError: If a setting is wrong, the folder holds something else or was begun with other settings, a text is
            missing, or a vector is not finite (says in which row); finished files are kept.

    Example::

        manifest = embed_columns(LocalFiles("pairs.jsonl"), Teacher("Qwen/Qwen3-Embedding-4B"), "pairs-qwen3")
        rows = LocalFiles("pairs-qwen3")  # trains with the vectors
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Got precision {precision!r}; need one of {', '.join(PRECISIONS)}.")
    if truncate_dim is not None and not 1 <= truncate_dim <= model.dim:
        raise ValueError(
            f"Got truncate_dim {truncate_dim}; the model's embeddings have {model.dim}. Give 1 to {model.dim}."
        )
    if rows_per_shard < 1:
        raise ValueError(f"Got rows_per_shard {rows_per_shard}; need at least 1.")
    if not suffix:
        raise ValueError("Got an empty suffix; the vectors need names of their own. Use _teacher for training.")
    place = Path(output).expanduser()
    recent = RecentVectors(cached_texts)
    with joined_ranks() as ranks:
        model.to(_device(device, ranks.local_rank))

        def begin() -> tuple[VectorManifest, list[int]]:
            rows = source.load()
            plan = _plan(
                rows,
                model,
                columns,
                origin=type(source).__name__,
                suffix=suffix,
                dim=truncate_dim or model.dim,
                precision=precision,
                rows_per_shard=rows_per_shard,
            )
            folder = VectorFolder(place, plan)
            folder.begin()
            return plan, folder.missing()

        plan, missing = ranks.from_first(begin)
        folder = VectorFolder(place, plan)
        rows = ranks.on_all(lambda: _same_rows(folder, source, ranks.rank))
        tables, mine = rows.with_format("arrow"), missing[ranks.rank :: ranks.size]
        spans = {shard: slice(shard * rows_per_shard, (shard + 1) * rows_per_shard) for shard in mine}
        title = f"Embedding {type(source).__name__}{f', rank 0 of {ranks.size}' if ranks.size > 1 else ''}"
        total = _text_count(tables, plan, spans.values())
        # smoothing 0, from the mean speed: within a file the longest texts come first
        with tqdm(total=total, desc=title, unit="text", smoothing=0, disable=ranks.rank > 0 or not mine) as bar:
            work = _Work(plan, model, recent, bar)
            for shard, span in spans.items():
                folder.write(shard, work.table(tables[span], span.start), rows.column_names)
        ranks.wait()
        return ranks.from_first(folder.finish)


# What is to be done


def _device(name: str | None, local_rank: int) -> torch.device:
    if name is None:
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"Got device {name!r}; need one such as cpu, cuda or cuda:1.") from error
    if device.type != "cuda":
        return device
    if device.index is None:
        device = torch.device("cuda", local_rank)
    count = torch.cuda.device_count()
    if device.index >= count:
        raise ValueError(
            f"Got device {device} on a machine with {count} GPUs; need one of them. "
            "Start at most one process per GPU, or set device: cpu."
        )
    return device


def _plan(
    rows: "datasets.Dataset",
    model: Teacher,
    roles: Mapping[str, str] | None,
    *,
    origin: str,
    suffix: str,
    dim: int,
    precision: Precision,
    rows_per_shard: int,
) -> VectorManifest:
    if not hasattr(rows, "__len__"):
        raise ValueError(f"{origin} is a streaming data set, whose rows have no numbers; need one that is not.")
    if not len(rows):
        raise ValueError(f"{origin} has no rows to embed; check its split and rows.")
    if len(rows) > _MOST_SHARDS * rows_per_shard:
        raise ValueError(
            f"Got rows_per_shard {rows_per_shard} for {len(rows)} rows, which makes more than {_MOST_SHARDS} files. "
            f"Raise it to {-(-len(rows) // _MOST_SHARDS)} or more."
        )
    roles = _roles(rows, roles, origin)
    taken = [name for name in _vector_columns(roles, suffix, precision) if name in rows.column_names]
    if taken:
        raise ValueError(
            f"{origin} has a column {taken[0]!r} already, which is where vectors go. Set another suffix, "
            "or leave the column out of the source."
        )
    facts: dict[str, dict[str, Any]] = {role: model.facts(role) for role in sorted(set(roles.values()))}
    shared: dict[str, Any] = {
        "model": constructor_arguments(model).get("path"),
        "fingerprint": model.fingerprint,
        "dim": dim,
        "precision": precision,
    }
    return VectorManifest(
        rows=len(rows),
        rows_per_shard=rows_per_shard,
        source={"class": origin, "fingerprint": rows._fingerprint},
        columns={
            f"{column}{suffix}": VectorColumn(source_column=column, role=role, **shared, **facts[role])
            for column, role in roles.items()
        },
    )


def _vector_columns(columns: Mapping[str, str], suffix: str, precision: Precision) -> list[str]:
    names = [f"{column}{suffix}" for column in columns]
    return names + [f"{name}{SCALE}" for name in names] if precision == "int8" else names


def _roles(rows: "datasets.Dataset", roles: Mapping[str, str] | None, origin: str) -> dict[str, str]:
    import pyarrow as pa

    if roles is None:
        roles = {column: "query" if column == "query" else "document" for column in text_columns(rows.column_names)}
    if not roles:
        raise ValueError(
            f"{origin} has the columns {', '.join(rows.column_names)}, and none is known to hold texts. "
            "Say which to embed: columns={name: query or document}."
        )
    for column, role in roles.items():
        check_role(role, PROMPT_ROLES, f"the role of {column!r},")
        if column not in rows.column_names:
            raise ValueError(
                f"{origin} has the columns {', '.join(rows.column_names)}; none is {column!r}."
                f"{did_you_mean(column, rows.column_names)} Correct columns."
            )
        kind = rows.features.arrow_schema.field(column).type
        text = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
        if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
            raise ValueError(
                f"{origin}: column {column!r} holds {kind}; need texts, or lists of texts. Correct columns."
            )
    return dict(roles)


def _same_rows(folder: VectorFolder, source: Source, rank: int) -> "datasets.Dataset":
    """Load the rows, and make sure that this rank sees what rank 0 sees."""
    folder.check_shared(rank)
    rows = source.load()
    if rows._fingerprint != folder.plan.source["fingerprint"]:
        raise ValueError(
            f"Rank {rank} sees other rows than rank 0. Give all ranks the same files, in one shared folder."
        )
    return rows


# The work


@dataclass
class _Work:
    """What every file of a run is made with."""

    plan: VectorManifest
    model: Teacher
    recent: RecentVectors
    bar: tqdm

    def table(self, table: "pa.Table", first_row: int) -> "pa.Table":
        """Return the table with its vectors; each distinct text of a role is looked at once."""
        found: dict[str, Any] = {}
        for role in sorted({column.role for column in self.plan.columns.values()}):
            columns = {name: column for name, column in self.plan.columns.items() if column.role == role}
            texts = {name: _texts(table, column.source_column, first_row) for name, column in columns.items()}
            distinct = {text: None for some, _ in texts.values() for text in some}
            position = {text: at for at, text in enumerate(distinct)}
            self.bar.update(sum(len(some) for some, _ in texts.values()) - len(distinct))
            try:
                stored = self._embed(list(distinct), role)
            except _NotFiniteError as error:
                raise ValueError(_located(error.text, texts, self.plan, first_row)) from error
            for name, (some, counts) in texts.items():
                at = torch.tensor([position[text] for text in some], dtype=torch.int64)
                found[name] = arrow_columns(name, stored[at], counts)
        for name in self.plan.columns:
            for column, array in found[name].items():
                table = table.append_column(column, array)
        return table

    def _embed(self, texts: Sequence[str], role: str) -> StoredVectors:
        """Embed distinct texts; those that are remembered are not encoded."""
        like = next(iter(self.plan.columns.values()))  # all columns have one dim and precision
        precision: Any = like.precision
        known, remembered = self.recent.find(texts, role)
        self.bar.update(len(known))
        fresh = sorted(set(range(len(texts))) - set(known.tolist()), key=lambda at: (-len(texts[at]), at))
        parts = [store(torch.empty(0, like.dim), precision)]
        if remembered is not None:
            parts.append(remembered)
        for some in _calls([texts[at] for at in fresh]):
            embeddings = self.model.encode(some, role, truncate_dim=like.dim if like.dim < like.full_dim else None)
            finite = embeddings.isfinite().all(dim=1)
            if not finite.all():
                raise _NotFiniteError(some[int((~finite).nonzero()[0])])
            stored = store(embeddings, precision)
            self.recent.add(some, role, stored)
            parts.append(stored)
            self.bar.update(len(some))
        order = torch.cat([known, torch.tensor(fresh, dtype=torch.int64)])
        return StoredVectors.cat(parts)[order.argsort()]


class _NotFiniteError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _text_count(tables: "datasets.Dataset", plan: VectorManifest, spans: Iterable[slice]) -> int:
    """Return how many texts the rows of some spans have, without reading them."""
    import pyarrow.compute as pc

    columns = [column.source_column for column in plan.columns.values()]
    kinds = tables.features.arrow_schema
    nested = [column for column in columns if hasattr(kinds.field(column).type, "value_type")]
    count = 0
    for span in spans:
        rows = min(span.stop, plan.rows) - span.start
        count += rows * (len(columns) - len(nested))
        if nested:
            lists = tables.select_columns(nested)[span]
            count += sum(int(pc.sum(pc.list_value_length(lists[column])).as_py() or 0) for column in nested)
    return count


def _texts(table: "pa.Table", column: str, first_row: int) -> tuple[list[str], list[int] | None]:
    """Return the texts of a column and, where its rows are lists, how many each has."""
    import pyarrow.compute as pc

    array: Any = table.column(column).combine_chunks()
    nested = hasattr(array.type, "value_type")
    rows = None
    flat = array
    if nested and not array.null_count:
        rows, flat = pc.list_parent_indices(array), array.flatten()
    if negative_columns([column]):
        flat = pc.fill_null(flat, "")  # of a row with fewer negatives than others: its vector is never read
    if flat.null_count:
        at = pc.index(pc.is_null(flat), True).as_py()
        raise ValueError(
            f"Row {first_row + (at if rows is None else rows[at].as_py())} (the first is 0): column {column!r} has no "
            "text there. Fill it in, or leave the row out; the files finished so far are kept."
        )
    return flat.to_pylist(), pc.list_value_length(array).to_pylist() if nested else None


def _calls(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts into parts of a forward pass or so."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and (len(some) == _TEXTS_PER_CALL or characters + len(text) > _CHARACTERS_PER_CALL):
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


def _located(text: str, texts: Mapping[str, tuple[list[str], Any]], plan: VectorManifest, first_row: int) -> str:
    name = next(name for name, (some, _) in texts.items() if text in some)
    some, counts = texts[name]
    row = some.index(text)
    if counts is not None:
        row = int(torch.searchsorted(torch.tensor(counts).cumsum(0), row, right=True))
    column = plan.columns[name]
    return (
        f"Row {first_row + row} (the first is 0), column {column.source_column!r}: the vector of {text[:60]!r} is not "
        f"finite in {column.precision}. Check the model's weights and dtype; the files finished so far are kept."
    )
