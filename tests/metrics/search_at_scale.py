"""Rank a million documents, made tile by tile, in a process of its own; prints what it found and its peak memory."""

import json
import resource

import torch
import torch.nn.functional as F

from lightning_jv5.metrics import StreamingRetrieval

DOCUMENTS, QUERIES, DIM, DEPTH, TILE = 1_000_000, 1_000, 384, 10, 4_000


def main() -> None:
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(QUERIES, DIM, generator=generator), dim=1)
    # Ten neighbours of each query at known cosines, spread over the corpus; of the rest none comes near
    planted = torch.randperm(DOCUMENTS, generator=generator)[: QUERIES * DEPTH].view(QUERIES, DEPTH)
    order = planted.flatten().argsort()
    cosines = torch.linspace(0.9, 0.5, DEPTH)
    metric = StreamingRetrieval(
        {query: {int(planted[query, 0]): 1} for query in range(QUERIES)},
        query_count=QUERIES,
        document_count=DOCUMENTS,
        measures=[f"mrr@{DEPTH}"],
    )
    metric.update("query", queries, torch.arange(QUERIES))
    noise = F.normalize(torch.randn(TILE + DIM, DIM, generator=generator), dim=1)
    for start in range(0, DOCUMENTS, TILE):
        # Turned by a coordinate and moved by a row for each tile: other vectors, without the time to draw them
        number = start // TILE
        tile = noise[number : number + TILE].roll(number, 1)
        far = tile[0].clone()
        low, high = torch.searchsorted(planted.flatten()[order], torch.tensor([start, start + TILE])).tolist()
        for place in order[low:high].tolist():
            query, rank = divmod(place, DEPTH)
            away = F.normalize(far - (far @ queries[query]) * queries[query], dim=0)
            vector = cosines[rank] * queries[query] + (1 - cosines[rank] ** 2).sqrt() * away
            tile[planted[query, rank] - start] = vector
        metric.update("document", tile, torch.arange(start, start + TILE))
    scores, rows = metric.rankings()
    print(
        json.dumps(
            {
                "right_rows": rows.equal(planted),
                "score_error": float((scores - cosines).abs().max()),
                "mrr": metric.compute()[f"mrr@{DEPTH}"].item(),
                "complete": metric.is_complete(),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
