import hashlib

import torch

from lightning_jv5.data.batches import RaggedTexts, TextBatch


def test_texts_are_laid_end_to_end_and_joined() -> None:
    first, second = RaggedTexts.from_lists([[1, 2], [3]]), RaggedTexts.from_lists([[4, 5, 6]])
    joined = RaggedTexts.cat([first, second])
    assert joined.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert joined.lengths.tolist() == [2, 1, 3]
    assert (len(first), len(second), len(joined)) == (2, 1, 3)
    assert joined.token_ids.dtype == joined.lengths.dtype == torch.int64


def test_no_texts_are_no_tokens() -> None:
    nothing = RaggedTexts.from_lists([])
    assert (len(nothing), nothing.token_ids.dtype) == (0, torch.int64)


def test_ids_are_equal_for_equal_texts_whatever_stands_beside_them() -> None:
    texts = RaggedTexts.from_lists([[1, 2], [3], [1, 2], [1], [2, 3]])
    ids = texts.ids()
    assert ids.dtype == torch.int64
    assert [ids.tolist().index(number) for number in ids.tolist()] == [0, 1, 0, 3, 4]
    assert RaggedTexts.from_lists([[3]]).ids()[0] == ids[1]
    digest = hashlib.blake2b((3).to_bytes(8, "little"), digest_size=8).digest()  # no salt: every process agrees
    assert ids[1] == int.from_bytes(digest, "little", signed=True)
    assert RaggedTexts.from_lists([]).ids().shape == (0,)


def test_text_count_counts_what_the_student_encodes() -> None:
    pair = RaggedTexts.from_lists([[1], [2]])
    batch = TextBatch({"query": pair, "document": pair}, teacher_texts={"query": pair})
    assert batch.text_count == 4


def test_lightning_moves_every_tensor_in_place() -> None:
    from lightning.pytorch.utilities import move_data_to_device

    pair = RaggedTexts.from_lists([[1], [2]])
    batch = TextBatch(
        {"query": pair},
        torch.ones(2),
        {"query": pair},
        {"query": torch.ones(2, 3)},
        {"query": pair.ids()},
        dataset="nq",
    )
    moved = move_data_to_device(batch, torch.device("meta"))
    tensors = [
        moved.texts["query"].token_ids,
        moved.texts["query"].lengths,
        moved.teacher_texts["query"].token_ids,
        moved.teacher_vectors["query"],
        moved.negative_counts,
        moved.text_ids["query"],
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.dataset == "nq"
