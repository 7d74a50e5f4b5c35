"""What holds for every loss, whatever it computes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_jv5.losses import EmbeddingBatch
from lightning_jv5.losses.unit import unit_rows
from tests.losses.loss_on_ranks import DIM, ROLES, TEACHER_DIM, losses, texts_of

COUNTS = (2, 0, 1, 1, 3, 0)
NAMES = list(losses())


def leaves(batch: EmbeddingBatch, **changes: Any) -> tuple[EmbeddingBatch, list[torch.Tensor]]:
    """The batch with student embeddings that have a gradient, and those embeddings."""
    students = {role: getattr(batch, role).detach().clone().requires_grad_() for role in ROLES}
    return replace(batch, **students, **changes), list(students.values())


def value_and_gradients(name: str, batch: EmbeddingBatch, students: list[torch.Tensor]) -> list[torch.Tensor]:
    value = losses()[name](batch)
    gradients = torch.autograd.grad(value, students, allow_unused=True)
    return [value.detach(), *(torch.zeros(()) if part is None else part for part in gradients)]


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: str) -> None:
    expected = value_and_gradients(name, *leaves(texts_of(COUNTS)))
    batch, students = leaves(texts_of(COUNTS))
    with torch.autocast("cpu", torch.bfloat16):
        value = losses()[name](batch)
    found = torch.autograd.grad(value, students, allow_unused=True)  # outside, as Lightning goes backward
    for part, wanted in zip([value.detach(), *found], expected, strict=True):
        assert torch.equal(torch.zeros(()) if part is None else part, wanted)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"binary", "retrieval", "matryoshka"}])
def test_rotating_the_space_changes_nothing(name: str) -> None:
    batch = texts_of(COUNTS)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(9)))[0]
    rotated = replace(batch, **{role: getattr(batch, role) @ rotation for role in ROLES})
    torch.testing.assert_close(losses()[name](rotated), losses()[name](batch))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_changes_nothing(name: str) -> None:
    batch = texts_of((1, 1, 1, 1, 1))
    order = torch.tensor([3, 0, 4, 1, 2])
    columns = {field: value[order] for field, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    torch.testing.assert_close(losses()[name](replace(batch, **columns)), losses()[name](batch))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_gives_nearly_the_float32_value_in_float32_or_more(name: str, dtype: torch.dtype) -> None:
    batch = texts_of(COUNTS)
    converted = replace(batch, **{role: getattr(batch, role).to(dtype) for role in ROLES})
    loss = losses()[name].to(torch.float64) if dtype == torch.float64 else losses()[name]
    value = loss(converted)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = losses()[name](replace(batch, **{role: getattr(converted, role).float() for role in ROLES}))
    torch.testing.assert_close(value.float(), exact, atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_odd_batches_stay_finite(data: st.DataObject, name: str) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    batch = texts_of(counts)
    kind = data.draw(st.sampled_from(["zero", "equal", "tiny", "huge", "as they are"]))
    factors = {"zero": 0.0, "tiny": 1e-6, "huge": 1e6}
    changed = {role: getattr(batch, role) * factors.get(kind, 1.0) for role in ROLES}
    if kind == "equal":
        changed = {role: torch.ones_like(rows) for role, rows in changed.items()}
    score = data.draw(st.sampled_from([torch.zeros(len(counts)), torch.arange(float(len(counts)))]))
    odd, students = leaves(replace(batch, **changed, score=score))
    for part in value_and_gradients(name, odd, students):
        assert part.isfinite().all()


def test_a_step_may_be_looked_at_without_gradients() -> None:
    for loss in losses().values():
        batch = texts_of(COUNTS)
        batch = replace(batch, **{role: unit_rows(getattr(batch, role)) for role in ROLES})
        with torch.inference_mode():
            watched = loss(batch)
        torch.testing.assert_close(watched.clone(), loss(batch).detach())
    assert TEACHER_DIM != DIM  # the projection has something to do
