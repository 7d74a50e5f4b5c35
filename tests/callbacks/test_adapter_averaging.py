import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from lightning_jv5 import EmbeddingModule
from lightning_jv5.callbacks import AdapterAveraging
from lightning_jv5.callbacks.weight_averages import planned_steps, swapped_in, update_moving_average
from lightning_jv5.cli import main
from lightning_jv5.tasks import evaluate
from tests.callbacks.averaging_run import (
    History,
    Weights,
    averaging_module,
    averaging_run,
    averaging_trainer,
)
from tests.process_runs import finished, in_process, ranks_environment
from tests.tiny_configs import write_config
from tests.tiny_data import tiny_data, tiny_module, tiny_task

UNIFORM = {"steps": [2, 4]}
MOVING = {"ema_decay": 0.6, "ema_every": 2}


def slow_uniform(history: dict[int, Weights], steps: list[int], now: int) -> Weights:
    """The mean of the weights of some steps and of now, each step once."""
    counted = sorted({step for step in steps if step <= now} | {now})
    return {name: torch.stack([history[step][name].double() for step in counted]).mean(dim=0) for name in history[now]}


def slow_moving(history: dict[int, Weights], decay: float, every: int, now: int) -> Weights:
    """The recursion as printed, from all weights of the run."""
    average = {name: weight.double() for name, weight in history[1].items()}
    for step in range(2, now + 1):
        if step % every == 0:
            average = {
                name: decay * average[name] + (1 - decay) * weight.double() for name, weight in history[step].items()
            }
    return average


def slow_average(history: dict[int, Weights], settings: dict[str, Any], now: int) -> Weights:
    if "steps" in settings:
        return slow_uniform(history, settings["steps"], now)
    return slow_moving(history, settings["ema_decay"], settings.get("ema_every", 1), now)


def read(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True)
    return checkpoint


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read(folder / "checkpoints" / "averaged.ckpt")["state_dict"]
    return weights


@pytest.mark.parametrize("accumulate", [1, 2])  # an epoch of three batches ends in the middle of two
@pytest.mark.parametrize(
    "settings",
    [UNIFORM, {"steps": [1]}, {"steps": [3, 6]}, {"ema_decay": 0.6}, {"ema_decay": 0.9, "ema_every": 3}],
)
def test_the_average_is_that_of_all_weights_ever_kept(
    tmp_path: Path, settings: dict[str, Any], accumulate: int
) -> None:
    history, module = History(), averaging_module(tmp_path)
    averaging_trainer(
        tmp_path, AdapterAveraging(**settings), history, accumulate_grad_batches=accumulate, limit_val_batches=0
    ).fit(module, tiny_data())
    assert list(history.weights) == [1, 2, 3, 4, 5, 6]
    expected, saved = slow_average(history.weights, settings, now=6), averaged_weights(tmp_path)
    last = dict(module.named_parameters())
    trained = {name for name, weight in last.items() if weight.requires_grad}
    moved = {name for name in trained if not torch.equal(history.weights[1][name], last[name])}
    assert any("temperature" in name for name in moved)
    assert any("projection" in name for name in moved)
    for name, weight in expected.items():
        if name in trained:
            torch.testing.assert_close(saved[name].double(), weight, atol=1e-7, rtol=1e-6)
        else:
            assert torch.equal(saved[name], last[name])
    assert any(not torch.equal(saved[name], last[name]) for name in moved)


def test_a_moving_average_is_rounded_once(tmp_path: Path) -> None:
    history = History()
    averaging_trainer(tmp_path, AdapterAveraging(ema_decay=0.9), history, limit_val_batches=0).fit(
        averaging_module(tmp_path), tiny_data()
    )
    saved = averaged_weights(tmp_path)
    for name, weight in slow_moving(history.weights, 0.9, 1, now=6).items():
        torch.testing.assert_close(saved[name], weight.float(), atol=0, rtol=1.2e-7)  # a bit, as 5 roundings are not


