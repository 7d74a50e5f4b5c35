import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from lightning_jv5.data.layouts import row_by_row
from lightning_jv5.data.mixture import Draw, MixturePlan, PlannedSet
from lightning_jv5.data.rows import BatchReader
from lightning_jv5.data.stream import StreamedRows
from lightning_jv5.data.training_batches import TrainingBatches
from lightning_jv5.models.tokenization import TokenizedTexts

ROWS = 23


class Number:
    """A text is the number of its row, and that is its token."""

    fingerprint = "number"

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        return TokenizedTexts([[int(text)] for text in texts], [False] * len(texts))


def opened() -> IterableDataset:
    rows = Dataset.from_dict({"text": [str(row) for row in range(ROWS)]})
    return rows.to_iterable_dataset(num_shards=4).filter(lambda row: int(row["text"]) != 7)


def streamed(shuffle_rows: int = 0, mark: Any = None, seed: int = 0, batch_size: int = 4) -> StreamedRows:
    reader = BatchReader("s", row_by_row(["text"], 0, "s"), {"text": Number()}, {})
    return StreamedRows(opened, reader, batch_size, shuffle_rows=shuffle_rows, seed=seed, mark=mark)


def rows_of(stream: StreamedRows, batch: int, part: slice = slice(None)) -> list[int]:
    rows: list[int] = stream.batch(Draw(batch, "s", batch), part).texts["query"].token_ids.tolist()
    return rows


def test_rows_come_in_their_order_epoch_after_epoch() -> None:
    stream = streamed()
    order = [row for row in range(ROWS) if row != 7]
    batches = [order[start : start + 4] for start in range(0, 20, 4)]  # the last two rows fill no batch
    assert [rows_of(stream, batch) for batch in range(12)] == [*batches, *batches, *batches[:2]]


def test_rows_are_shuffled_within_blocks_and_otherwise_in_every_epoch() -> None:
    stream = streamed(shuffle_rows=6)  # blocks of 8
    batches = [rows_of(stream, batch) for batch in range(10)]
    order = [row for row in range(ROWS) if row != 7]
    first, second = (list(itertools.chain(*batches[start : start + 2])) for start in (0, 5))
    assert sorted(first) == sorted(second) == order[:8]
    assert first != second
    assert first != order[:8]
    assert batches != [rows_of(streamed(shuffle_rows=6, seed=1), batch) for batch in range(10)]
    assert len(set(batches[4])) == 4  # the block at the end has 6 rows, of which 4 are drawn
    assert set(batches[4]) <= set(order[16:])


@pytest.mark.parametrize("shuffle_rows", [0, 8, 100])
@pytest.mark.parametrize("position", [1, 2, 5, 6, 11])
def test_a_stream_is_taken_up_where_a_batch_left_it(shuffle_rows: int, position: int) -> None:
    stream = streamed(shuffle_rows)
    expected = [rows_of(stream, batch) for batch in range(16)]
    mark = streamed(shuffle_rows).batch(Draw(0, "s", position - 1), slice(None)).stream
    resumed = streamed(shuffle_rows, mark=json.loads(json.dumps(mark)))
    assert [rows_of(resumed, batch) for batch in range(position, 16)] == expected[position:]


def test_a_reader_goes_back_to_what_was_prefetched_and_dropped() -> None:
    stream = streamed(8)
    expected = [rows_of(stream, batch) for batch in range(8)]
    assert [rows_of(stream, batch) for batch in (3, 5, 2, 0, 7)] == [expected[batch] for batch in (3, 5, 2, 0, 7)]
    resumed = streamed(8, mark=stream.batch(Draw(0, "s", 5), slice(None)).stream)
    with pytest.raises(ValueError, match="'s' can be taken up at batch 5, which is after batch 0"):
        rows_of(resumed, 0)


def test_parts_are_those_of_the_whole_batch() -> None:
    whole = streamed(8)
    first, second = streamed(8), streamed(8)
    for batch in range(7):
        parts = rows_of(first, batch, slice(0, 2)) + rows_of(second, batch, slice(2, 4))
        assert parts == rows_of(whole, batch)


@pytest.mark.parametrize("workers", [1, 3])
def test_loader_workers_change_nothing(workers: int) -> None:
    plan = MixturePlan({"s": PlannedSet(None, 4)}, seed=0)
    data = TrainingBatches(plan, {"s": streamed(8)})
    loader = DataLoader(data, batch_size=None, sampler=range(14), num_workers=workers, collate_fn=lambda batch: batch)
    alone = streamed(8)
    assert [batch.texts["query"].token_ids.tolist() for batch in loader] == [rows_of(alone, step) for step in range(14)]


def test_a_stream_of_fewer_rows_than_a_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="'s' has fewer rows than its batch_size, 24"):
        rows_of(streamed(batch_size=24), 0)
