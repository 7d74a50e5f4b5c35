from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from lightning_jv5.schedules import StepSchedule, WarmupCosine, WarmupLinear, WarmupStableDecay
from tests.references import slow_cosine_decay, slow_linear_decay, slow_stable_decay, slow_warmup
from tests.tiny_data import Recorder, quiet_trainer, sgd, tiny_data, tiny_module

SCHEDULES: list[tuple[Callable[..., StepSchedule], Callable[[float], float]]] = [
    (WarmupCosine, slow_cosine_decay),
    (WarmupLinear, slow_linear_decay),
    (partial(WarmupStableDecay, decay_share=0.3), partial(slow_stable_decay, decay_share=0.3)),
    (partial(WarmupStableDecay, decay_share=1.0), partial(slow_stable_decay, decay_share=1.0)),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def optimizer(*rates: float) -> SGD:
    return SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in rates])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.1, 2), (0.25, 4), (3, 3), (13, 13), (0.999, 13)])
def test_schedule_matches_slow_formula_at_every_step(schedule: Any, warmup: float, steps: int) -> None:
    make, decay = schedule
    total = 13
    of = optimizer(1.0, 0.01)
    scheduler = make(of, warmup=warmup, total_steps=total)
    for step in range(total + 3):
        rising, progress = slow_warmup(step, steps, total)
        expected = rising if step < steps else decay(progress)
        assert [group["lr"] for group in of.param_groups] == pytest.approx([expected, 0.01 * expected])
        assert scheduler.get_last_lr() == [group["lr"] for group in of.param_groups]
        of.step()
        scheduler.step()


def test_planning_later_is_as_planning_at_once() -> None:
    first, second = optimizer(0.5), optimizer(0.5)
    at_once, later = WarmupCosine(first, warmup=4, total_steps=9), WarmupCosine(second, warmup=4)
    later.plan(9)
    for _ in range(9):
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
        for scheduler in (at_once, later):
            scheduler.optimizer.step()
            scheduler.step()


@pytest.mark.parametrize(
    ("length", "accumulate", "steps"),
    [
        ({"max_steps": 5}, 1, 5),
        ({"max_epochs": 2}, 1, 6),
        ({"max_epochs": 2}, 2, 4),  # 3 batches an epoch: Lightning steps after the second and after the last
        ({"max_epochs": 2, "limit_train_batches": 2}, 1, 4),
        ({"max_epochs": 5, "max_steps": 4}, 2, 4),
    ],
)
def test_schedule_spans_the_run_in_optimizer_steps(
    tmp_path: Path, length: dict[str, int], accumulate: int, steps: int
) -> None:
    rates: list[float] = []

    def recording_sgd(parameters: Any) -> SGD:
        made = sgd(parameters)
        made.register_step_pre_hook(lambda made, *_: rates.append(made.param_groups[0]["lr"]))
        return made

    module = tiny_module(tmp_path, optimizer=recording_sgd, scheduler=partial(WarmupLinear, warmup=2), lr=None)
    trainer = quiet_trainer(tmp_path, accumulate_grad_batches=accumulate, limit_val_batches=0, **length)
    trainer.fit(module, tiny_data())
    assert trainer.global_step == steps
    expected = [(step + 1) / 2 if step < 2 else 1 - (step - 2) / (steps - 2) for step in range(steps)]
    assert rates == pytest.approx([0.1 * factor for factor in expected])


def test_total_steps_of_its_own_win_over_the_trainers(tmp_path: Path) -> None:
    recorder = Recorder()
    module = tiny_module(tmp_path, optimizer=sgd, scheduler=partial(WarmupLinear, warmup=0, total_steps=10), lr=None)
    quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0, callbacks=[recorder]).fit(module, tiny_data())
    assert [rates[0] for rates in recorder.rates] == pytest.approx([0.1, 0.09, 0.08])


def test_a_resumed_schedule_continues_exactly(tmp_path: Path) -> None:
    def fit(steps: int, recorder: Recorder, checkpoint: Path | None = None) -> Any:
        module = tiny_module(tmp_path, scheduler=partial(WarmupCosine, warmup=0.3, total_steps=9))
        trainer = quiet_trainer(tmp_path, max_steps=steps, limit_val_batches=0, callbacks=[recorder])
        trainer.fit(module, tiny_data(), ckpt_path=checkpoint)
        return trainer

    whole, parts = Recorder(), Recorder()
    fit(7, whole)
    fit(4, parts).save_checkpoint(tmp_path / "half.ckpt")
    fit(7, parts, tmp_path / "half.ckpt")
    assert whole.rates == parts.rates
    assert len({rates[0] for rates in whole.rates}) == 6  # the peak comes twice


def test_a_run_without_end_needs_total_steps(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, scheduler=WarmupCosine)
    trainer = quiet_trainer(tmp_path, max_epochs=-1)
    with pytest.raises(
        ValueError, match=r"WarmupCosine needs the length of the run, which has no end; set trainer\.max"
    ):
        trainer.fit(module, tiny_data())


@pytest.mark.parametrize("warmup", [-1, 1.5])
def test_warmup_is_a_share_or_a_number_of_steps(warmup: float) -> None:
    with pytest.raises(ValueError, match=f"Got warmup {warmup}; give a share"):
        WarmupCosine(optimizer(1.0), warmup=warmup)


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="Got 5 warm-up steps in a run of 4"):
        WarmupCosine(optimizer(1.0), warmup=5, total_steps=4)
    with pytest.raises(ValueError, match="Got total_steps 0"):
        WarmupCosine(optimizer(1.0), total_steps=0)
    for share in (0, 1.1):
        with pytest.raises(ValueError, match=f"Got decay_share {share}"):
            WarmupStableDecay(optimizer(1.0), decay_share=share)
