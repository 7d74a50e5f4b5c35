"""Write what ``predict`` encodes to Parquet while it is encoded, and read it back."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from lightning_jv5.data.cache import write_json
from lightning_jv5.tasks import EmbeddedTexts

_MANIFEST = "embeddings.json"
_ROWS_PER_GROUP = 4096  # what is held at once: 16 MiB at 1024 coordinates


class EmbeddingWriter(BasePredictionWriter):
    """Write embeddings to ``embeddings-<rank>-<shard>.parquet`` as they are made; :func:`read_embeddings` reads them.

    The columns are ``row``, the position in the corpus, and ``embedding``, a list of fixed size. A file has its name
    once it is whole, and the folder an ``embeddings.json`` once everything is there. Nothing is held in memory:
    ``trainer.predict`` then returns no predictions.

    Args:
        folder: Where to; made if it is not there.
        dtype: Of the numbers.
        rows_per_file: Rows in a file, of one rank.
        overwrite: Whether the embeddings that are in the folder may be replaced.

    Raises:
        ValueError: If an argument is wrong; at setup, if the folder is not empty.

    Example::

        trainer = Trainer(callbacks=[EmbeddingWriter("corpus", dtype="float16")])
        trainer.predict(module, datamodule=datamodule)
        embeddings = read_embeddings("corpus")
    """

    def __init__(
        self,
        folder: str,
        dtype: Literal["float32", "float16"] = "float32",
        rows_per_file: int = 65536,
        overwrite: bool = False,
    ) -> None:
        super().__init__(write_interval="batch")
        if dtype not in ("float32", "float16"):
            raise ValueError(f"Got dtype {dtype!r}; need 'float32' or 'float16'. Correct it.")
        if rows_per_file < 1:
            raise ValueError(f"Got rows_per_file {rows_per_file}; need at least 1. Raise it.")
        self.folder, self.dtype = folder, dtype
        self.rows_per_file, self.overwrite = rows_per_file, overwrite
        self._shard: _Shard | None = None
        self._shards = self._rows = self._dim = 0
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to mix embeddings with what is there already."""
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        folder = Path(self.folder)
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        # All ranks decide alike: a single one that raised would leave the others waiting
        refused = bool(found) and not self.overwrite
        if trainer.strategy.reduce_boolean_decision(refused, all=False):
            raise ValueError(
                f"Got the folder {self.folder!r}, which holds {found[0] if found else 'files on another machine'}; "
                "need an empty one. Name another folder, or set overwrite=True to replace the embeddings in it."
            )
        folder.mkdir(parents=True, exist_ok=True)
        if trainer.local_rank == 0:
            for stale in [folder / _MANIFEST, *folder.glob("embeddings-*.parquet"), *folder.glob(".embeddings-*")]:
                stale.unlink(missing_ok=True)
        trainer.strategy.barrier("EmbeddingWriter.setup")
        self._shard, self._shards, self._rows, self._dim, self._waiting = None, 0, 0, 0, []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the Trainer from holding the predictions."""
        trainer.predict_loop.return_predictions = False

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write a batch, or let it wait until there is enough for a row group."""
        if not isinstance(prediction, EmbeddedTexts):
            raise ValueError(
                f"EmbeddingWriter got a {type(prediction).__name__} from predict_step; need EmbeddedTexts. "
                "Return them, as EmbeddingModule does."
            )
        embeddings = prediction.embeddings.to("cpu", getattr(torch, self.dtype))
        self._dim = embeddings.shape[1]
        self._waiting.append((prediction.rows.cpu(), embeddings))
        if sum(len(rows) for rows, _ in self._waiting) >= _ROWS_PER_GROUP:
            self._write_waiting(trainer)

    def _write_waiting(self, trainer: Trainer) -> None:
        if not self._waiting:
            return
        rows, embeddings = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        while len(rows):
            if self._shard is None:
                name = f"embeddings-{trainer.global_rank}-{self._shards}.parquet"
                self._shard, self._shards = _Shard(Path(self.folder) / name), self._shards + 1
            room = self.rows_per_file - self._shard.rows
            self._shard.write(rows[:room], embeddings[:room])
            self._rows += len(rows[:room])
            rows, embeddings = rows[room:], embeddings[room:]
            if self._shard.rows == self.rows_per_file:
                self._shard.close()
                self._shard = None

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the files, then say that they are all there."""
        self._write_waiting(trainer)
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        counts = trainer.strategy.all_gather(torch.tensor([self._rows, self._dim], device=pl_module.device))
        rows, dims = counts.reshape(-1, 2).T.tolist()
        trainer.strategy.barrier("EmbeddingWriter.on_predict_end")
        if trainer.is_global_zero:
            facts = {"rows": sum(rows), "dim": max(dims), "dtype": self.dtype}
            write_json(Path(self.folder) / _MANIFEST, facts)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half-written file."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None


class _Shard:
    """A Parquet file that has its name once it is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._temporary = path.with_name(f".{path.name}.part")
        self._writer: Any = None

    def write(self, rows: Tensor, embeddings: Tensor) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.numpy().reshape(-1)), embeddings.shape[1])
        table = pa.table({"row": pa.array(rows.numpy()), "embedding": vectors})
        if self._writer is None:
            # Embeddings neither repeat nor compress, so trying would only cost time
            self._writer = pq.ParquetWriter(self._temporary, table.schema, use_dictionary=False, compression="none")
        self._writer.write_table(table)
        self.rows += len(rows)

    def close(self) -> None:
        self._writer.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._temporary.unlink(missing_ok=True)


def read_embeddings(folder: str | Path) -> Tensor:
    """Read what :class:`EmbeddingWriter` wrote.

    Args:
        folder: Its folder.

    Returns:
        Embeddings in the order of the corpus, in the dtype in which they were written; shape ``(rows, dim)``.

    Raises:
        ValueError: If the folder is not a finished one, or a row is missing or there twice.

    Example::

        similarity = read_embeddings("queries") @ read_embeddings("corpus").T
    """
    import pyarrow.parquet as pq

    manifest = Path(folder) / _MANIFEST
    if not manifest.is_file():
        raise ValueError(
            f"Got the folder {str(folder)!r} without {_MANIFEST}; need one that predict has finished with an "
            "EmbeddingWriter. Correct the path, or run predict again."
        )
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    embeddings = torch.empty(facts["rows"], facts["dim"], dtype=getattr(torch, facts["dtype"]))
    times_seen = torch.zeros(facts["rows"], dtype=torch.int64)
    beyond = 0
    for path in sorted(Path(folder).glob("embeddings-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                rows = torch.tensor(table["row"].to_numpy())
                vectors = torch.tensor(table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False))
                known = (rows >= 0) & (rows < len(embeddings))
                beyond += int((~known).sum())
                embeddings[rows[known]] = vectors.reshape(len(rows), -1)[known]
                times_seen.index_add_(0, rows[known], torch.ones_like(rows[known]))
    missing, doubled = (times_seen == 0).nonzero().flatten(), (times_seen > 1).nonzero().flatten()
    if len(missing) or len(doubled) or beyond:
        raise ValueError(
            f"Got {len(missing)} missing rows {missing[:5].tolist()}, {len(doubled)} doubled ones "
            f"{doubled[:5].tolist()} and {beyond} beyond the last in {str(folder)!r}; need each of the "
            f"{len(embeddings)} rows once. Was a file removed or added, or prediction limited? Run predict again."
        )
    return embeddings
