"""A loss on one rank of several, under DDP: what its module's parameters get, and what the loss is."""

import os
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lightning_jv5.losses import (
    BinaryConsistency,
    ByScore,
    CoSENT,
    EmbeddingBatch,
    EmbeddingDistillation,
    InfoNCE,
    LearnableTemperature,
    Loss,
    Matryoshka,
    Objective,
    RelationalDistillation,
    ScoreDistillation,
    SpreadOut,
    Term,
)
from lightning_jv5.losses.unit import unit_rows
from lightning_jv5.models import Projection
from lightning_jv5.process_group import leave_process_group

DIM, TEACHER_DIM = 6, 4
ROLES = ("query", "document", "negatives")


def losses() -> dict[str, Loss]:
    """Every loss that looks at more than one text at a time, and some that combine."""
    torch.manual_seed(0)
    retrieval = Objective(
        {
            "contrast": Term(InfoNCE(LearnableTemperature(0.05))),
            "distill": Term(EmbeddingDistillation(Projection(DIM, TEACHER_DIM), roles=ROLES), weight=2.0),
            "spread": Term(SpreadOut()),
        }
    )
    return {
        "contrast": InfoNCE(0.2),
        "contrast both ways, own negatives": InfoNCE(0.2, direction="both", own_negatives=True),
        "contrast with everything": InfoNCE(
            LearnableTemperature(0.05),
            direction="both",
            query_query=True,
            document_document=True,
            multiple_positives=True,
            mask_same_label=True,
            teacher_margin=0.2,
            hardness=1.0,
            tile_rows=2,
        ),
        "spread": SpreadOut(ROLES),
        "cosent": CoSENT(),
        "scores": ScoreDistillation(0.3, roles=ROLES, tile_rows=2),
        "relations": RelationalDistillation(),
        "binary": BinaryConsistency(),
        "retrieval": retrieval,
        "matryoshka": Matryoshka(Objective({"all": Term(retrieval), "scores": Term(ScoreDistillation(0.3))}), [6, 3]),
    }


def texts_of(counts: Sequence[int]) -> EmbeddingBatch:
    """Features of a whole batch, of which ranks take parts; row ``i`` has ``counts[i]`` hard negatives."""
    generator = torch.Generator().manual_seed(1)
    rows = {"query": len(counts), "document": len(counts), "negatives": sum(counts)}

    def ids(count: int, most: int) -> Tensor:
        return torch.randint(most, (count,), generator=generator)

    return EmbeddingBatch(
        **{role: torch.randn(count, DIM, generator=generator) for role, count in rows.items()},
        **{f"{role}_teacher": torch.randn(count, TEACHER_DIM, generator=generator) for role, count in rows.items()},
        **{f"{role}_id": ids(count, 5) + 10 * place for place, (role, count) in enumerate(rows.items())},
        negative_counts=torch.tensor(counts),
        score=torch.randint(3, (len(counts),), generator=generator).float(),
        label=ids(len(counts), 4),
        negatives_label=ids(sum(counts), 4),
    )


def part_of(whole: EmbeddingBatch, first: int, last: int) -> EmbeddingBatch:
    counts = whole.negative_counts
    assert counts is not None
    negatives = slice(int(counts[:first].sum()), int(counts[:last].sum()))
    columns: dict[str, Any] = {
        field.name: value[negatives if field.name.startswith("negatives") else slice(first, last)]
        for field in fields(whole)
        if isinstance(value := getattr(whole, field.name), Tensor)
    }
    return replace(whole, **columns)


class Student(nn.Module):
    """The least that has parameters before the loss, as an encoder has."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.linear = nn.Linear(DIM, DIM)
        self.loss = loss

    def forward(self, texts: EmbeddingBatch, gather: bool) -> Tensor:
        parts = {role: unit_rows(self.linear(getattr(texts, role))) for role in ROLES}
        batch = replace(texts, **parts)
        return self.loss(batch.gather() if gather else batch)


def measured(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    return {"loss": loss.detach().clone(), **{name.removeprefix("module."): grad for name, grad in gradients.items()}}


def alone(counts: Sequence[int]) -> dict[str, dict[str, Tensor]]:
    """Value and gradients of the whole batch in one process."""
    students = {name: Student(loss) for name, loss in losses().items()}
    return {name: measured(student, student(texts_of(counts), False)) for name, student in students.items()}


def joined(target: Callable[..., None], *arguments: Any) -> None:
    """Call ``target`` within a process group."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=os.environ["RENDEZVOUS"], rank=rank, world_size=ranks)
    target(*arguments)
    leave_process_group()


def on_ranks(folder: Path, counts: Sequence[int], bounds: Sequence[int]) -> None:
    """Write the mean value over ranks, and the gradients after DDP, of each loss."""
    rank = dist.get_rank()
    own = part_of(texts_of(counts), bounds[rank], bounds[rank + 1])
    result = {}
    for name, loss in losses().items():
        student = DistributedDataParallel(Student(loss))
        result[name] = measured(student, student(own, True))
        dist.all_reduce(result[name]["loss"])
        result[name]["loss"] /= dist.get_world_size()
    torch.save(result, folder / f"rank{rank}.pt")


def alternating(folder: Path) -> None:
    """Train on batches with and without scores in turn: DDP fails where a parameter is left out of a step."""
    loss = ByScore(
        CoSENT(LearnableTemperature(0.05)),
        Objective(
            {
                "contrast": Term(InfoNCE(LearnableTemperature(0.02))),
                "distill": Term(EmbeddingDistillation(Projection(DIM, TEACHER_DIM))),
            }
        ),
    )
    student = DistributedDataParallel(Student(loss))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    whole = texts_of([1, 1, 1, 1])
    own = part_of(whole, 2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    for step in range(4):
        optimizer.zero_grad()
        student(replace(own, score=own.score if step % 2 else None), True).backward()
        optimizer.step()
    torch.save(student.module.state_dict(), folder / f"rank{dist.get_rank()}.pt")


def other_columns(folder: Path) -> None:
    """Gather batches of other columns, and write down what is said about it."""
    whole = texts_of([1, 1])
    batch = replace(whole, score=None, negatives_label=None) if dist.get_rank() else whole
    try:
        batch.gather()
    except ValueError as error:
        (folder / f"rank{dist.get_rank()}.txt").write_text(str(error))
