import pytest
import torch

from lightning_jv5.data.document_pairs import DocumentPairs, pairs_of


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_found_by_their_documents(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, document = (torch.randint(count, (60,), generator=generator) for count in (7, 30))
    rows = torch.randperm(40, generator=generator)[:15]
    pairs = DocumentPairs(query, document)
    place, column = pairs.among(rows)
    found = sorted(zip(pairs.query[place].tolist(), rows[column].tolist(), strict=True))
    everything = zip(query.tolist(), document.tolist(), strict=True)
    assert found == sorted((q, d) for q, d in everything if d in rows.tolist())
    assert pairs.document.equal(document[pairs.order])


def test_no_pairs_and_no_rows_give_none() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert [len(part) for part in DocumentPairs(nothing, nothing).among(torch.arange(3))] == [0, 0]
    assert [len(part) for part in DocumentPairs(torch.ones(1).long(), torch.ones(1).long()).among(nothing)] == [0, 0]


def test_rows_may_stand_alone_or_in_any_collection() -> None:
    counts = {"query_count": 3, "document_count": 5}
    assert pairs_of({0: 4, 2: 1}, "pairs", **counts).tolist() == [1 * 3 + 2, 4 * 3]
    assert pairs_of({2: {4, 1}, 0: (), 1: [3, 3]}, "pairs", **counts).tolist() == [5, 10, 14]
    assert pairs_of({}, "pairs", **counts).tolist() == []


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({3: [0]}, "Got pairs with query rows 3 to 3; need 0 to 2"),
        ({0: [0, 5]}, "Got pairs with document rows 0 to 5; need 0 to 4"),
        ({0: -1}, "Got pairs with document rows -1 to -1; need 0 to 4"),
    ],
)
def test_rows_that_are_not_there_are_refused(mapping: dict[int, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs_of(mapping, "pairs", query_count=3, document_count=5)
