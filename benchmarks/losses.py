"""Losses over all pairs of a batch: time and extra memory, forward and backward, beside sentence-transformers.

    python benchmarks/losses.py                 measure, print the table, write losses.json
    python benchmarks/losses.py --markdown      print the table of losses.json again

Every case runs alone in a process of its own for its memory, then all are timed in turn, in another order each round.
The limit is three products of 2 * batch^2 * dim operations (four for both ways, where six are done) at the rate of this
machine's matrix product, which is measured in each round.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from record import caption, load, pin, provenance, save, table

DIM, DIMS, TEXTS = 384, [384, 192, 96, 48], 9 * 1024
SCALE = 50.0  # one over a temperature of 0.02


def _rows(count: int, seed: int) -> Any:
    import torch

    rows = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    rows.grad = torch.zeros_like(rows)  # whoever trains has it: no extra memory of the loss
    return rows


def ours(batch: int, **options: Any) -> Callable[[], None]:
    from lightning_jv5.losses import info_nce

    query, document = _rows(batch, 0), _rows(batch, 1)
    return lambda: info_nce(query, document, temperature=1 / SCALE, **options).backward()


def peer(batch: int, dims: list[int] | None = None) -> Callable[[], None]:
    """MultipleNegativesRankingLoss over ready embeddings: an encoder that does nothing but hand them out."""
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
    from torch import nn

    class Ready(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {**features}

        def get_embedding_dimension(self) -> int:
            return DIM

    model = Ready()
    loss: Any = MultipleNegativesRankingLoss(model, scale=SCALE)
    if dims is not None:
        loss = MatryoshkaLoss(model, loss, dims)
    query, document = _rows(batch, 0), _rows(batch, 1)

    def step() -> None:
        # Not the leaves themselves: MatryoshkaLoss writes into what it is given
        loss([{"sentence_embedding": rows * 1} for rows in (query, document)], None).backward()

    return step


def spread(batch: int) -> Callable[[], None]:
    from lightning_jv5.losses import spread_out

    query, document = _rows(batch, 0), _rows(batch, 1)

    def step() -> None:
        (spread_out(query) + spread_out(document)).backward()

    return step


def peer_spread(batch: int) -> Callable[[], None]:
    from sentence_transformers.sentence_transformer.losses import GlobalOrthogonalRegularizationLoss
    from torch import nn

    loss: Any = GlobalOrthogonalRegularizationLoss(nn.Identity())
    query, document = _rows(batch, 0), _rows(batch, 1)

    def step() -> None:
        value = loss([{"sentence_embedding": rows * 1} for rows in (query, document)], None)
        (sum(value.values()) if isinstance(value, dict) else value).backward()

    return step


def relations(texts: int) -> Callable[[], None]:
    from lightning_jv5.losses import relational_distillation

    student, reference = _rows(texts, 0), _rows(texts, 1).detach()
    return lambda: relational_distillation(student, reference).backward()


def plain_relations(texts: int) -> Callable[[], None]:
    """Equation 8 as one would write it."""
    import torch.nn.functional as F

    student, reference = _rows(texts, 0), _rows(texts, 1).detach()

    def step() -> None:
        s, t = F.normalize(student, dim=-1), F.normalize(reference, dim=-1)
        a, b = 1 - s @ s.T, 1 - t @ t.T
        (a / a.mean() - b / b.mean()).square().mean().backward()

    return step


class Case(NamedTuple):
    """What is measured: how it is made, and in how many rounds (the slow ones less often)."""

    make: Callable[[], Callable[[], None]]
    rounds: int = 5


CASES = {
    "InfoNCE 16,384": Case(lambda: ours(16384)),
    "sentence-transformers InfoNCE 16,384": Case(lambda: peer(16384), 3),
    "InfoNCE both ways 16,384": Case(lambda: ours(16384, direction="both"), 3),
    "InfoNCE 32,768": Case(lambda: ours(32768), 1),
    "InfoNCE 65,536": Case(lambda: ours(65536), 1),
    "Matryoshka InfoNCE 16,384": Case(lambda: ours(16384, dims=DIMS)),
    "sentence-transformers Matryoshka 16,384": Case(lambda: peer(16384, DIMS), 2),
    "spread-out 16,384": Case(lambda: spread(16384)),
    "sentence-transformers spread-out 16,384": Case(lambda: peer_spread(16384), 2),
    "relations 9 x 1,024": Case(lambda: relations(TEXTS)),
    "plain relations 9 x 1,024": Case(lambda: plain_relations(TEXTS), 3),
}


def product_rate() -> float:
    """Return the operations a second of a product of the shapes in question, the best of a few."""
    import torch

    rows, columns = torch.randn(1024, DIM), torch.randn(16384, DIM)
    out = torch.empty(1024, 16384)
    best = min(_seconds(lambda: torch.mm(rows, columns.T, out=out)) for _ in range(8))
    back = min(_seconds(lambda: torch.mm(out, columns)) for _ in range(8))
    return 2 * 1024 * 16384 * DIM * 2 / (best + back)


def _seconds(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def extra_memory(name: str) -> float:
    """Return by how many megabytes one step raises the peak of this process above its inputs and their gradients."""
    import torch

    torch.set_num_threads(2)
    step = CASES[name].make()
    for _ in range(2):  # kernels and threads allocate, too
        ours(64)()
        ours(64, dims=DIMS)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6


def measure(most: int) -> dict[str, Any]:
    """Return seconds, megabytes and the product rate of every round."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(2)
    rounds = {name: min(case.rounds, most) for name, case in CASES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    megabytes: dict[str, float] = {}
    rates: list[float] = []
    shuffle = random.Random(0)
    with tqdm(total=len(CASES) + sum(rounds.values()), unit="case") as bar:
        for name in CASES:
            bar.set_description(f"memory of {name}")
            told = subprocess.run(
                [sys.executable, __file__, "--memory-of", name], capture_output=True, text=True, check=True
            )
            megabytes[name] = round(json.loads(told.stdout.splitlines()[-1]), 1)
            bar.update()
        for number in range(max(rounds.values())):
            rates.append(product_rate())
            for name in shuffle.sample(list(CASES), len(CASES)):
                if number < rounds[name]:
                    bar.set_description(name)
                    step = CASES[name].make()
                    seconds[name].append(round(_seconds(step), 3))
                    bar.update()
    return {"seconds": seconds, "megabytes": megabytes, "products_per_second": rates}


def report(result: dict[str, Any]) -> str:
    """Return the table and where it is from."""
    seconds = {name: statistics.median(values) for name, values in result["seconds"].items()}
    megabytes, rate = result["megabytes"], statistics.median(result["products_per_second"])
    rows = []
    for name, values in result["seconds"].items():
        batch = TEXTS if "relations" in name else int(name.split()[-1].replace(",", ""))
        limit = 3 * 2 * batch**2 * DIM / rate * (4 / 3 if "both" in name else 1)
        dense = "spread" not in name and "relations" not in name
        spread_of = f"{min(values):.2f} - {max(values):.2f}"
        share = f"{limit / seconds[name]:.0%}" if dense else ""
        rows.append([name, f"{seconds[name]:.2f}", spread_of, f"{megabytes[name]:,.0f}", share])
    main = table(["forward and backward", "median s", "min - max", "extra MB", "of the limit"], rows)

    def ratio(slow: str, fast: str) -> float:
        return seconds[slow] / seconds[fast]

    own, other = "InfoNCE 16,384", "sentence-transformers InfoNCE 16,384"
    nested, other_nested = "Matryoshka InfoNCE 16,384", "sentence-transformers Matryoshka 16,384"
    gor, other_gor = "spread-out 16,384", "sentence-transformers spread-out 16,384"
    relation, plain = "relations 9 x 1,024", "plain relations 9 x 1,024"
    limit = 3 * 2 * 16384**2 * DIM / rate
    targets = [
        ("InfoNCE, times faster than the peer's", ratio(other, own), ">=", 1.6),
        ("InfoNCE, share of the limit", limit / seconds[own], ">=", 0.7),
        ("InfoNCE 16,384, extra MB", megabytes[own], "<", 400),
        ("InfoNCE 32,768, extra MB", megabytes["InfoNCE 32,768"], "<", 600),
        ("InfoNCE 65,536, extra MB", megabytes["InfoNCE 65,536"], "<", 1000),
        ("Matryoshka of 4 dims, times faster than the peer's", ratio(other_nested, nested), ">=", 3),
        ("Matryoshka of 4 dims, times a single dim", ratio(nested, own), "<=", 1.7),
        ("spread-out, times faster than the peer's", ratio(other_gor, gor), ">=", 50),
        ("spread-out, extra MB", megabytes[gor], "<", 100),
        ("relations, times faster than plain", ratio(plain, relation), ">=", 10),
    ]
    met = [
        [
            name,
            f"{value:,.2f}",
            f"{sign} {wanted:g}",
            "yes" if (value >= wanted if ">" in sign else value <= wanted) else "NO",
        ]
        for name, value, sign, wanted in targets
    ]
    against = table(["figure", "measured", "target", "met"], met)
    return f"{main}\n\nMatrix product: {rate / 1e9:.0f} GFLOP/s.\n\n{against}\n\n{caption(result['made'])}"


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="at most so many rounds of each case")
    parser.add_argument("--markdown", action="store_true", help="print the table of the last measurement")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        pin(2)
        print(json.dumps(extra_memory(arguments.memory_of)))
        return
    if arguments.markdown:
        print(report(load("losses")))
        return
    pin(2)
    result = {
        "made": provenance(f"python benchmarks/losses.py --rounds {arguments.rounds}"),
        **measure(arguments.rounds),
    }
    save("losses", result)
    print(report(result))


if __name__ == "__main__":
    main()
