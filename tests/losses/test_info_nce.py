import gc
import itertools
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_jv5.losses import (
    EmbeddingBatch,
    FalseNegatives,
    InfoNCE,
    LearnableTemperature,
    LinearRamp,
    Matryoshka,
    info_nce,
)
from tests.losses.comparing import assert_same, doubled, rows
from tests.references import slow_info_nce

DIRECTIONS = ("query_to_document", "document_to_query", "both")


def reference(
    query: Tensor,
    document: Tensor,
    temperature: float | Tensor,
    *,
    negatives: Tensor | None = None,
    owners: list[int] | None = None,
    direction: str = "query_to_document",
    own_negatives: bool = False,
    query_query: bool = False,
    document_document: bool = False,
    same_answer: Any = lambda i, j: False,
    left_out: Any = lambda anchor, i, role, j: False,
    hardness: float = 0.0,
    only: range | None = None,
) -> Tensor:
    """Say in plain Python which texts are whose answers and negatives, and leave the formula to the reference."""
    batch = range(len(query))
    only = batch if only is None else only
    total = query.new_zeros(())
    if direction in {"query_to_document", "both"}:
        answers = [[document[j] for j in batch if j == i or same_answer(i, j)] for i in only]
        against = [
            [document[j] for j in batch if not (j == i or same_answer(i, j) or left_out("query", i, "document", j))]
            for i in only
        ]
        for place, i in enumerate(only):
            if negatives is not None:
                against[place] += [
                    negatives[j]
                    for j in range(len(negatives))
                    if not (own_negatives and owners is not None and owners[j] != i)
                    and not left_out("query", i, "negatives", j)
                ]
            if query_query:
                against[place] += [query[j] for j in batch if j != i and not left_out("query", i, "query", j)]
        total = total + slow_info_nce([query[i] for i in only], answers, against, temperature, hardness)
    if direction in {"document_to_query", "both"}:
        answers = [[query[j] for j in batch if j == i or same_answer(i, j)] for i in only]
        against = [
            [query[j] for j in batch if not (j == i or same_answer(i, j) or left_out("document", i, "query", j))]
            for i in only
        ]
        for place, i in enumerate(only):
            if document_document:
                against[place] += [document[j] for j in batch if j != i and not left_out("document", i, "document", j)]
        total = total + slow_info_nce([document[i] for i in only], answers, against, temperature, hardness)
    return total


def says_text(ids: dict[str, Tensor]) -> Any:
    """The rule in plain Python: the anchor's text, the answer to any equal anchor, another anchor with its answer."""

    def left_out(anchor: str, i: int, role: str, j: int) -> bool:
        asked, answers = (ids[side].tolist() for side in (anchor, "document" if anchor == "query" else "query"))
        texts = {asked[i], *(answers[row] for row in range(len(asked)) if asked[row] == asked[i])}
        return ids[role].tolist()[j] in texts or (role == anchor and answers[j] == answers[i])

    return left_out


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("counts", "own_negatives"),
    [(None, False), ([2, 0, 1, 3, 1], False), ([2, 0, 1, 3, 1], True)],
    ids=["no negatives", "of all", "own"],
)
@pytest.mark.parametrize("tile_rows", [1, 2, None])
def test_info_nce_matches_slow_reference(
    direction: Any, counts: list[int] | None, own_negatives: bool, tile_rows: int | None
) -> None:
    query, document = rows(5, seed=0), rows(5, seed=1)
    negatives = None if counts is None else rows(sum(counts), seed=2)
    temperature = torch.tensor(0.3, requires_grad=True)
    inputs = [query, document, temperature]
    # Documents choose among queries: hard negatives have no part in that
    if negatives is not None and direction != "document_to_query":
        inputs.append(negatives)
    loss = info_nce(
        query,
        document,
        temperature=temperature,
        negatives=negatives,
        negative_counts=None if counts is None else torch.tensor(counts),
        own_negatives=own_negatives,
        direction=direction,
        tile_rows=tile_rows,
    )
    copies = doubled(*inputs)
    owners = [i for i, count in enumerate(counts or []) for _ in range(count)]
    expected = reference(
        *copies[:3], negatives=copies[3] if len(copies) > 3 else None, owners=owners, own_negatives=own_negatives,
        direction=direction,
    )  # fmt: skip
    assert_same(loss, inputs, expected, copies)