def test_a_slow_moving_average_follows_what_float32_would_not() -> None:
    average, single = {"weight": torch.ones(1, dtype=torch.float64)}, torch.ones(1)
    weights = {"weight": torch.tensor([1.0002])}
    for _ in range(1000):
        update_moving_average(average, weights, decay=0.9999)
        single.mul_(0.9999).add_(weights["weight"], alpha=1e-4)
    reached = 1 + (float(weights["weight"]) - 1) * (1 - 0.9999**1000)
    assert float(average["weight"]) == pytest.approx(reached, abs=1e-12)
    assert abs(float(single) - reached) > 1e-5


@pytest.mark.parametrize("settings", [UNIFORM, MOVING])
def test_frozen_and_tied_weights_take_no_room(tmp_path: Path, settings: dict[str, Any]) -> None:
    callback, module, history = AdapterAveraging(**settings), averaging_module(tmp_path), History()
    module.student.register_module("twin", module.objective)
    averaging_trainer(tmp_path, callback, history, limit_val_batches=0).fit(module, tiny_data())
    kept = callback.state_dict()["kept"]
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    assert len(kept) == len(trained) < len(list(module.parameters()))
    assert sum(map(torch.numel, kept.values())) == sum(map(torch.numel, trained))
    saved, expected = averaged_weights(tmp_path), slow_average(history.weights, settings, now=6)
    twins = [name for name in saved if name.startswith("student.twin.")]
    assert twins
    for name in twins:
        assert torch.equal(saved[name], saved[name.replace("student.twin.", "objective.")])
    for name in kept:
        torch.testing.assert_close(saved[name].double(), expected[name], atol=1e-7, rtol=1e-6)


# Evaluation


@pytest.mark.parametrize("settings", [UNIFORM, {"steps": [3]}, MOVING])
def test_validation_logs_what_the_average_would_score_if_the_run_ended_now(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    history, module = History(), averaging_module(tmp_path)
    trainer = averaging_trainer(tmp_path, AdapterAveraging(**settings), history, max_steps=9)
    trainer.fit(module, tiny_data(evaluation_batch_size=3))
    assert list(history.logged) == [2, 4, 6, 8]
    differs = False
    for step, logged in history.logged.items():
        expected = slow_average(history.weights, settings, now=step)
        weights = {name: weight.float() for name, weight in expected.items()}
        for suffix, state in (("", history.weights[step]), ("/averaged", weights)):
            module.load_state_dict(state, strict=False)
            [score] = evaluate(module.encode, {"tiny": tiny_task()}, progress=False)
            for measure, value in score.values.items():
                assert logged[f"val/tiny/{measure}{suffix}"] == pytest.approx(value)
        differs |= logged["val/tiny/mrr@10"] != logged["val/tiny/mrr@10/averaged"]
    assert differs


def test_the_score_of_the_average_can_be_monitored_from_the_first_validation_on(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path / "kept", monitor="val/tiny/mrr@10/averaged", mode="max", filename="best")
    history = History()
    trainer = averaging_trainer(
        tmp_path, AdapterAveraging(steps=[4]), best, history, max_steps=9, enable_checkpointing=True
    )
    trainer.fit(averaging_module(tmp_path), tiny_data())
    scores = [logged["val/tiny/mrr@10/averaged"] for logged in history.logged.values()]
    assert float(cast(Tensor, best.best_model_score)) == pytest.approx(max(scores))
    assert (tmp_path / "kept" / "averaged.ckpt").is_file()


@pytest.mark.parametrize("settings", [UNIFORM, MOVING])
def test_averaging_does_not_change_training(tmp_path: Path, settings: dict[str, Any]) -> None:
    histories = []
    for callbacks in ([], [AdapterAveraging(**settings)]):
        history, module = History(), averaging_module(tmp_path, frozen=False)
        trainer = averaging_trainer(tmp_path, cast(Any, history), *callbacks, accumulate_grad_batches=2)
        trainer.fit(module, tiny_data())
        histories.append([*history.weights.values(), module.state_dict()])
    for plain, averaged in zip(*histories, strict=True):
        assert all(torch.equal(weight, averaged[name]) for name, weight in plain.items())


def test_each_bit_is_back_after_an_error_while_swapped() -> None:
    weights = [torch.tensor([1.0, float("nan"), -0.0]), torch.tensor([[1e-45]])]
    bits = [weight.view(torch.int32).clone() for weight in weights]

    def fail() -> None:
        assert [weight.sum().item() for weight in weights] == [0, 1]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), swapped_in(weights, [torch.zeros(3), torch.ones(1, 1)]):
        fail()
    assert all(torch.equal(weight.view(torch.int32), own) for weight, own in zip(weights, bits, strict=True))
    with pytest.raises(ValueError, match="shorter"), swapped_in(weights, [torch.zeros(3)]):
        pass
    assert all(torch.equal(weight.view(torch.int32), own) for weight, own in zip(weights, bits, strict=True))


