from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5 import EmbeddingModule
from lightning_jv5.data import TrainingSet
from lightning_jv5.losses import EmbeddingDistillation, RelationalDistillation, relational_distillation
from lightning_jv5.models import Embedder, LoRA, Projection, StudentWithoutAdapter
from lightning_jv5.rebuildable import describe, rebuild
from tests.models.tiny_adapters import fill_adapter
from tests.test_open_sets import TinyNegativeColumns
from tests.tiny_data import Recorder, TinyPairs, TinyVectors, quiet_trainer, tiny_data, tiny_student
from tests.tiny_models import TEXTS, save_tiny_backbone

PROMPTS = {"query": "query : ", "document": "document : "}


def make(folder: Path, family: str = "bert", **options: Any) -> tuple[Embedder, StudentWithoutAdapter, Embedder]:
    """A student with an adapter that matters, its teacher, and the base as a model of its own."""
    path = save_tiny_backbone(folder / family, family)
    lora = LoRA("classification", rank=4, dropout=0.5)
    settings: dict[str, Any] = {"pooling": "mean", "prompts": PROMPTS, **options}
    student = Embedder(path, adapter=lora, **settings)
    fill_adapter(student.backbone, "classification")
    teacher = StudentWithoutAdapter()
    teacher.bind(student)
    return student, teacher, Embedder(path, **settings)


@pytest.mark.parametrize("family", ["bert", "qwen3", "eurobert"])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_base_model_in_evaluation_mode_while_the_student_trains(
    tmp_path: Path, family: str, training: bool
) -> None:
    student, teacher, base = make(tmp_path, family, dropout=0.3, recompute=True)
    student.train(training)
    student.dense.eval()  # a frozen part in a mode of its own
    modes = [part.training for part in student.modules()]
    tokens = student.tokenization.ragged(TEXTS, "query")
    vectors = teacher(tokens)
    assert torch.equal(vectors, base.eval()(tokens))
    assert not vectors.requires_grad
    assert not vectors.is_inference()
    assert [part.training for part in student.modules()] == modes
    assert student.task == "classification"
    assert torch.equal(teacher.encode(TEXTS, "query"), base.encode(TEXTS, "query"))
    assert not torch.allclose(teacher.encode(TEXTS), student.encode(TEXTS), atol=1e-2)


def test_it_computes_with_the_theta_of_the_students_training(tmp_path: Path) -> None:
    student, teacher, base = make(tmp_path, "qwen3", theta=2e4, inference_theta=1e6)
    tokens = student.tokenization.ragged(TEXTS, "query")
    student.train()
    assert torch.equal(teacher(tokens), base.train()(tokens))
    assert not torch.equal(teacher(tokens), base.eval()(tokens))


def test_it_is_its_students_and_has_no_weights_of_its_own(tmp_path: Path) -> None:
    student, teacher, _ = make(tmp_path)
    assert teacher.dim == student.dim
    assert teacher.tokenization is student.tokenization
    assert teacher.embedder is student
    assert teacher.loaded
    assert not list(teacher.parameters())
    assert not teacher.train().training
    module = EmbeddingModule(student, RelationalDistillation(), StudentWithoutAdapter())
    assert all(name.startswith("student.") for name in module.state_dict())
    assert isinstance(rebuild(describe(StudentWithoutAdapter())), StudentWithoutAdapter)


def test_it_needs_a_student_with_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"StudentWithoutAdapter for a student without an adapter\. Give the student"):
        EmbeddingModule(tiny_student(tmp_path), RelationalDistillation(), StudentWithoutAdapter())
    for use in (lambda it: it.dim, lambda it: it.encode(["a cat"]), lambda it: it.tokenization):
        with pytest.raises(ValueError, match=r"StudentWithoutAdapter without a student\. Give it to an Embedding"):
            use(StudentWithoutAdapter())


def test_its_vectors_have_no_name_to_be_kept_under(tmp_path: Path) -> None:
    _, teacher, _ = make(tmp_path)
    named: list[Any] = [lambda: teacher.weights_identity, lambda: teacher.fingerprint, lambda: teacher.facts("query")]
    for name in (*named, lambda: teacher.settings):
        with pytest.raises(ValueError, match="where a teacher is needed whose vectors can be named and kept"):
            name()


# In a run


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def fit(folder: Path, train: Any, objective: Any = None, **settings: Any) -> tuple[EmbeddingModule, Recorder, Embedder]:
    student, teacher, base = make(folder)
    module = EmbeddingModule(student, objective or RelationalDistillation(), teacher, lr=1e-3)
    recorder = Recorder()
    trainer = quiet_trainer(folder, max_steps=3, limit_val_batches=0, callbacks=[recorder])
    trainer.fit(module, tiny_data(train=train, **settings))
    return module, recorder, base


@pytest.mark.parametrize("tokens", ["cached", "as_read"])
def test_a_step_compares_student_and_base_on_all_texts_of_the_batch(tmp_path: Path, tokens: Any) -> None:
    train = {"set": TrainingSet(TinyNegativeColumns(4), tokens=tokens, batch_size=4)}
    seen: list[Any] = []

    class Keep(RelationalDistillation):
        def forward(self, batch: Any) -> torch.Tensor:
            seen.append(batch)
            return super().forward(batch)

    _, recorder, base = fit(tmp_path, train, Keep())
    first = seen[0]
    texts = {role: getattr(first, role) for role in ("query", "document", "negatives")}
    assert all(part is not None for part in texts.values())
    student = torch.cat([first.student(role) for role in texts])
    reference = torch.cat([first.teacher(role) for role in texts])
    assert len(reference) == len(student) > 8
    torch.testing.assert_close(
        torch.tensor(recorder.losses[0]), relational_distillation(student, reference).detach(), atol=1e-5, rtol=1e-4
    )
    wanted = base.encode(TinyNegativeColumns(4).load()["document"][:], "document")
    assert all((wanted - vector).norm(dim=1).min() < 1e-4 for vector in first.teacher("document"))


def test_rows_with_vectors_of_some_teacher_are_refused(tmp_path: Path) -> None:
    for streaming in (False, True):
        train = {"set": TrainingSet(TinyVectors(), streaming=streaming)}
        with pytest.raises(
            ValueError,
            match="Got rows of TinyVectors with teacher vectors of query, document, and the teacher",
        ):
            fit(tmp_path, train)


def test_its_vectors_cannot_be_computed_in_advance(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"whose vectors can be named and kept\. Use lightning_jv5\.Teacher"):
        fit(tmp_path, TinyPairs(), teacher_vectors="precompute")


def test_it_distills_through_a_projection_too(tmp_path: Path) -> None:
    _, recorder, _ = fit(tmp_path, TinyPairs(), EmbeddingDistillation(Projection(32, 32)))
    assert len(recorder.losses) == 3
    assert recorder.losses[0] > 0.01