@pytest.mark.parametrize(("query_query", "document_document"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("hardness", [0.0, 2.0])
def test_texts_of_the_same_side_can_be_negatives_and_the_hard_ones_weigh_more(
    query_query: bool, document_document: bool, hardness: float
) -> None:
    inputs = [rows(4, seed=0), rows(4, seed=1), torch.tensor(0.5, requires_grad=True)]
    options: dict[str, Any] = {
        "direction": "both",
        "query_query": query_query,
        "document_document": document_document,
        "hardness": hardness,
    }
    loss = info_nce(*inputs[:2], temperature=inputs[2], tile_rows=3, **options)
    copies = doubled(*inputs)
    assert_same(loss, inputs, reference(*copies, **options), copies)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("multiple", [False, True])
def test_equal_texts_are_left_out_or_are_answers(direction: Any, multiple: bool) -> None:
    # Rows 0 and 2 ask the same; rows 1 and 3 have the same answer, which is also a hard negative of row 4, as is the
    # second answer to the question of row 0; the query of row 4 is the answer of row 0
    ids = {
        "query": torch.tensor([1, 2, 1, 3, 10]),
        "document": torch.tensor([10, 11, 12, 11, 13]),
        "negatives": torch.tensor([11, 12, 20]),
    }
    query, document, negatives = rows(5, seed=0), rows(5, seed=1), rows(3, seed=2)
    known = FalseNegatives(**{f"{role}_id": numbers for role, numbers in ids.items()})
    options: dict[str, Any] = {"direction": direction, "query_query": True}
    loss = info_nce(
        query, document, negatives=negatives, temperature=0.4, false_negatives=known, multiple_positives=multiple,
        **options,
    )  # fmt: skip

    q, d, n = doubled(query, document, negatives)
    same_answer = (lambda i, j: bool(ids["query"][i] == ids["query"][j])) if multiple else (lambda i, j: False)
    expected = reference(q, d, 0.4, negatives=n, same_answer=same_answer, left_out=says_text(ids), **options)
    inputs, copies = ([query, document], [q, d])
    if direction != "document_to_query":
        inputs, copies = [*inputs, negatives], [*copies, n]
    assert_same(loss, inputs, expected, copies)


def test_texts_of_one_class_are_no_negatives_of_each_other() -> None:
    label, negatives_label = torch.tensor([0, 1, 0, 2]), torch.tensor([1, 2, 2])
    query, document, negatives = rows(4, seed=0), rows(4, seed=1), rows(3, seed=2)
    known = FalseNegatives(label=label, negatives_label=negatives_label)
    loss = info_nce(query, document, negatives=negatives, temperature=0.4, false_negatives=known, direction="both")

    def left_out(anchor: str, i: int, role: str, j: int) -> bool:
        return bool(label[i] == (negatives_label if role == "negatives" else label)[j])

    copies = doubled(query, document, negatives)
    expected = reference(*copies[:2], 0.4, negatives=copies[2], left_out=left_out, direction="both")
    assert_same(loss, [query, document, negatives], expected, copies)


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.4])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_the_teacher_finds_too_similar_is_left_out(margin: float, direction: Any) -> None:
    query, document, negatives = rows(6, seed=0), rows(6, seed=1), rows(4, seed=2)
    teacher = {role: rows(count, 3, seed).detach() for seed, (role, count) in
               enumerate([("query", 6), ("document", 6), ("negatives", 4)], start=5)}  # fmt: skip
    known = FalseNegatives(
        query_teacher=teacher["query"],
        document_teacher=teacher["document"],
        negatives_teacher=teacher["negatives"],
        teacher_margin=margin,
    )
    loss = info_nce(
        query, document, negatives=negatives, temperature=0.4, false_negatives=known, direction=direction, tile_rows=4
    )
    dropped = []

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))

    def left_out(anchor: str, i: int, role: str, j: int) -> bool:
        answer = cosine(teacher["query"][i], teacher["document"][i])
        dropped.append(cosine(teacher[anchor][i], teacher[role][j]) > answer + margin)
        return dropped[-1]

    copies = doubled(query, document, negatives)
    expected = reference(*copies[:2], 0.4, negatives=copies[2], left_out=left_out, direction=direction)
    assert 0 < sum(dropped) < len(dropped)
    used = 2 if direction == "document_to_query" else 3
    assert_same(loss, [query, document, negatives][:used], expected, copies[:used])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