def test_a_failing_evaluation_leaves_the_weights_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("cannot encode")

    history, module = History(), averaging_module(tmp_path)
    monkeypatch.setattr(module.student, "encode", fail)
    with pytest.raises(RuntimeError, match="cannot encode"):
        averaging_trainer(tmp_path, AdapterAveraging(steps=[1]), history).fit(module, tiny_data())
    assert list(history.weights) == [1, 2]
    assert all(torch.equal(weight, history.weights[2][name]) for name, weight in module.named_parameters())
    assert not (tmp_path / "checkpoints").exists()


def test_a_pass_that_is_cut_short_is_not_scored(tmp_path: Path) -> None:
    history = History()
    averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), history, limit_val_batches=1, num_sanity_val_steps=1).fit(
        averaging_module(tmp_path), tiny_data(evaluation_batch_size=2)
    )
    assert list(history.logged) == [0, 2, 4, 6]
    assert not any(history.logged.values())


# The end of a run


def test_the_table_is_that_of_the_last_weights_and_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in (6, 7):  # with a validation at the end, and without
        module, calls = averaging_module(tmp_path), []
        encode = module.student.encode
        monkeypatch.setattr(
            module.student,
            "encode",
            lambda *args, encode=encode, calls=calls, **kw: (calls.append(1), encode(*args, **kw))[1],
        )
        averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), max_steps=steps).fit(module, tiny_data())
        passes = len(calls)
        loaded = EmbeddingModule.load_from_checkpoint(tmp_path / "checkpoints" / "averaged.ckpt", lr=0.01)
        values = []
        for encoder in (module, loaded):
            [score] = evaluate(encoder.encode, {"tiny": tiny_task()}, progress=False)
            values.append(f"{score.values['ndcg@10']:.4f}")
        output = capsys.readouterr().out
        assert f"tiny  ndcg@10  {values[0]}    {values[1]}\n" in output
        assert f"Averaged weights: {tmp_path / 'checkpoints' / 'averaged.ckpt'}" in output
        assert values[0] != values[1]
        per_pass = len(calls) - passes  # of the last weights alone
        assert passes == per_pass * {6: 3, 7: 5}[steps]  # averages of steps 2, 4, 6; of 7 also the last weights


class Ends(Callback):
    """Ends the run after a step, in one way or another."""

    def __init__(self, end: Callable[[Trainer], None]) -> None:
        self.end = end

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 3:
            self.end(trainer)


def interrupt(trainer: Trainer) -> None:
    raise KeyboardInterrupt


def stop(trainer: Trainer) -> None:
    trainer.should_stop = True


def test_an_interrupted_run_writes_no_average(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), Ends(interrupt)).fit(
            averaging_module(tmp_path), tiny_data()
        )
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_that_is_stopped_early_averages_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = History()
    averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), history, Ends(stop)).fit(
        averaging_module(tmp_path), tiny_data()
    )
    expected, saved = slow_uniform(history.weights, [2], now=3), averaged_weights(tmp_path)
    for name, weight in expected.items():
        torch.testing.assert_close(saved[name].double(), weight, atol=1e-7, rtol=1e-6)
    (tmp_path / "checkpoints" / "averaged.ckpt").unlink()
    averaging_trainer(tmp_path, AdapterAveraging(steps=[4]), Ends(stop)).fit(averaging_module(tmp_path), tiny_data())
    assert "No averaged.ckpt: the run ended at step 3, before a snapshot." in capsys.readouterr().out
    assert not (tmp_path / "checkpoints" / "averaged.ckpt").exists()


