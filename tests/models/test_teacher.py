import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.teacher import Teacher
from lightning_jv5.rebuildable import describe, rebuild
from tests.tiny_models import (
    TEXTS,
    save_tiny_backbone,
    save_tiny_sentence_transformer,
    save_tiny_tokenizer,
    tiny_config,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return save_tiny_sentence_transformer(tmp_path / "teacher", "qwen3", pooling="lasttoken", dense=6)


def test_teacher_equals_the_embedder_of_its_folder(path: str) -> None:
    teacher, embedder = Teacher(path), Embedder(path)
    torch.testing.assert_close(teacher.encode(TEXTS, "query"), embedder.encode(TEXTS, "query"))
    ours = teacher(teacher.tokenization.ragged(TEXTS, "query"))
    torch.testing.assert_close(ours, embedder.encode(TEXTS, "query"))
    assert ours.dtype == torch.float32


def test_weights_are_read_on_first_use_only(path: str) -> None:
    teacher = Teacher(path)
    assert (teacher.dim, teacher.tokenization.max_length["query"]) == (6, 16)
    assert rebuild(describe(teacher)).dim == 6
    assert teacher.fingerprint
    assert not teacher.loaded
    assert not list(teacher.parameters())
    assert not teacher.state_dict()
    assert teacher.embedder is teacher.embedder
    assert teacher.loaded


def test_wrong_settings_are_found_before_any_weights_are_read(path: str, tmp_path: Path) -> None:
    plain = save_tiny_backbone(tmp_path / "plain")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"path": path, "prompts": {}, "instruction": "Find"}, "Got prompts and instruction; need at most one"),
        ({"path": path, "dtype": "float16"}, "Got dtype 'float16'; need float32 or bfloat16"),
        ({"path": path, "max_tokens_per_chunk": 0}, "Got max_tokens_per_chunk 0"),
        ({"path": path, "max_length": 65}, "only 64 positions"),
        ({"path": plain}, "Got no pooling"),
        ({"path": str(tmp_path / "absent")}, "there is no such folder"),
        ({}, "need exactly one"),
        ({"path": "organisation/name", "pooling": "max"}, "Got pooling 'max'"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            Teacher(**arguments)


def test_hub_teacher_needs_no_network_until_it_is_used() -> None:
    assert not Teacher("organisation/name", pooling="last").loaded


def test_teacher_stays_frozen_and_in_evaluation_mode(path: str) -> None:
    teacher = Teacher(path)
    assert not torch.nn.Sequential(teacher).train()[0].training
    texts = teacher.tokenization.ragged(TEXTS, "query")
    assert torch.equal(teacher(texts), teacher.train()(texts))
    assert not any(part.training for part in teacher.modules())
    assert not any(weights.requires_grad for weights in teacher.parameters())


def test_vectors_are_normal_tensors_that_autograd_may_save(path: str) -> None:
    teacher = Teacher(path)
    with torch.inference_mode():
        _ = teacher.embedder  # the first use may be in validation
    assert not any(weights.is_inference() for weights in teacher.parameters())
    vectors = teacher(teacher.tokenization.ragged(TEXTS, "query"))
    assert not vectors.is_inference()
    student = torch.ones_like(vectors, requires_grad=True)
    (student * vectors).sum().backward()
    assert torch.equal(student.grad, vectors)


def test_instruction_is_qwen3_embeddings_frame(path: str) -> None:
    teacher = Teacher(path, instruction="Find the document")
    assert teacher.tokenization.prompts == {"query": "Instruct: Find the document\nQuery:", "document": ""}


def test_bfloat16_teacher_gives_float32_vectors_close_to_its_own(path: str) -> None:
    teacher = Teacher(path, dtype="bfloat16")
    vectors = teacher.encode(TEXTS)
    assert {weights.dtype for weights in teacher.embedder.backbone.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(vectors, Teacher(path).encode(TEXTS), atol=0.1, rtol=0.0)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)))


def test_autocast_changes_no_vector(path: str) -> None:
    teacher = Teacher(path)
    texts = teacher.tokenization.ragged(TEXTS, "query")
    with torch.autocast("cpu", torch.bfloat16):
        inside = teacher(texts)
    assert torch.equal(inside, teacher(texts))


def test_loading_draws_no_random_numbers(path: str) -> None:
    state = torch.get_rng_state()
    _ = Teacher(path).embedder
    assert torch.equal(torch.get_rng_state(), state)


def test_random_teacher_is_the_same_every_time(tmp_path: Path) -> None:
    tokenizer = save_tiny_tokenizer(tmp_path)
    first, again = (Teacher(config=tiny_config(), tokenizer=tokenizer, pooling="mean") for _ in range(2))
    assert torch.equal(first.encode(TEXTS), again.encode(TEXTS))
    assert first.fingerprint == again.fingerprint


def test_teacher_remembers_where_it_was_moved(path: str) -> None:
    teacher = Teacher(path).to("meta")
    assert {weights.device.type for weights in teacher.embedder.parameters()} == {"meta"}


def test_teacher_can_be_copied(path: str) -> None:
    teacher = Teacher(path)
    before = teacher.encode(TEXTS)
    assert torch.equal(copy.deepcopy(teacher).encode(TEXTS), before)


def test_fingerprint_is_of_content_not_place(path: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(path, tmp_path / "elsewhere")
    fingerprint = Teacher(path).fingerprint
    assert Teacher(str(tmp_path / "elsewhere")).fingerprint == fingerprint
    other = save_tiny_sentence_transformer(tmp_path / "other", "qwen3", pooling="lasttoken", dense=6, seed=1)
    changed = [
        Teacher(other),
        Teacher(path, dtype="bfloat16"),
        Teacher(path, instruction="Find"),
        Teacher(path, max_length=9),
    ]
    with pytest.warns(UserWarning, match="was trained with"):
        changed.append(Teacher(path, pooling="mean"))
    assert len({fingerprint, *(teacher.fingerprint for teacher in changed)}) == 6


def test_facts_are_what_decides_the_vectors_of_one_role(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    teacher = Teacher(path, pooling="mean", prompts={"query": "query : "}, max_length={"query": 9})
    facts = teacher.facts("query")
    assert {name: facts[name] for name in ("prompt", "max_length", "pooling", "dtype", "full_dim")} == {
        "prompt": "query : ",
        "max_length": 9,
        "pooling": "mean",
        "dtype": "float32",
        "full_dim": 32,
    }
    files = [tmp_path / "model" / name for name in ("config.json", "model.safetensors")]
    assert facts["weights"] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    other = Teacher(path, pooling="mean", prompts={"query": "other : "}, max_length={"query": 9})
    assert other.facts("document") == teacher.facts("document")
    assert other.fingerprint != teacher.fingerprint
    with pytest.raises(ValueError, match="Got role 'qury'; need one of query, document"):
        teacher.facts("qury")