@pytest.mark.parametrize("tile_rows", [2, None])
def test_all_matryoshka_dims_at_once_are_the_sum_over_truncated_embeddings(
    direction: Any, weights: list[float] | None, tile_rows: int | None
) -> None:
    query, document, negatives = rows(5, seed=0), rows(5, seed=1), rows(3, seed=2)
    temperature, dims = torch.tensor(0.3, requires_grad=True), [2, 6, 3]
    loss = info_nce(
        query, document, negatives=negatives, temperature=temperature, direction=direction, dims=dims,
        dim_weights=weights, tile_rows=tile_rows, hardness=1.0,
    )  # fmt: skip
    copies = doubled(query, document, temperature, negatives)
    expected = sum(
        weight
        * reference(
            copies[0][:, :dim], copies[1][:, :dim], copies[2], negatives=copies[3][:, :dim], direction=direction,
            hardness=1.0,
        )
        for dim, weight in zip(dims, weights or [1.0] * 3, strict=True)
    )  # fmt: skip
    inputs = [query, document, temperature, negatives][: 3 if direction == "document_to_query" else 4]
    assert_same(loss, inputs, expected, copies[: len(inputs)])


def test_masks_are_looked_up_once_for_all_dims_and_not_kept() -> None:
    asked: list[slice] = []

    class Counting(FalseNegatives):
        def of(self, anchor: str, role: str, own: slice) -> Tensor | None:
            asked.append(own)
            return super().of(anchor, role, own)

    query, document = rows(5, seed=0), rows(5, seed=1)
    known = Counting(label=torch.arange(5))
    info_nce(query, document, temperature=0.3, dims=[6, 4, 2], tile_rows=2, false_negatives=known)
    assert [(own.start, own.stop) for own in asked] == [(0, 2), (2, 4), (4, 5)]
    held = weakref.ref(known)
    gc.disable()  # nothing but counting references frees it
    try:
        del known
        assert held() is None
    finally:
        gc.enable()