def test_without_tasks_the_average_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), val_check_interval=None, check_val_every_n_epoch=1).fit(
        averaging_module(tmp_path), tiny_data(val={})
    )
    assert averaged_weights(tmp_path)
    assert "averaged  " not in capsys.readouterr().out


def test_fast_dev_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, callback = History(), AdapterAveraging(steps=[1, 4])
    averaging_trainer(tmp_path, callback, history, fast_dev_run=True).fit(
        averaging_module(tmp_path), tiny_data(evaluation_batch_size=64)
    )
    assert not any("averaged" in name for logged in history.logged.values() for name in logged)
    assert not callback.state_dict()["kept"]
    assert not (tmp_path / "checkpoints").exists()
    assert "veraged" not in capsys.readouterr().out


def test_a_save_that_fails_keeps_the_earlier_file_and_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    earlier = tmp_path / "checkpoints" / "averaged.ckpt"
    earlier.write_text("earlier")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    module, history = averaging_module(tmp_path), History()
    trainer = averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), history, limit_val_batches=0)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.fit(module, tiny_data())
    assert earlier.read_text() == "earlier"
    assert [path.name for path in earlier.parent.iterdir()] == ["averaged.ckpt"]
    assert all(torch.equal(weight, history.weights[6][name]) for name, weight in module.named_parameters())


# Processes that are killed, or several


def run(folder: Path, ranks: int = 1, **settings: Any) -> list[int | None]:
    common = {"LIGHTNING_JV5_CACHE": str(folder / "cache"), **(ranks_environment(ranks) if ranks > 1 else {})}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {} for rank in range(ranks)]
    return finished(
        [in_process(partial(averaging_run, folder, **settings), environment={**common, **rank}) for rank in own]
    )


