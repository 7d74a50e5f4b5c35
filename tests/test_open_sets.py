"""Data sets of every kind in one run: what of their settings reaches the batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from lightning.pytorch import Callback

from lightning_jv5.data import LabelTuples, NeedleInNoise, Source, TextBatch, TrainingSet
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.losses import ByScore, CoSENT, InfoNCE
from tests.tiny_data import (
    TEACHER_DIM,
    TinyLabelled,
    TinyPairs,
    TinyTexts,
    TinyVectors,
    quiet_trainer,
    tiny_data,
    tiny_module,
    tiny_student,
    tiny_teacher,
    tiny_texts,
)
from tests.tiny_models import save_tiny_tokenizer, tiny_config


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


class TinyScored(Source):
    def load(self) -> Dataset:
        texts = tiny_texts(16, seed=5)
        rows = Dataset.from_dict({"text1": texts[:8], "text2": texts[8:], "score": [float(row) for row in range(8)]})
        rows._fingerprint = fingerprint("tiny scored")
        return rows


class TinyTriplets(TinyPairs):
    def load(self) -> Dataset:
        texts = tiny_texts(40, seed=7)
        negatives = [texts[row : row + 1 + row % 3] for row in range(self.rows)]
        rows = super().load().add_column("negatives", negatives)
        rows._fingerprint = fingerprint("tiny triplets", self.rows)
        return rows


class Batches(Callback):
    def __init__(self) -> None:
        self.seen: list[TextBatch] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch)

    def of(self, name: str) -> list[TextBatch]:
        return [batch for batch in self.seen if batch.dataset == name]


def fit(folder: Path, train: Any, steps: int = 12, module: Any = None, **settings: Any) -> Batches:
    batches = Batches()
    trainer = quiet_trainer(folder, max_steps=steps, limit_val_batches=0, callbacks=[batches])
    objective = ByScore(scored=CoSENT(), unscored=InfoNCE())
    trainer.fit(module or tiny_module(folder, objective=objective), tiny_data(train=train, **settings))
    return batches


@pytest.mark.parametrize("workers", [0, 2])
def test_four_kinds_of_data_train_in_one_run(tmp_path: Path, workers: int) -> None:
    train = {
        "triplets": TrainingSet(TinyTriplets(), batch_size=6, max_length=5),
        "sts": TrainingSet(TinyScored(), batch_size=2),
        "topics": TrainingSet(TinyLabelled(), tuples=LabelTuples(negatives=2)),
        "stream": TrainingSet(TinyPairs(), batch_size=3, streaming=True, shuffle_rows=6),
    }
    for training_set in train.values():
        training_set.weight = 1.0
    batches = fit(tmp_path, train, steps=24, num_workers=workers)
    sizes = {name: {len(batch.texts["query"]) for batch in batches.of(name)} for name in train}
    assert sizes == {"triplets": {6}, "sts": {2}, "topics": {4}, "stream": {3}}
    assert [batch.step for batch in batches.seen] == list(range(24))
    for name in train:
        assert [batch.dataset_batch for batch in batches.of(name)] == list(range(len(batches.of(name))))
    assert max(max(batch.texts["query"].lengths) for batch in batches.of("triplets")) == 5
    assert max(max(batch.texts["query"].lengths) for batch in batches.of("sts")) > 5
    assert all(batch.score is not None for batch in batches.of("sts"))
    assert all(batch.label is not None and len(batch.texts["negatives"]) == 8 for batch in batches.of("topics"))
    assert all(batch.stream is not None for batch in batches.of("stream"))
    counts = [batch.negative_counts for batch in batches.of("triplets")]
    assert {int(count) for part in counts if part is not None for count in part} == {1, 2, 3}


def test_many_short_and_few_long_texts_train_in_one_run_with_each_layer_and_chunk_computed_again(
    tmp_path: Path,
) -> None:
    tokenizer = save_tiny_tokenizer(tmp_path / "counts")
    long = NeedleInNoise(12, tokenizer=tokenizer, min_tokens=150, max_tokens=250, languages=["en", "ja"])
    short = NeedleInNoise(40, tokenizer=tokenizer, min_tokens=24, max_tokens=64, facts=1, seed=1)

    def run(**settings: Any) -> tuple[Batches, dict[str, torch.Tensor], int]:
        config = tiny_config(num_hidden_layers=2, max_position_embeddings=256)
        student = tiny_student(tmp_path, config=config, max_length=256, max_tokens_per_chunk=300, **settings)
        module = tiny_module(tmp_path, student=student, objective=InfoNCE())
        passes: list[int] = []
        # Inside a layer: hooks of the layer itself stay outside what is computed again
        student.backbone.encoder.layer[0].attention.self.query.register_forward_hook(lambda *_: passes.append(1))
        before = [weight.detach().clone() for weight in module.parameters()]
        train = {
            "short": TrainingSet(short, batch_size=8, max_length=32, weight=1.0),
            "long": TrainingSet(long, batch_size=2, max_length=256, weight=1.0),
        }
        batches = fit(tmp_path, train, steps=16, module=module)
        assert not any(torch.equal(was, weight) for was, weight in zip(before, module.parameters(), strict=True))
        return batches, {name: weight.detach().clone() for name, weight in module.named_parameters()}, len(passes)

    batches, weights, passes = run(recompute=True, recompute_layers=True)
    assert {batch.dataset for batch in batches.seen} == {"short", "long"}
    for batch in batches.of("short"):
        assert [len(batch.texts[role]) for role in ("query", "document")] == [8, 8]
        assert batch.texts["document"].lengths.max() == 32  # longer ones are cut there
    for batch in batches.of("long"):
        assert [len(batch.texts[role]) for role in ("query", "document")] == [2, 2]
        lengths = batch.texts["document"].lengths.tolist()
        assert all(145 <= length <= 252 for length in lengths)  # whole: 250 tokens and the prompt
    _, plain, once = run()
    assert passes == 3 * once  # the backward pass runs a chunk again, and then each of its layers
    for name, weight in plain.items():
        torch.testing.assert_close(weights[name], weight, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("vectors", ["online", "precompute"])
def test_the_teacher_embeds_the_roles_that_are_asked_for(tmp_path: Path, vectors: Any) -> None:
    from lightning_jv5.losses import EmbeddingDistillation
    from lightning_jv5.models import Projection

    def run(roles: list[str], train: Any) -> TextBatch:
        loss = EmbeddingDistillation(Projection(32, TEACHER_DIM), roles=["query"])
        module = tiny_module(tmp_path, objective=loss, teacher=tiny_teacher(tmp_path))
        settings: Any = {"teacher_vectors": vectors, "teacher_roles": roles}
        return fit(tmp_path, train, steps=1, module=module, **settings).seen[0]

    columns = TrainingSet(TinyNegativeColumns())
    for roles in (["query"], ["query", "document", "negatives"]):
        batch = run(roles, {"set": columns})
        found = batch.teacher_texts if vectors == "online" else batch.teacher_vectors
        assert list(found) == roles
        assert all(len(found[role]) == len(batch.texts[role]) for role in roles)


class TinyNegativeColumns(TinyPairs):
    def load(self) -> Dataset:
        texts: list[str | None] = [*tiny_texts(self.rows, seed=8)]
        rows = super().load().add_column("negative", texts)
        rows = rows.add_column("negative_2", [None if row % 2 else text for row, text in enumerate(texts)])
        rows._fingerprint = fingerprint("tiny negative columns", self.rows)
        return rows


def test_precomputed_vectors_are_those_of_the_columns_prompt(tmp_path: Path) -> None:
    from lightning_jv5.losses import EmbeddingDistillation
    from lightning_jv5.models import Projection

    teacher = tiny_teacher(tmp_path)
    module = tiny_module(tmp_path, objective=EmbeddingDistillation(Projection(32, TEACHER_DIM)), teacher=teacher)
    train = {"set": TrainingSet(TinyNegativeColumns(), batch_size=12, roles={"query": "document"})}
    settings: Any = {"teacher_vectors": "precompute", "teacher_roles": ["query", "document", "negatives"]}
    batch = fit(tmp_path, train, steps=1, module=module, **settings).seen[0]
    tokenization, student = teacher.tokenization, module.student.tokenization
    ids = {tuple(student([text], "document")[0]): text for text in tiny_texts(24, seed=0)}
    parts = batch.texts["query"].token_ids.split(batch.texts["query"].lengths.tolist())
    texts = [ids[tuple(part.tolist())] for part in parts]
    expected = teacher(tokenization.ragged(texts, "document"))
    torch.testing.assert_close(batch.teacher_vectors["query"].float(), expected, atol=1e-3, rtol=0)
    negatives = batch.teacher_vectors["negatives"].float()
    assert torch.allclose(negatives.norm(dim=1), torch.ones(len(negatives)), atol=1e-3)  # none is that of no text


def test_sets_are_drawn_by_their_number_of_batches_unless_they_have_weights(tmp_path: Path) -> None:
    sets = {"large": TrainingSet(TinyVectors(40)), "small": TrainingSet(TinyVectors(8))}

    def weights(**settings: Any) -> dict[str, float]:
        data = tiny_data(train=sets, **settings)
        trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
        trainer.fit(tiny_module(tmp_path), data)
        assert data._plan is not None
        return {name: planned.weight for name, planned in data._plan.sets.items()}

    assert weights() == {"large": 10.0, "small": 2.0}
    assert weights(size_exponent=0.0) == {"large": 1.0, "small": 1.0}
    sets["large"].weight, sets["small"].weight = 1.0, 3.0
    assert weights() == {"large": 1.0, "small": 3.0}
    sets["small"].weight = None
    with pytest.raises(ValueError, match="Got no weight for 'small'; give all sets one, or none"):
        weights()


def test_an_epoch_is_all_batches_of_all_sets(tmp_path: Path) -> None:
    train = {"large": TrainingSet(TinyVectors(40)), "small": TrainingSet(TinyVectors(8), batch_size=2)}
    trainer = quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    trainer.fit(tiny_module(tmp_path), tiny_data(train=train))
    assert trainer.global_step == 14
    trainer = quiet_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    trainer.fit(tiny_module(tmp_path), tiny_data(train=train, steps_per_epoch=3))
    assert trainer.global_step == 6


def test_texts_may_be_tokenised_as_they_are_read(tmp_path: Path) -> None:
    seen = [
        fit(tmp_path, {"pairs": TrainingSet(TinyPairs(), tokens=tokens)}, steps=3).seen  # type: ignore[arg-type]
        for tokens in ("cached", "as_read")
    ]
    for cached, as_read in zip(*seen, strict=True):
        assert cached.texts["query"].token_ids.tolist() == as_read.texts["query"].token_ids.tolist()
        assert cached.text_ids["document"].tolist() == as_read.text_ids["document"].tolist()


def test_a_set_that_is_left_out_leaves_the_others(tmp_path: Path) -> None:
    one_label = TrainingSet(TinyLabelled("aaaa"), tuples=LabelTuples(unusable="leave_out"))
    batches = fit(tmp_path, {"one": one_label, "pairs": TrainingSet(TinyPairs())}, steps=4)
    assert {batch.dataset for batch in batches.seen} == {"pairs"}
    with pytest.raises(ValueError, match=r"All data sets are left out \(one\)"):
        fit(tmp_path, {"one": one_label})


@pytest.mark.parametrize(
    ("train", "settings", "message"),
    [
        ({}, {}, "Got no training data; set data.train"),
        ({"a b": TrainingSet(TinyPairs())}, {}, "Got a data set named 'a b'; the name becomes a log key"),
        (
            {"pairs": TrainingSet(TinyPairs(), batch_size=13)},
            {},
            "batch size of 13 for the data set 'pairs' of 12 rows",
        ),
        ({"pairs": TrainingSet(TinyPairs())}, {"size_exponent": 2.0}, None),
        (
            {"a": TrainingSet(TinyVectors()), "b": TrainingSet(TinyVectors(8))},
            {"size_exponent": 2.0},
            r"Got size_exponent 2\.0",
        ),
        (
            {"pairs": TrainingSet(TinyPairs()), "s": TrainingSet(TinyPairs(), streaming=True)},
            {},
            "Got no weight for 'pairs', 's'; .* with a stream all sets need one",
        ),
        (
            {"s": TrainingSet(TinyPairs(), streaming=True)},
            {"distinct_texts": True},
            "Got distinct_texts and the stream 's'",
        ),
        ({"t": TrainingSet(TinyTexts(), tuples=LabelTuples())}, {}, "t has the columns text; tuples need 'label'"),
    ],
)
def test_data_sets_that_do_not_fit_are_refused(
    tmp_path: Path, train: Any, settings: dict[str, Any], message: str | None
) -> None:
    if message is None:  # of no meaning with a single set
        fit(tmp_path, train, steps=1, **settings)
        return
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, train, steps=1, **settings)


def test_a_stream_without_an_end_needs_a_length(tmp_path: Path) -> None:
    train = {"s": TrainingSet(TinyVectors(), streaming=True)}
    trainer = quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    with pytest.raises(ValueError, match=r"Got streams \('s'\), which have no length, and neither trainer.max_steps"):
        trainer.fit(tiny_module(tmp_path), tiny_data(train=train))
    trainer.fit(tiny_module(tmp_path), tiny_data(train=train, steps_per_epoch=2))
    assert trainer.global_step == 2


def test_a_streams_vectors_cannot_be_computed_beforehand(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=tiny_teacher(tmp_path))
    train = {"s": TrainingSet(TinyPairs(), streaming=True)}
    with pytest.raises(ValueError, match="Got teacher_vectors 'precompute' and the stream 's'"):
        fit(tmp_path, train, module=module, teacher_vectors="precompute")


def test_an_unknown_teacher_role_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Got roles \['queries'\]"):
        tiny_data(teacher_roles=["queries"])


def test_vectors_of_another_teacher_are_refused(tmp_path: Path) -> None:
    from lightning_jv5.data import LocalFiles
    from lightning_jv5.data.embed_columns import embed_columns
    from lightning_jv5.losses import EmbeddingDistillation
    from lightning_jv5.models import Projection
    from tests.tiny_configs import write_pairs

    embedded = str(tmp_path / "embedded")
    pairs = LocalFiles(str(write_pairs(tmp_path / "pairs.jsonl")))
    embed_columns(pairs, tiny_teacher(tmp_path), embedded)

    def run(teacher: Any, **settings: Any) -> TextBatch:
        loss = EmbeddingDistillation(Projection(32, TEACHER_DIM))
        train = {"pairs": TrainingSet(LocalFiles(embedded), **settings)}
        return fit(tmp_path, train, 1, tiny_module(tmp_path, objective=loss, teacher=teacher)).seen[0]

    batch = run(tiny_teacher(tmp_path))
    assert set(batch.teacher_vectors) == {"query", "document"}
    assert not batch.teacher_texts
    other = tiny_teacher(tmp_path, prompts={"query": "who : "})
    with pytest.raises(ValueError, match=r"column 'query_teacher' do not fit the teacher of the config.*prompt"):
        run(other)
    assert set(run(other, roles={"query": "document"}).teacher_vectors) == {"query", "document"}
    globbed = TrainingSet(LocalFiles(f"{embedded}/*.parquet"))
    module = tiny_module(tmp_path, objective=EmbeddingDistillation(Projection(32, TEACHER_DIM)), teacher=other)
    with pytest.raises(ValueError, match="do not fit the teacher of the config"):
        fit(tmp_path, {"pairs": globbed}, 1, module)


class TinyHalfVectors(TinyNegativeColumns):
    def load(self) -> Dataset:
        rows = super().load().add_column("negative_teacher", [[0.0] * TEACHER_DIM] * self.rows)
        rows._fingerprint = fingerprint("tiny half vectors", self.rows)
        return rows


def test_vectors_of_some_columns_of_a_role_do_not_do(tmp_path: Path) -> None:
    from lightning_jv5.losses import EmbeddingDistillation
    from lightning_jv5.models import Projection

    loss = EmbeddingDistillation(Projection(32, TEACHER_DIM))
    for vectors in ("online", "precompute"):
        module = tiny_module(tmp_path, objective=loss, teacher=tiny_teacher(tmp_path))
        settings: Any = {"teacher_roles": ["query", "document", "negatives"], "teacher_vectors": vectors}
        batch = fit(tmp_path, {"pairs": TrainingSet(TinyHalfVectors())}, 1, module, **settings).seen[0]
        found = batch.teacher_texts if vectors == "online" else batch.teacher_vectors
        assert len(found["negatives"]) == len(batch.texts["negatives"])
        if vectors == "precompute":
            assert batch.teacher_vectors["negatives"].float().norm(dim=1).min() > 0.9


def test_vectors_of_lists_are_not_precomputed_here(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=tiny_teacher(tmp_path))
    settings: Any = {"teacher_roles": ["negatives"], "teacher_vectors": "precompute"}
    with pytest.raises(ValueError, match="for the lists in 'negatives' of pairs; need columns of one text each"):
        fit(tmp_path, {"pairs": TrainingSet(TinyTriplets())}, module=module, **settings)


def test_a_second_run_with_one_data_module_begins_anew_with_its_own_models(tmp_path: Path) -> None:
    train = {"stream": TrainingSet(TinyPairs(), streaming=True, weight=1), "pairs": TrainingSet(TinyPairs(), weight=1)}
    data = tiny_data(train=train)
    seen = []
    for limit in (5, 5, 4):
        batches = Batches()
        module = tiny_module(tmp_path, objective=InfoNCE(), student=tiny_student(tmp_path, max_length=limit))
        trainer = quiet_trainer(tmp_path, max_steps=6, limit_val_batches=0, callbacks=[batches])
        trainer.fit(module, data)
        seen.append([batch.texts["query"].token_ids.tolist() for batch in batches.seen])
        assert max(int(batch.texts["query"].lengths.max()) for batch in batches.seen) == limit
    assert seen[0] == seen[1] != seen[2]


def test_overfitting_by_lightnings_own_means_is_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0, overfit_batches=1)
    with pytest.raises(ValueError, match=r"overfit_batches=1, which would replace the order"):
        trainer.fit(tiny_module(tmp_path), tiny_data())


def test_a_set_is_not_called_as_a_single_source_is() -> None:
    with pytest.raises(ValueError, match="Got a data set named 'train', as a single source is called"):
        tiny_data(train={"train": TrainingSet(TinyPairs())})


def test_a_sets_own_limit_above_the_models_positions_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, {"set": TrainingSet(TinyPairs(), max_length=64)}, steps=1)
    for limit in (65, {"document": 65}):
        with pytest.raises(ValueError, match=r"max_length 65 for .*, but the model has only 64 positions"):
            fit(tmp_path, {"set": TrainingSet(TinyPairs(), max_length=limit)}, steps=1)


@pytest.mark.parametrize("vectors", ["online", "precompute"])
def test_a_set_may_spare_the_teacher(tmp_path: Path, vectors: Any) -> None:
    train = {
        "taught": TrainingSet(TinyPairs(), weight=1.0),
        "spared": TrainingSet(TinyScored(), teacher_roles=[], weight=1.0),
        "queries": TrainingSet(TinyTriplets(), teacher_roles=["query"], weight=1.0),
    }
    objective = ByScore(scored=CoSENT(), unscored=InfoNCE())
    module = tiny_module(tmp_path, objective=objective, teacher=tiny_teacher(tmp_path))
    batches = fit(tmp_path, train, module=module, teacher_vectors=vectors)
    field = "teacher_texts" if vectors == "online" else "teacher_vectors"
    wanted = {"taught": {"query", "document"}, "spared": set(), "queries": {"query"}}
    for name, roles in wanted.items():
        assert batches.of(name)
        assert all(getattr(batch, field).keys() == roles for batch in batches.of(name))


def test_an_unknown_teacher_role_of_a_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Got roles \['queries'\]; name one or more of"):
        TrainingSet(TinyPairs(), teacher_roles=["queries"])