class Operations(TorchDispatchMode):
    """Keeps the name and the result of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.made.append((func.overloadpacket.__name__, func(*args, **(kwargs or {}))))
        return self.made[-1][1]

    def products(self) -> int:
        return sum(name in {"mm", "addmm_"} for name, _ in self.made)


@pytest.mark.parametrize("dims", [[8], [8, 4]])
def test_no_gradient_is_computed_where_none_is_wanted(dims: list[int]) -> None:
    query, document = rows(64, 8, seed=0), rows(64, 8, seed=1)
    with Operations() as without, torch.no_grad():
        info_nce(query, document, temperature=0.1, dims=dims)
    with Operations() as with_gradient:
        info_nce(query, document, temperature=0.1, dims=dims)
    assert (without.products(), with_gradient.products()) == (len(dims), 3 * len(dims))


def test_rows_are_averaged_over_a_part_while_all_are_candidates() -> None:
    query, document = rows(6, seed=0), rows(6, seed=1)
    loss = info_nce(query, document, temperature=0.3, rows=slice(2, 5), direction="both", tile_rows=2)
    copies = doubled(query, document)
    assert_same(loss, [query, document], reference(*copies, 0.3, only=range(2, 5), direction="both"), copies)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_batch_agrees_with_the_slow_reference(data: st.DataObject) -> None:
    batch, dim = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    counts = data.draw(st.lists(st.integers(0, 3), min_size=batch, max_size=batch))
    lengths = {"query": batch, "document": batch, "negatives": sum(counts)}
    ids = {
        role: torch.tensor(data.draw(st.lists(st.integers(0, 8), min_size=length, max_size=length)), dtype=torch.int64)
        for role, length in lengths.items()
    }
    same_side = data.draw(st.booleans())
    seed, temperature = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([0.005, 0.02, 0.3, 5.0, 100.0]))
    direction, own = data.draw(st.sampled_from(DIRECTIONS)), data.draw(st.booleans())
    tile_rows = data.draw(st.integers(1, 7))
    query, document = (rows(batch, dim, seed + n, torch.float64) for n in range(2))
    negatives = rows(sum(counts), dim, seed + 2, torch.float64)
    loss = info_nce(
        query, document, negatives=negatives, negative_counts=torch.tensor(counts), own_negatives=own,
        temperature=temperature, direction=direction, tile_rows=tile_rows,
        query_query=same_side,
        false_negatives=FalseNegatives(**{f"{role}_id": numbers for role, numbers in ids.items()}),
    )  # fmt: skip

    copies = doubled(query, document, negatives)
    owners = [i for i, count in enumerate(counts) for _ in range(count)]
    expected = reference(
        *copies[:2], temperature, negatives=copies[2], owners=owners, own_negatives=own, direction=direction,
        left_out=says_text(ids), query_query=same_side,
    )  # fmt: skip
    if not bool(expected.isfinite()):  # the reference divides exp(-200) by a sum of such
        return
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)
    if expected.requires_grad:
        wanted = torch.autograd.grad(expected, copies, allow_unused=True)
        found = torch.autograd.grad(loss, [query, document, negatives], allow_unused=True)
        for gradient, reference_gradient in zip(found, wanted, strict=True):
            zero = torch.zeros(()) if gradient is None else torch.zeros_like(gradient)
            torch.testing.assert_close(
                zero if gradient is None else gradient,
                zero if reference_gradient is None else reference_gradient,
                atol=1e-7,
                rtol=1e-6,
                check_dtype=False,
            )


@pytest.mark.parametrize("dims", [None, [4, 2]])
def test_gradient_agrees_with_finite_differences(dims: list[int] | None) -> None:
    inputs = [rows(4, 4, seed, torch.float64) for seed in range(2)]
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def loss(query: Tensor, document: Tensor, tau: Tensor) -> Tensor:
        return info_nce(query, document, temperature=tau, dims=dims, direction="both", tile_rows=3)

    assert torch.autograd.gradcheck(loss, (*inputs, temperature))


def test_what_the_gradient_is_multiplied_with_counts() -> None:
    query, document = rows(4, seed=0), rows(4, seed=1)
    once = torch.autograd.grad(info_nce(query, document, temperature=0.1), query)[0]
    loss = info_nce(query, document, temperature=0.1)
    twice = torch.autograd.grad(-3 * loss, query, retain_graph=True)[0]
    torch.testing.assert_close(twice, -3 * once)
    torch.testing.assert_close(torch.autograd.grad(loss, query)[0], once)  # and a second pass is the same


def test_without_gradients_the_value_is_the_same() -> None:
    query, document = rows(5, seed=0), rows(5, seed=1)
    for dims in (None, [6, 3]):
        with torch.no_grad():
            value = info_nce(query, document, temperature=0.1, dims=dims)
        torch.testing.assert_close(value, info_nce(query, document, temperature=0.1, dims=dims).detach())


# Invariances and numbers that are hard


def test_order_of_rows_rotation_and_length_do_not_matter() -> None:
    query, document = rows(6, seed=0).detach(), rows(6, seed=1).detach()
    loss = info_nce(query, document, temperature=0.05)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(rows(6, seed=3).detach())[0]
    torch.testing.assert_close(info_nce(query[order], document[order], temperature=0.05), loss)
    torch.testing.assert_close(info_nce(query @ rotation, document @ rotation, temperature=0.05), loss)
    torch.testing.assert_close(info_nce(query * 1e3, document * 1e-3, temperature=0.05), loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_gets_its_gradient_back(dtype: torch.dtype) -> None:
    query, document = rows(5, seed=0, dtype=dtype), rows(5, seed=1, dtype=dtype)
    loss = info_nce(query, document, temperature=0.05)
    assert loss.dtype == torch.float32
    copies = doubled(query, document)
    torch.testing.assert_close(loss.double(), reference(*copies, 0.05), atol=1e-5, rtol=1e-5)
    gradient = torch.autograd.grad(loss, query)[0]
    assert gradient.dtype == dtype
    wanted = torch.autograd.grad(reference(*copies, 0.05), copies[0])[0]
    torch.testing.assert_close(gradient.double(), wanted, atol=1e-2 * wanted.abs().max().item(), rtol=0)


def test_autocast_changes_nothing() -> None:
    query, document = rows(5, 64, seed=0), rows(5, 64, seed=1)
    for dims in (None, [64, 8]):
        loss = info_nce(query, document, temperature=0.02, dims=dims)
        gradient = torch.autograd.grad(loss, query)[0]
        with torch.autocast("cpu", torch.bfloat16):
            under_autocast = info_nce(query, document, temperature=0.02, dims=dims)
        assert torch.equal(under_autocast, loss)
        assert torch.equal(torch.autograd.grad(under_autocast, query)[0], gradient)


def test_a_single_row_has_nothing_to_lose() -> None:
    query, document = rows(1, seed=0), rows(1, seed=1)
    loss = info_nce(query, document, temperature=0.02, direction="both")
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, query)[0].any()


def test_a_zero_vector_is_similar_to_nothing_and_gets_no_gradient() -> None:
    for dims in (None, [6, 3]):
        query, document = rows(3, seed=0), rows(3, seed=1)
        with torch.no_grad():
            query[1] = 0
        loss = info_nce(query, document, temperature=0.1, dims=dims)
        gradient = torch.autograd.grad(loss, [query, document])
        assert loss.isfinite()
        assert all(part.isfinite().all() for part in gradient)
        assert not gradient[0][1].any()


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    query, document = rows(8, seed=0), rows(8, seed=1)
    loss = info_nce(query, document, temperature=temperature)
    assert all(part.isfinite().all() for part in [loss, *torch.autograd.grad(loss, [query, document])])


# What is wrong is said

Z = torch.eye(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": Z[0]}, r"query embeddings \(3,\) of torch.float32; need floats of shape \(rows, dim\)"),
        ({"document": Z[:, :2]}, "embeddings of different dimensions: query 3, document 2; need one"),
        ({"document": Z[:2]}, "Got 3 queries and 2 documents; need as many of both"),
        ({"query": Z[:0], "document": Z[:0]}, "Got 0 queries and 0 documents"),
        ({"query": Z * float("nan")}, "NaN or infinite query embeddings in 3 rows, the first 0"),
        ({"direction": "up"}, "Got direction 'up'; need one of query_to_document, document_to_query, both"),
        ({"document_document": True}, "document_document in the direction query_to_document"),
        ({"own_negatives": True}, "own_negatives without negatives"),
        ({"own_negatives": True, "negatives": Z}, "own_negatives without negative_counts"),
        (
            {"negatives": Z, "negative_counts": torch.tensor([1, 1, 2])},
            "3 negative_counts that sum to 4, for 3 queries and 3 negatives",
        ),
        ({"multiple_positives": True}, "multiple_positives without query ids"),
        ({"temperature": 0.0}, "Got temperature 0.0; need a positive number"),
        ({"temperature": torch.tensor(-1.0)}, "Got temperature -1.0; need a positive number"),
        ({"temperature": torch.ones(2)}, r"temperature of shape \(2,\); need a single number"),
        ({"dims": [4]}, "Got Matryoshka dim 4 for embeddings of 3"),
        ({"tile_rows": 0}, "Got tile_rows 0; need at least 1"),
        ({"dims": [3, 2], "dim_weights": [1.0]}, "Got 1 weights for 2 Matryoshka dims"),
        ({"document": Z.double()}, "embeddings of different dtypes: query torch.float32, document torch.float64"),
        ({"false_negatives": FalseNegatives(label=torch.arange(1))}, "Got 1 of label for 3 rows; need one for each"),
        (
            {"negatives": Z, "false_negatives": FalseNegatives(negatives_id=torch.arange(2))},
            "Got 2 of negatives_id for 3 negatives",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        info_nce(**{"query": Z, "document": Z, "temperature": 0.1, **arguments})


def test_missing_teacher_vectors_are_named() -> None:
    with pytest.raises(ValueError, match=r"teacher_margin 0.1 without teacher embeddings for document"):
        FalseNegatives(teacher_margin=0.1, query_teacher=Z)
    known = FalseNegatives(teacher_margin=0.1, query_teacher=Z, document_teacher=Z)
    with pytest.raises(ValueError, match="without teacher embeddings for the negatives"):
        info_nce(Z, Z, negatives=Z, temperature=0.1, false_negatives=known)


# The module


def test_the_module_passes_on_what_the_batch_knows() -> None:
    query, document, negatives = rows(4, seed=0), rows(4, seed=1), rows(4, seed=2)
    batch = EmbeddingBatch(
        query,
        document,
        negatives=negatives,
        negative_counts=torch.tensor([1, 1, 2, 0]),
        query_id=torch.tensor([1, 2, 1, 3]),
        document_id=torch.tensor([4, 5, 6, 5]),
        label=torch.tensor([0, 1, 0, 1]),
        query_teacher=document,
        document_teacher=query,
        negatives_teacher=negatives,
    )
    known = FalseNegatives(query_id=batch.query_id, document_id=batch.document_id)
    by_teacher = FalseNegatives(
        query_teacher=document, document_teacher=query, negatives_teacher=negatives, teacher_margin=0.1
    )
    for options, false_negatives in (
        ({}, known),
        ({"mask_same_text": False}, None),
        ({"mask_same_text": False, "mask_same_label": True}, FalseNegatives(label=batch.label)),
        ({"mask_same_text": False, "teacher_margin": 0.1}, by_teacher),
    ):
        expected = info_nce(query, document, negatives=negatives, temperature=0.2, false_negatives=false_negatives)
        assert torch.equal(InfoNCE(0.2, **options)(batch), expected)
    each = [
        {},
        {"mask_same_text": False},
        {"hardness": 1.0},
        {"own_negatives": True},
        {"direction": "both"},
        {"query_query": True},
        {"multiple_positives": True},
    ]
    values = {InfoNCE(0.2, **options)(batch).item() for options in each}
    assert len(values) == 7  # every option changes something


def test_matryoshka_takes_the_short_way_to_the_same_value() -> None:
    batch = EmbeddingBatch(rows(5, seed=0), rows(5, seed=1), negatives=rows(2, seed=2))
    loss = InfoNCE(0.1)
    together = Matryoshka(loss, dims=[6, 2], weights=[1.0, 0.5])(batch)
    one_by_one = loss(batch) + 0.5 * loss(batch.truncate(2))
    torch.testing.assert_close(together, one_by_one)
    torch.testing.assert_close(
        torch.autograd.grad(together, batch.query)[0], torch.autograd.grad(one_by_one, batch.query)[0]
    )


def test_own_negatives_are_nothing_where_there_are_none() -> None:
    batch = EmbeddingBatch(rows(3, seed=0), rows(3, seed=1))
    assert torch.equal(InfoNCE(0.1, own_negatives=True)(batch), InfoNCE(0.1)(batch))


def test_temperature_is_a_number_a_schedule_or_a_parameter() -> None:
    query, document = rows(4, seed=0), rows(4, seed=1)
    scheduled = InfoNCE(LinearRamp(1.0, 0.5, steps=10))
    for step, temperature in ((0, 1.0), (5, 0.75), (20, 0.5)):
        batch = EmbeddingBatch(query, document, step=step)
        assert torch.equal(scheduled(batch), InfoNCE(temperature)(batch))
        assert scheduled.watched(step) == {"temperature": temperature}
    assert InfoNCE(0.1).watched(0) == {}
    learned = InfoNCE(LearnableTemperature(0.05))
    learned(EmbeddingBatch(query, document)).backward()
    [parameter] = learned.parameters()
    assert parameter.grad is not None
    assert parameter.grad.abs() > 0
    assert learned.watched(0)["temperature"] == pytest.approx(0.05)
    assert list(learned.state_dict()) == ["temperature.log_temperature"]


def test_a_batch_that_lacks_something_is_named() -> None:
    with pytest.raises(ValueError, match="a batch of 'nq' without documents to contrast"):
        InfoNCE()(EmbeddingBatch(Z, dataset="nq"))
    with pytest.raises(ValueError, match="a batch of 'nq' without labels for mask_same_label"):
        InfoNCE(mask_same_label=True)(EmbeddingBatch(Z, Z, dataset="nq"))
    with pytest.raises(ValueError, match=r"teacher_margin 0\.0 without teacher embeddings for query"):
        InfoNCE(teacher_margin=0.0)(EmbeddingBatch(Z, Z))
    for options in (
        {"direction": "up"},
        {"document_document": True},
        {"temperature": -1.0},
        {"temperature": LinearRamp(1.0, 0.0, steps=10)},
    ):
        with pytest.raises(ValueError, match="Got"):
            InfoNCE(**options)


def test_memory_is_that_of_a_tile() -> None:
    batch = 512
    query, document = rows(batch, 8, seed=0), rows(batch, 8, seed=1)
    for dims, direction in itertools.product((None, [8, 4]), ("query_to_document", "both")):
        with Operations() as operations:
            info_nce(query, document, temperature=0.1, dims=dims, direction=direction, tile_rows=16).backward()
        sizes = [result.numel() for _, result in operations.made if isinstance(result, Tensor)]
        assert max(sizes) <= 2 * 16 * batch  # two dims' tiles; all pairs would be 32 times 16
