"""A stream of rows, cut into batches that are the same whoever reads them, and taken up again where it was left."""

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_jv5.data.batches import TextBatch
from lightning_jv5.data.keyed import key, permuted
from lightning_jv5.data.mixture import Draw
from lightning_jv5.data.rows import BatchReader

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_MARKS = 16  # places that a reader can go back to: loaders may drop what they have prefetched

Mark = dict[str, Any]


class StreamedRows:
    """Batches of a stream, in order, from the first or from a mark.

    Every process reads the whole stream and takes its own part of each batch, so that the batches do not depend on how
    many processes and loader workers there are. Rows are shuffled within blocks, each by a permutation of its own; a
    stream that has ended begins again. Rows that do not fill a batch at the end of a block are left out.

    Args:
        open_stream: Opens the stream; its tables have canonical names.
        reader: Makes batches of them.
        batch_size: Rows in a global batch.
        shuffle_rows: Rows in a block, rounded up to whole batches; 0 keeps the stream's order.
        seed: Decides the permutations.
        mark: Where to begin: what a batch had as ``stream``.
    """

    def __init__(
        self,
        open_stream: Callable[[], "datasets.IterableDataset"],
        reader: BatchReader,
        batch_size: int,
        *,
        shuffle_rows: int = 0,
        seed: int = 0,
        mark: Mark | None = None,
    ) -> None:
        self.open_stream, self.reader, self.batch_size = open_stream, reader, batch_size
        self.block_rows = batch_size * max(1, -(-shuffle_rows // batch_size))
        self.seed = seed
        self._marks: list[Mark] = [mark or {"batch": 0, "state": None}]
        self._blocks: Iterator[tuple[Mark, pa.Table]] | None = None
        self._block: tuple[Mark, pa.Table] | None = None

    def batch(self, draw: Draw, part: slice) -> TextBatch:
        """Return a part of a global batch; cheapest where each comes after the one before.

        Args:
            draw: Which batch.
            part: This process's rows of it.

        Raises:
            ValueError: If the stream has fewer rows than a batch, or has gone too far beyond the batch.
        """
        mark, block = self._block_with(draw.batch)
        start = (draw.batch - mark["batch"]) * self.batch_size
        places = np.arange(start, start + self.batch_size)[part]
        if self.block_rows > self.batch_size:
            places = permuted(places, len(block), key("stream", self.seed, self.reader.name, mark["batch"]))
        table = block.take(places)
        roles = self.reader.layout.roles(np.arange(len(table)), 0)
        batch = self.reader.read(dict.fromkeys(roles, table), roles, draw)
        batch.stream = mark
        return batch

    def _block_with(self, number: int) -> tuple[Mark, Any]:
        """Return the block that a batch is in."""
        if self._block is None or number < self._block[0]["batch"]:
            reachable = [mark for mark in self._marks if mark["batch"] <= number]
            if not reachable:
                raise ValueError(
                    f"The stream {self.reader.name!r} can be taken up at batch {self._marks[0]['batch']}, which is "
                    f"after batch {number}. Resume from a checkpoint of this run."
                )
            self._blocks = self._read(reachable[-1])
            self._block = next(self._blocks)
        assert self._blocks is not None
        while number >= self._block[0]["batch"] + len(self._block[1]) // self.batch_size:
            self._block = next(self._blocks)
        return self._block

    def _read(self, mark: Mark) -> Iterator[tuple[Mark, Any]]:
        batch, state = mark["batch"], mark["state"]
        while True:
            stream = self.open_stream().with_format("arrow")
            from_start, found = state is None, False
            if state is not None:
                stream.load_state_dict(copy.deepcopy(state))
            for table in stream.iter(batch_size=self.block_rows):
                if len(table) >= self.batch_size:
                    found = True
                    reached = {"batch": batch, "state": state}
                    if batch > self._marks[-1]["batch"]:
                        self._marks = [self._marks[0], *self._marks[1:][-_MARKS + 2 :], reached]
                    yield reached, table
                batch += len(table) // self.batch_size
                state = copy.deepcopy(stream.state_dict())
            if from_start and not found:
                raise ValueError(
                    f"The stream {self.reader.name!r} has fewer rows than its batch_size, {self.batch_size}. Lower "
                    "that, or correct the source."
                )
            state = None
