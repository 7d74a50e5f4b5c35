import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_jv5 import EmbeddingModule
from lightning_jv5.losses import (
    CoSENT,
    EmbeddingBatch,
    EmbeddingDistillation,
    InfoNCE,
    LearnableTemperature,
    LinearRamp,
    Matryoshka,
    Objective,
    Term,
)
from lightning_jv5.models import Embedder, LoRA, Projection
from lightning_jv5.schedules import WarmupLinear
from tests.tiny_data import (
    TEACHER_DIM,
    Constant,
    InfiniteLoss,
    Recorder,
    SqrtAtZero,
    TinyPairs,
    quiet_trainer,
    sgd,
    tiny_data,
    tiny_module,
    tiny_objective,
    tiny_student,
    tiny_task,
    tiny_teacher,
)
from tests.tiny_models import save_tiny_backbone


class LabelledModule(EmbeddingModule):
    """A downstream module with an argument of its own."""

    def __init__(self, label: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label = label


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def fit(module: EmbeddingModule, folder: Path, data: Any = None, **settings: Any) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    callbacks = [*settings.pop("callbacks", []), recorder]
    trainer = quiet_trainer(folder, **{"max_steps": 3, "limit_val_batches": 0, **settings}, callbacks=callbacks)
    trainer.fit(module, data or tiny_data())
    return trainer, recorder


def saved(module: EmbeddingModule, folder: Path) -> Path:
    fit(module, folder, max_steps=1)[0].save_checkpoint(folder / "one.ckpt")
    return folder / "one.ckpt"


# Training


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    losses = fit(tiny_module(tmp_path, lr=3e-3), tmp_path, max_steps=30)[1].losses
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


def test_every_term_is_logged_before_its_weight(tmp_path: Path) -> None:
    objective = Objective({"distill": Term(tiny_objective().terms["distill"], 2.0), "constant": Term(Constant(), 3.0)})
    module = tiny_module(tmp_path, objective=objective, learning_rates={"objective.*projection*": 0.5})
    logged = fit(module, tmp_path, max_steps=1)[0].callback_metrics
    assert logged["train/loss"] == pytest.approx(2 * logged["train/distill"] + 3 * logged["train/constant"])
    assert logged["train/lr"] == pytest.approx(1e-3)
    assert logged["train/lr/objective.*projection"] == pytest.approx(0.5)
    assert logged["train/grad_norm"] > 0


def test_a_loss_alone_is_an_objective(tmp_path: Path) -> None:
    loss = Matryoshka(EmbeddingDistillation(Projection(32, TEACHER_DIM)), dims=[32, 8])
    logged = fit(tiny_module(tmp_path, objective=loss), tmp_path)[0].callback_metrics
    assert {name for name in logged if "lr" not in name} == {"train/loss", "train/grad_norm"}


def test_the_teacher_is_used_but_is_no_part_of_the_module(tmp_path: Path) -> None:
    teacher = tiny_teacher(tmp_path)
    module = tiny_module(tmp_path, teacher=teacher)
    without = tiny_module(tmp_path)
    before = teacher.embedder.state_dict()["backbone.embed_tokens.weight"].clone()
    trainer, _ = fit(module, tmp_path, tiny_data(train=TinyPairs()))
    assert module.teacher is teacher
    assert module.state_dict().keys() == without.state_dict().keys()
    assert dict(module.named_parameters()).keys() == dict(without.named_parameters()).keys()
    assert not any(part is teacher for part in module.modules())
    trained = {id(weights) for group in trainer.optimizers[0].param_groups for weights in group["params"]}
    assert trained == {id(weights) for weights in module.parameters()}
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"].keys() == module.state_dict().keys()
    assert torch.equal(teacher.embedder.state_dict()["backbone.embed_tokens.weight"], before)
    assert not any(weights.requires_grad for weights in teacher.parameters())


def test_the_teacher_moves_with_the_module(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=tiny_teacher(tmp_path))
    assert module.teacher is not None
    _ = module.teacher.embedder
    module.to("meta")
    assert {weights.device.type for weights in module.teacher.parameters()} == {"meta"}


def test_vectors_computed_online_and_beforehand_give_the_same_losses(tmp_path: Path) -> None:
    online, precomputed = (
        fit(
            tiny_module(tmp_path, teacher=tiny_teacher(tmp_path)),
            tmp_path,
            tiny_data(train=TinyPairs(), teacher_vectors=where),
        )[1].losses
        for where in ("online", "precompute")
    )
    assert online == pytest.approx(precomputed, abs=1e-4)  # float16 rounding
    assert online != precomputed


def test_vectors_of_the_rows_win_over_the_teacher(tmp_path: Path) -> None:
    teacher = tiny_teacher(tmp_path)
    with_teacher = fit(tiny_module(tmp_path, teacher=teacher), tmp_path)[1].losses
    assert with_teacher == fit(tiny_module(tmp_path), tmp_path)[1].losses
    assert not teacher.loaded


def test_neither_teacher_nor_vectors_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without teacher embeddings for query; give the module a teacher"):
        fit(tiny_module(tmp_path), tmp_path, tiny_data(train=TinyPairs()))


def test_a_pretrained_student_drops_out_in_training_and_not_in_encoding(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "student")

    def module(dropout: float) -> EmbeddingModule:
        return tiny_module(tmp_path, student=Embedder(path, pooling="mean", dropout=dropout))

    with_dropout, texts = module(0.3), ["a cat", "the dog sat on a mat"]
    assert not with_dropout.student.backbone.training
    assert torch.equal(with_dropout.encode(texts), module(0.0).encode(texts))
    assert fit(with_dropout, tmp_path, max_steps=1)[1].losses != fit(module(0.0), tmp_path, max_steps=1)[1].losses
    assert with_dropout.student.backbone.training
    assert torch.equal(with_dropout.encode(texts), with_dropout.student.encode(texts))


def test_callbacks_that_describe_the_model_find_it_in_train_mode(tmp_path: Path) -> None:
    class Modes(Recorder):
        def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.modes = {part.training for part in pl_module.modules()}

    modes = Modes()
    student = Embedder(save_tiny_backbone(tmp_path / "student"), pooling="mean")
    fit(tiny_module(tmp_path, student=student), tmp_path, callbacks=[modes])
    assert modes.modes == {True}


def test_dropout_depends_on_seed_and_step(tmp_path: Path) -> None:
    def losses(seed: int) -> list[float]:
        torch.manual_seed(torch.seed() % 1000)
        return fit(tiny_module(tmp_path, dropout=0.3, seed=seed), tmp_path)[1].losses

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_in_half_precision_are_refused(tmp_path: Path, precision: Any) -> None:
    with pytest.raises(ValueError, match=f"precision '{precision}': in half precision .* Use trainer.precision=bf16-m"):
        fit(tiny_module(tmp_path), tmp_path, precision=precision)


def test_mixed_precision_keeps_float32_weights_and_trains(tmp_path: Path) -> None:
    module = tiny_module(tmp_path)
    mixed = fit(module, tmp_path, precision="bf16-mixed")[1].losses
    assert {weights.dtype for weights in module.parameters()} == {torch.float32}
    exact = fit(tiny_module(tmp_path), tmp_path)[1].losses
    assert mixed == pytest.approx(exact, abs=0.02)
    assert mixed != exact


def test_two_accumulated_batches_step_as_one_of_twice_the_size(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": sgd, "lr": None, "scheduler": partial(WarmupLinear, warmup=0)}
    halves, whole = tiny_module(tmp_path, **settings), tiny_module(tmp_path, **settings)
    accumulating, recorder = fit(halves, tmp_path, tiny_data(batch_size=2), accumulate_grad_batches=2)
    at_once, _ = fit(whole, tmp_path)
    assert (len(recorder.losses), accumulating.global_step, at_once.global_step) == (6, 3, 3)
    assert accumulating.lr_scheduler_configs[0].scheduler.last_epoch == 3
    torch.testing.assert_close(halves.state_dict(), whole.state_dict(), atol=1e-6, rtol=1e-5)


def test_compiled_students_train_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the code for the CPU takes 30 s
    compiled = fit(tiny_module(tmp_path, compile=True), tmp_path)[1].losses
    assert compiled == pytest.approx(fit(tiny_module(tmp_path), tmp_path)[1].losses, abs=1e-4)


def test_learning_rates_are_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Got lr 0; a learning rate is positive"):
        tiny_module(tmp_path, lr=0)


def test_losses_learn_which_texts_are_equal_which_step_it_is_and_show_what_changes(tmp_path: Path) -> None:
    seen = []

    class Looking(Constant):
        def forward(self, batch: EmbeddingBatch) -> torch.Tensor:
            seen.append(batch)
            return super().forward(batch)

    contrast = Term(InfoNCE(LearnableTemperature(0.05)), weight=LinearRamp(0.0, 1.0, steps=2))
    objective = Objective({"look": Term(Looking()), "contrast": contrast})
    module = tiny_module(tmp_path, objective=objective)
    trainer, recorder = fit(module, tmp_path, accumulate_grad_batches=1)
    assert [batch.step for batch in seen] == [0, 1, 2]
    for batch, tokens in zip(seen, recorder.tokens, strict=True):
        assert batch.query_id is not None
        assert batch.document_id is not None
        assert len(batch.query_id) == len(batch.document_id) == 4
        assert len(tokens) > 4
    assert trainer.callback_metrics["train/contrast/weight"] == 1.0
    assert trainer.callback_metrics["train/contrast/temperature"] == pytest.approx(0.05, rel=0.1)
    [temperature] = [group for group in trainer.optimizers[0].param_groups if group["name"] == "no_decay"]
    assert any(weights is objective.terms["contrast"].temperature.log_temperature for weights in temperature["params"])


def test_a_loss_that_complains_says_in_which_step_and_data_set(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, objective=Objective({"order": Term(CoSENT())}))
    with pytest.raises(ValueError, match="without scores to order pairs by") as raised:
        fit(module, tmp_path)
    assert raised.value.__notes__ == [
        "It came from the term 'order' of the objective.",
        "This was step 0, a batch of the data set 'train'.",
    ]


# What is not finite


def test_a_loss_that_is_not_finite_stops_with_its_term(tmp_path: Path) -> None:
    objective = Objective({"fine": Term(Constant()), "broken": Term(InfiniteLoss())})
    message = "The loss is not finite at step 0, in a batch of the data set 'train', from the term 'broken'"
    with pytest.raises(FloatingPointError, match=message):
        fit(tiny_module(tmp_path, objective=objective), tmp_path)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_not_finite_stops_with_its_term(tmp_path: Path, accumulate: int) -> None:
    objective = Objective({"fine": Term(Constant()), "broken": Term(SqrtAtZero())})
    message = "The gradient is not finite at step 0, in a batch of the data set 'train', from the term 'broken'"
    module = tiny_module(tmp_path, objective=objective)
    before = {name: weights.clone() for name, weights in module.state_dict().items()}
    with pytest.raises(FloatingPointError, match=message):
        fit(module, tmp_path, accumulate_grad_batches=accumulate)
    torch.testing.assert_close(module.state_dict(), before, atol=0, rtol=0)


def test_a_loss_alone_that_is_not_finite_is_named_by_its_class(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="from the term 'InfiniteLoss'"):
        fit(tiny_module(tmp_path, objective=InfiniteLoss()), tmp_path)


# Learning rate finder


@pytest.mark.parametrize("scheduler", [None, partial(WarmupLinear, warmup=2)])
def test_the_learning_rate_that_was_found_is_the_one_in_use(tmp_path: Path, scheduler: Any) -> None:
    finder = LearningRateFinder(min_lr=1e-4, max_lr=0.1, num_training_steps=30)
    rates = {"objective.*projection*": 0.25}
    module = tiny_module(tmp_path, scheduler=scheduler, lr=1e-3, learning_rates=rates)
    trainer, recorder = fit(module, tmp_path, max_steps=6, callbacks=[finder])
    assert finder.optimal_lr is not None
    found = finder.optimal_lr.suggestion()
    assert module.lr == found != 1e-3
    factors = [1.0] * 6 if scheduler is None else [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    names = [group["name"] for group in trainer.optimizers[0].param_groups]
    for factor, step in zip(factors, recorder.rates, strict=True):
        expected = [factor * (0.25 if "projection" in name else found) for name in names]
        assert step == pytest.approx(expected)
    plain = fit(tiny_module(tmp_path), tmp_path, max_steps=6)[1]
    assert recorder.tokens == plain.tokens  # no row was used up
    assert recorder.losses[0] == plain.losses[0]


# Evaluation


def test_scores_are_logged_and_can_stop_the_run(tmp_path: Path) -> None:
    stopping = EarlyStopping("val/tiny/ndcg@10", mode="max", patience=0, min_delta=1.0)
    trainer, _ = fit(tiny_module(tmp_path), tmp_path, max_epochs=5, max_steps=-1, limit_val_batches=1.0,
                     callbacks=[stopping])  # fmt: skip
    assert trainer.current_epoch == 2
    assert 0 <= trainer.callback_metrics["val/tiny/ndcg@10"] <= 1


def test_the_best_checkpoint_is_chosen_by_a_score(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path / "best", monitor="val/tiny/ndcg@10", mode="max", filename="best")
    fit(tiny_module(tmp_path), tmp_path, limit_val_batches=1.0, callbacks=[best], enable_checkpointing=True)
    assert Path(best.best_model_path).is_file()


def test_logged_scores_are_those_of_encoding_the_task_directly(tmp_path: Path) -> None:
    from lightning_jv5.tasks import evaluate

    module = tiny_module(tmp_path)
    trainer = quiet_trainer(tmp_path)
    trainer.validate(module, tiny_data(), verbose=False)
    [score] = evaluate(module.encode, {"tiny": tiny_task()}, progress=False)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged == pytest.approx({f"val/tiny/{name}": value for name, value in score.values.items()})


def test_test_scores_have_names_of_their_own(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.test(tiny_module(tmp_path), tiny_data(test={"held": tiny_task()}), verbose=False)
    assert "test/held/ndcg@10" in trainer.callback_metrics
    assert all(name.startswith("test/held/") for name in trainer.callback_metrics)


@pytest.mark.parametrize(
    "settings", [{"limit_val_batches": 1}, {"fast_dev_run": True}, {"num_sanity_val_steps": 2, "val_check_interval": 3}]
)
def test_a_part_of_a_corpus_is_never_scored(tmp_path: Path, settings: dict[str, Any]) -> None:
    class Stop(Recorder):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            assert not [name for name in trainer.logged_metrics if name.startswith("val/")]

    trainer, _ = fit(tiny_module(tmp_path), tmp_path, **{"limit_val_batches": 1.0, "max_steps": 2, **settings},
                     callbacks=[Stop()])  # fmt: skip
    assert not [name for name in trainer.callback_metrics if name.startswith("val/")]


@pytest.mark.parametrize("limit", [1, 0.5, 0])
def test_monitoring_a_score_that_is_never_logged_is_refused_at_once(tmp_path: Path, limit: float) -> None:
    stopping = EarlyStopping("val/tiny/ndcg@10", mode="max")
    message = f"EarlyStopping monitors 'val/tiny/ndcg@10', but trainer.limit_val_batches={limit} .* max_documents"
    with pytest.raises(ValueError, match=message):
        fit(tiny_module(tmp_path), tmp_path, limit_val_batches=limit, callbacks=[stopping])


def test_monitoring_something_else_under_a_limit_is_fine(tmp_path: Path) -> None:
    stopping = EarlyStopping("train/loss")
    fit(tiny_module(tmp_path), tmp_path, limit_val_batches=1, callbacks=[stopping])


# Checkpoints


def test_a_checkpoint_holds_plain_data_and_builds_the_module_again(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = tiny_module(tmp_path, teacher=tiny_teacher(tmp_path), learning_rates={"objective.*": 0.01}, seed=7)
    path = saved(module, tmp_path)
    assert torch.load(path, weights_only=True)["lightning_jv5"]["format"] == 3
    again = EmbeddingModule.load_from_checkpoint(path)
    texts = ["a cat", "the dog sat on a mat"]
    assert torch.equal(again.encode(texts), module.encode(texts))
    torch.testing.assert_close(again.state_dict(), module.state_dict(), atol=0, rtol=0)
    assert (again.seed, again.learning_rates, again.lr) == (7, {"objective.*": 0.01}, 1e-3)
    assert again.teacher is not None
    assert not again.teacher.loaded
    assert not again.training


def test_a_subclass_with_an_argument_of_its_own_is_built_again(tmp_path: Path) -> None:
    module = LabelledModule("mine", tiny_student(tmp_path), objective=tiny_objective())
    again = LabelledModule.load_from_checkpoint(saved(module, tmp_path))
    assert (type(again), again.label) == (LabelledModule, "mine")


def test_parts_that_a_checkpoint_cannot_hold_are_passed(tmp_path: Path) -> None:
    class Local(Constant):
        """Has no importable name."""

    path = saved(tiny_module(tmp_path, objective=Local(), optimizer=sgd, lr=None), tmp_path)
    assert EmbeddingModule.load_from_checkpoint(path).objective is None  # enough to encode and to evaluate
    loaded = EmbeddingModule.load_from_checkpoint(path, objective=Constant(), optimizer=sgd)
    assert (type(loaded.objective), loaded.optimizer) == (Constant, sgd)


def test_without_an_objective_a_module_evaluates_and_does_not_train(tmp_path: Path) -> None:
    module = EmbeddingModule(tiny_student(tmp_path))
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.validate(module, tiny_data(), verbose=False)
    assert "val/tiny/ndcg@10" in trainer.callback_metrics
    with pytest.raises(
        ValueError, match=r"Got no objective; fit needs to know what to minimise\. Set model\.objective"
    ):
        trainer.fit(module, tiny_data())


def test_arguments_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    path = saved(tiny_module(tmp_path), tmp_path)
    assert EmbeddingModule.load_from_checkpoint(path, seed=5, lr=None).seed == 5
    with pytest.raises(RuntimeError, match="objective"):
        EmbeddingModule.load_from_checkpoint(path, objective=Constant())
    loaded = EmbeddingModule.load_from_checkpoint(path, objective=Constant(), strict=False)
    assert torch.equal(
        loaded.student.backbone.embeddings.word_embeddings.weight,
        torch.load(path)["state_dict"]["student.backbone.embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize("description", [None, {"format": 99, "arguments": {}}])
def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, description: Any) -> None:
    path = saved(tiny_module(tmp_path), tmp_path)
    checkpoint = torch.load(path)
    del checkpoint["lightning_jv5"]
    if description is not None:
        checkpoint["lightning_jv5"] = description
    torch.save(checkpoint, path)
    found = None if description is None else 99
    with pytest.raises(ValueError, match=f"one.ckpt has format {found}; this version of lightning_jv5 reads 3"):
        EmbeddingModule.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=f"The checkpoint has format {found}"):
        quiet_trainer(tmp_path, max_steps=2).fit(tiny_module(tmp_path), tiny_data(), ckpt_path=path)


def test_a_checkpoint_without_its_place_in_the_data_is_not_resumed(tmp_path: Path) -> None:
    path = saved(tiny_module(tmp_path), tmp_path)
    checkpoint = torch.load(path)
    del checkpoint["lightning_jv5"]["trained_batches"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="does not say how many batches it was trained on"):
        quiet_trainer(tmp_path, max_steps=2).fit(tiny_module(tmp_path), tiny_data(), ckpt_path=path)
    quiet_trainer(tmp_path).validate(tiny_module(tmp_path), tiny_data(), ckpt_path=path, verbose=False)


def test_users_see_no_warning_that_does_not_concern_them(tmp_path: Path) -> None:
    def run(checkpoint: Path | None, steps: int) -> Trainer:
        trainer = quiet_trainer(
            tmp_path,
            max_steps=steps,
            logger=CSVLogger(tmp_path, version=0 if checkpoint is None else 1),
            log_every_n_steps=1,
            callbacks=[ModelCheckpoint(tmp_path / "checkpoints")],
            enable_checkpointing=True,
        )
        trainer.fit(
            tiny_module(tmp_path, dropout=0.1, scheduler=WarmupLinear), tiny_data(num_workers=1), ckpt_path=checkpoint
        )
        return trainer

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(None, 2).save_checkpoint(tmp_path / "two.ckpt")
        run(tmp_path / "two.ckpt", 5)  # resumes in the middle of an epoch
    # Advice on workers; the folder of a resumed run; Lightning's own use of torch
    concerns = ("bottleneck", "is not empty", "LeafSpec")
    shown = {str(warning.message) for warning in caught if not any(word in str(warning.message) for word in concerns)}
    assert not shown


# Adapters


def test_the_optimizer_gets_the_adapter_and_the_losses_parameters_alone(tmp_path: Path) -> None:
    student = Embedder(save_tiny_backbone(tmp_path / "model"), pooling="mean", adapter=LoRA("retrieval", rank=2))
    module = tiny_module(tmp_path, student=student)
    before = {name: weights.clone() for name, weights in module.state_dict().items()}
    trainer, _ = fit(module, tmp_path)
    optimized = {id(weights) for group in trainer.optimizers[0].param_groups for weights in group["params"]}
    names = {name for name, weights in module.named_parameters() if id(weights) in optimized}
    assert {name for name in names if name.startswith("student.")} == {name for name in before if "lora_" in name}
    assert {name for name in names if not name.startswith("student.")} == {name for name in before if "object" in name}
    for name, weights in module.state_dict().items():
        assert torch.equal(weights, before[name]) == (name not in names), name


def test_a_module_encodes_with_the_adapter_that_is_asked_for(tmp_path: Path) -> None:
    from tests.models.tiny_adapters import write_adapter

    model = save_tiny_backbone(tmp_path / "model")
    write_adapter(tmp_path / "model" / "adapters" / "clustering", model)
    module = tiny_module(tmp_path, student=Embedder(model, pooling="mean", adapter=LoRA("retrieval", rank=2)))
    expected = Embedder(model, pooling="mean", task="clustering").encode(["a cat"])
    assert torch.equal(module.encode(["a cat"], task="clustering"), expected)
    assert not torch.allclose(module.encode(["a cat"]), expected, atol=1e-2)


def test_an_adapter_under_model_parallel_strategy_is_refused(tmp_path: Path) -> None:
    student = Embedder(save_tiny_backbone(tmp_path / "model"), pooling="mean", adapter=LoRA("retrieval"))
    module = tiny_module(tmp_path, student=student)
    module.trainer = quiet_trainer(tmp_path, devices=2, strategy=ModelParallelStrategy())
    with pytest.raises(ValueError, match=r"Got ModelParallelStrategy for the adapter 'retrieval': .*Use strategy: ddp"):
        module.configure_model()