def assert_same_average(one: dict[str, Any], other: dict[str, Any]) -> None:
    for what in ("seen", "taken", "ema"):
        assert one["state"][what] == other["state"][what]
    for weights in ("weights", "kept"):
        first, second = (
            result["weights"] if weights == "weights" else result["state"]["kept"] for result in (one, other)
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("averaging", "kill_before", "accumulate"),
    [(UNIFORM, 2, 1), (UNIFORM, 5, 2), ({"steps": [0.34, 5]}, 3, 1), (MOVING, 3, 1), (MOVING, 4, 2)],
)
def test_a_killed_run_resumes_with_the_same_average(
    tmp_path: Path, averaging: dict[str, Any], kill_before: int, accumulate: int
) -> None:
    settings = {"averaging": averaging, "accumulate": accumulate}
    assert run(tmp_path / "whole", **settings) == [0]
    killed = tmp_path / "killed"
    assert run(killed, kill_before=kill_before, **settings) == [-signal.SIGKILL]
    saved = read(killed / "checkpoints" / "last.ckpt")["callbacks"]["AdapterAveraging"]
    assert 0 < saved["seen"] < 6
    assert saved["kept"]
    assert run(killed, resume=True, **settings) == [0]
    whole, resumed = (torch.load(folder / "result0of1.pt") for folder in (tmp_path / "whole", killed))
    assert_same_average(whole, resumed)
    for step, logged in resumed["logged"].items():
        assert logged == whole["logged"][step]
    expected, averaged = averaged_weights(tmp_path / "whole"), averaged_weights(killed)
    assert all(torch.equal(averaged[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("averaging", [UNIFORM, MOVING])
def test_two_ranks_have_one_average(tmp_path: Path, averaging: dict[str, Any]) -> None:
    assert run(tmp_path, ranks=2, averaging=averaging) == [0, 0]
    first, second = (torch.load(tmp_path / f"result{rank}of2.pt") for rank in (0, 1))
    assert_same_average(first, second)
    assert list(first["logged"]) == [2, 4, 6]
    assert first["logged"] == second["logged"]
    module = EmbeddingModule.load_from_checkpoint(tmp_path / "checkpoints" / "averaged.ckpt", lr=0.01)
    [score] = evaluate(module.encode, {"tiny": tiny_task()}, progress=False)
    for measure, value in score.values.items():
        assert first["logged"][6][f"val/tiny/{measure}/averaged"] == pytest.approx(value)
    assert any(not torch.equal(weight, first["weights"][name]) for name, weight in module.named_parameters())


def checkpoint_at(folder: Path, step: int, *callbacks: Any) -> Path:
    saver = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer = averaging_trainer(folder, *callbacks, saver, enable_checkpointing=True, limit_val_batches=0)
    trainer.fit(averaging_module(folder), tiny_data())
    return folder / "checkpoints" / f"step={step}.ckpt"


@pytest.mark.parametrize(
    ("began", "resumed", "message"),
    [
        (UNIFORM, {"steps": [1, 5]}, r"of which \[1\] have passed at step 3, and .* snapshots of \[2\]; need the same"),
        (UNIFORM, {"steps": [2, 3]}, r"of which \[2, 3\] have passed at step 3"),
        (UNIFORM, MOVING, r"makes a moving average \(ema_decay\), and the checkpoint holds a uniform"),
        (MOVING, UNIFORM, r"makes a uniform average \(steps\), and the checkpoint holds a moving"),
        (None, {"steps": [2]}, r"of which \[2\] have passed at step 3, and from the checkpoint snapshots of \[\]"),
    ],
)
def test_a_resumed_run_that_averages_something_else_is_refused(
    tmp_path: Path, began: dict[str, Any] | None, resumed: dict[str, Any], message: str
) -> None:
    checkpoint = checkpoint_at(tmp_path, 3, *([] if began is None else [AdapterAveraging(**began)]), History())
    with pytest.raises(ValueError, match=message):
        averaging_trainer(tmp_path, AdapterAveraging(**resumed)).fit(
            averaging_module(tmp_path), tiny_data(), ckpt_path=checkpoint
        )


def test_a_run_resumed_without_a_state_averages_from_there_on(tmp_path: Path) -> None:
    checkpoint = checkpoint_at(tmp_path, 3, History())
    for settings in ({"steps": [3, 5]}, {"ema_decay": 0.5}):
        history = History()
        averaging_trainer(tmp_path, AdapterAveraging(**settings), history, limit_val_batches=0).fit(
            averaging_module(tmp_path), tiny_data(), ckpt_path=checkpoint
        )
        weights = {3: read(checkpoint)["state_dict"], **history.weights}
        saved = averaged_weights(tmp_path)
        for name in history.weights[6]:
            third, fourth, fifth, sixth = (weights[step][name].double() for step in (3, 4, 5, 6))
            if "steps" in settings:
                expected = (third + fifth + sixth) / 3
            else:
                expected = third / 8 + fourth / 8 + fifth / 4 + sixth / 2
            torch.testing.assert_close(saved[name].double(), expected, atol=1e-7, rtol=1e-6)


def test_a_callback_forgets_its_earlier_run(tmp_path: Path) -> None:
    callback, results = AdapterAveraging(**UNIFORM), []
    for _ in range(2):
        averaging_trainer(tmp_path, callback, limit_val_batches=0).fit(averaging_module(tmp_path), tiny_data())
        results.append(averaged_weights(tmp_path))
    assert all(torch.equal(weight, results[1][name]) for name, weight in results[0].items())


# Settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got steps None and ema_decay None; need exactly one"),
        ({"steps": [2], "ema_decay": 0.9}, r"got steps \[2\] and ema_decay 0.9; need exactly one"),
        ({"steps": []}, r"got steps \[\]; need whole numbers"),
        ({"steps": [0]}, r"got steps \[0\]; need whole numbers of optimizer steps, from 1"),
        ({"steps": [5, 5]}, r"got steps \[5, 5\]; .* each once"),
        ({"steps": [0.5, 1.5]}, r"got steps \[0.5, 1.5\]; .* in \(0, 1\)"),
        ({"steps": [-0.5]}, r"got steps \[-0.5\]; .* in \(0, 1\)"),
        ({"ema_decay": 1.0}, r"got ema_decay 1.0; need a number in \(0, 1\)"),
        ({"ema_decay": 0.0}, r"got ema_decay 0.0; need a number in \(0, 1\)"),
        ({"ema_decay": 0.9, "ema_every": 0}, "got ema_every 0; need at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdapterAveraging(**arguments)


@pytest.mark.parametrize(
    ("steps", "total", "planned"),
    [
        ([0.5], 8000, [4000]),
        ([0.29, 90], 100, [29, 90]),
        ([0.999], 10, [9]),
        ([0.001], 10, [1]),
        ([0.5], 1, [1]),
        ([10, 3], 10, [3, 10]),
        ([10, 3], float("inf"), [3, 10]),
    ],
)
def test_fractions_become_the_nearest_step_before_the_last(
    steps: list[int | float], total: float, planned: list[int]
) -> None:
    assert planned_steps(steps, total) == planned


@pytest.mark.parametrize(
    ("steps", "total", "message"),
    [
        ([2, 11], 10, r"got steps \[2, 11\], which are \[2, 11\] in this run of 10 optimizer steps; .* beyond the end"),
        ([5, 0.5], 10, r"which are \[5, 5\] in this run of 10 optimizer steps; need each once"),
        ([5, 0.5], float("inf"), r"got steps \[5, 0.5\] in a run without end; .* Set trainer.max_steps"),
    ],
)
def test_steps_that_do_not_fit_the_run_are_refused(steps: list[int | float], total: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned_steps(steps, total)


def test_steps_beyond_the_run_are_refused_before_training(tmp_path: Path) -> None:
    history = History()
    with pytest.raises(ValueError, match="in this run of 4 optimizer steps"):  # two epochs of three batches, by two
        averaging_trainer(
            tmp_path, AdapterAveraging(steps=[5]), history, max_steps=-1, max_epochs=2, accumulate_grad_batches=2
        ).fit(averaging_module(tmp_path), tiny_data())
    assert not history.weights


def test_sharded_weights_are_refused(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(strategy=ModelParallelStrategy(), fast_dev_run=False)
    with pytest.raises(ValueError, match=r"got ModelParallelStrategy, which divides weights .* trainer.strategy=ddp"):
        AdapterAveraging(**UNIFORM).setup(trainer, tiny_module(tmp_path), "fit")


def test_other_weights_that_begin_to_train_are_refused(tmp_path: Path) -> None:
    class Thaw(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step == 3:
                pl_module.requires_grad_()

    with pytest.raises(ValueError, match=r"averages \d+ parameters and got \d+ that train, with other names"):
        averaging_trainer(tmp_path, AdapterAveraging(**UNIFORM), Thaw(), limit_val_batches=0).fit(
            averaging_module(tmp_path), tiny_data()
        )


def test_from_yaml_the_average_is_saved_scored_and_never_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    callback = {"class_path": "lightning_jv5.callbacks.AdapterAveraging", "init_args": {"steps": [1, 3]}}
    (tmp_path / "averaging.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    configs = ["--config=tiny.yaml", "--config=averaging.yaml"]
    main(["fit", *configs])
    output = capsys.readouterr().out
    averaged = Path("runs/tiny/version_0/checkpoints/averaged.ckpt")
    assert f"Averaged weights: {tmp_path / averaged}" in output or f"Averaged weights: {averaged}" in output
    [row] = [line.split() for line in output.splitlines() if line.startswith("pairs  ndcg@10 ")]
    assert (averaged.parent / "best.ckpt").is_file()

    (tmp_path / "averaging.yaml").write_text(
        yaml.safe_dump({"trainer": {"callbacks": [callback | {"init_args": {"ema_decay": 0.9}}]}})
    )
    main(["validate", *configs, "--ckpt_path=last"])  # scores are those of the checkpoint, whatever averages
    (tmp_path / "averaging.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    capsys.readouterr()
    main(["validate", *configs, f"--ckpt_path={averaged}"])
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pairs  ndcg@10 ")]
    assert line.split()[2] == row[3]
    first = read(averaged)
    main(["fit", *configs, "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert (first["global_step"], read(averaged)["global_step"]) == (4, 8)


def test_of_a_run_in_yaml_a_wrong_step_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    callback = {"class_path": "lightning_jv5.callbacks.AdapterAveraging", "init_args": {"steps": [0.5, 50]}}
    (tmp_path / "averaging.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [callback]}}))
    with pytest.raises(SystemExit):
        main(["fit", "--config=tiny.yaml", "--config=averaging.yaml"])
    assert "error: AdapterAveraging got steps [0.5, 50], which are [2, 50] in this run of 4" in capsys.readouterr().err
