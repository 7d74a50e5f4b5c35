"""InfoNCE: each query's own document against all others, in the memory of a tile of similarities."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.false_negatives import FalseNegatives, either
from lightning_jv5.losses.loss import Loss, TermValue
from lightning_jv5.losses.row_tiles import sum_over_row_tiles
from lightning_jv5.losses.schedule import Schedule
from lightning_jv5.losses.temperature import LearnableTemperature, check_temperature, temperature_source
from lightning_jv5.losses.unit import check_rows

Direction = Literal["query_to_document", "document_to_query", "both"]


def info_nce(
    query: Tensor,
    document: Tensor,
    *,
    temperature: float | Tensor,
    negatives: Tensor | None = None,
    negative_counts: Tensor | None = None,
    direction: Direction = "query_to_document",
    own_negatives: bool = False,
    query_query: bool = False,
    document_document: bool = False,
    multiple_positives: bool = False,
    hardness: float = 0.0,
    false_negatives: FalseNegatives | None = None,
    rows: slice | None = None,
    dims: Sequence[int] | None = None,
    dim_weights: Sequence[float] | None = None,
    tile_rows: int | None = None,
) -> Tensor:
    r"""Contrast each query's own document with all others: arXiv:2602.15547 eq. 2 (and eq. 7 with both directions).

    ``-log( S(x_i, y_i) / (S(x_i, y_i) + sum_{n in N_i} S(x_i, n)) )``, ``S(x, y) = exp( cos(x, y) / temperature )``.
    ``N_i`` are the documents of all other rows and the hard negatives, less what ``false_negatives`` leaves out.
    From documents to queries, ``N_i`` are the queries of all other rows. Exact to rounding, in float32 at least, in
    ``O(batch * dim)`` memory: similarities are computed a tile of rows at a time, and their gradient with them.

    Args:
        query: Embeddings of any length; shape ``(batch, dim)``.
        document: Row ``i`` answers query ``i``; shape ``(batch, dim)``.
        temperature: Divides the cosines (unitless); smaller is sharper. A tensor may have a gradient.
        negatives: Hard negatives of all queries, one query after the other; shape ``(sum of negative_counts, dim)``.
        negative_counts: How many each query has; int64, shape ``(batch,)``. Needed with ``own_negatives`` only.
        direction: Who chooses among whom. ``"both"`` is the sum of the two losses.
        own_negatives: Whether a hard negative counts for its own query only, rather than for all of the batch.
        query_query: Whether the other queries are negatives of a query, too.
        document_document: Whether the other documents are negatives of a document, from documents to queries.
        multiple_positives: Whether documents of rows with the same ``query_id`` are answers, too: the mean over a
            query's answers of the loss with that one answer. Otherwise they are merely left out. All pairs of a row and
            an answer are listed, so memory grows with their number.
        hardness: Weighs each negative by ``exp(hardness * cos)``, the weight without gradient: more than 0 stresses
            those that are most similar (Robinson et al. 2021, https://arxiv.org/abs/2010.04592, eq. 4).
        false_negatives: What is known about the texts, to leave some pairs of them out.
        rows: The rows of the batch whose loss is averaged; by default all. The others are candidates only.
        dims: Matryoshka: the loss is summed over embeddings cut to each of these, at about the price of the largest.
        dim_weights: Weight of each dim; by default 1.
        tile_rows: Rows in a tile of similarities; by default what fits a few megabytes.

    Returns:
        Mean over the rows, in nats: a scalar.

    Raises:
        ValueError: If shapes or dims do not fit, an option lacks what it needs, or, on the CPU, a number is not finite.

    >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor(0.3133)
    """
    _check_sides(query, document, negatives, negative_counts)
    _check_options(direction, document_document)
    if own_negatives and (negatives is None or negative_counts is None):
        missing = "negatives" if negatives is None else "negative_counts"
        raise ValueError(f"Got own_negatives without {missing}; give both, or leave own_negatives out.")
    check_temperature(temperature)
    known = false_negatives or FalseNegatives()
    known.check(len(query), 0 if negatives is None else len(negatives))
    if multiple_positives and known.query_id is None:
        raise ValueError(
            "Got multiple_positives without query ids; need false_negatives=FalseNegatives(query_id=...), where equal "
            "queries have equal numbers."
        )
    rows = slice(0, len(query)) if rows is None else slice(*rows.indices(len(query))[:2])
    owner = _owners(negative_counts) if own_negatives and negative_counts is not None else None
    tau = torch.as_tensor(temperature, device=query.device, dtype=torch.promote_types(query.dtype, torch.float32))
    answers = _Answers(rows, known.query_id if multiple_positives else None, like=tau.detach())
    sides = {"query": query, "document": document, "negatives": negatives}
    total = tau.new_zeros(())
    for anchor, candidates in _directions(direction, negatives is not None, query_query, document_document):
        columns = {role: side for role in candidates if (side := sides[role]) is not None}
        widths = {role: len(side) for role, side in columns.items()}
        total = total + sum_over_row_tiles(
            (query if anchor == "query" else document)[rows],
            torch.cat(list(columns.values())) if len(columns) > 1 else columns[candidates[0]],
            _Contrast(
                anchor,
                widths,
                rows=rows,
                temperature=tau.detach(),
                hardness=hardness,
                answers=answers,
                known=known,
                owner=owner,
            ),
            temperature=tau,
            dims=dims,
            weights=dim_weights,
            tile_rows=tile_rows,
        )
    return total


def _check_sides(query: Tensor, document: Tensor, negatives: Tensor | None, counts: Tensor | None) -> None:
    check_rows(query=query, document=document, negatives=negatives)
    if len(query) != len(document) or not len(query):
        raise ValueError(
            f"Got {len(query)} queries and {len(document)} documents; need as many of both, and at least one: row i "
            "of the documents answers query i. Hard negatives go into negatives."
        )
    if negatives is None or counts is None:
        return
    if len(counts) != len(query) or (counts.device.type == "cpu" and int(counts.sum()) != len(negatives)):
        raise ValueError(
            f"Got {len(counts)} negative_counts that sum to {int(counts.sum())}, for {len(query)} queries and "
            f"{len(negatives)} negatives; need one count for each query, and as many negatives as they say."
        )


def _check_options(direction: str, document_document: bool) -> None:
    if direction not in get_args(Direction):
        raise ValueError(f"Got direction {direction!r}; need one of {', '.join(get_args(Direction))}.")
    if document_document and direction == "query_to_document":
        raise ValueError(
            "Got document_document in the direction query_to_document, where a query chooses; documents are negatives "
            "of documents in the directions document_to_query and both."
        )


def _directions(
    direction: Direction, has_negatives: bool, query_query: bool, document_document: bool
) -> list[tuple[str, list[str]]]:
    """Return who chooses, and among what; the answers come first."""
    to_document = ("query", ["document", *["negatives"] * has_negatives, *["query"] * query_query])
    to_query = ("document", ["query", *["document"] * document_document])
    return {"query_to_document": [to_document], "document_to_query": [to_query]}.get(direction, [to_document, to_query])


def _owners(counts: Tensor) -> Tensor:
    """Return whose hard negative each is, from how many each query has."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


class _Answers:
    """Which columns answer which rows, and how much each counts in the mean over the rows.

    Args:
        rows: The rows whose loss is averaged.
        query_id: Where given, documents of all rows with the same number are answers; else each row has its own alone.
        like: Says where the weights go and in which dtype.
    """

    def __init__(self, rows: slice, query_id: Tensor | None, like: Tensor) -> None:
        count = rows.stop - rows.start
        row = torch.arange(rows.start, rows.stop, device=like.device)
        if query_id is None:
            self.row = self.column = row
            self.weight = like.new_full((count,), 1 / max(1, count))
            self._first: list[int] | None = None
            return
        order = query_id.argsort(stable=True)
        _, group, sizes = torch.unique(query_id, return_inverse=True, return_counts=True)
        answers = sizes[group[row]]
        ends = answers.cumsum(0)
        self.row = row.repeat_interleave(answers)
        within = torch.arange(len(self.row), device=like.device) - (ends - answers).repeat_interleave(answers)
        self.column = order[(sizes.cumsum(0) - sizes)[group[self.row]] + within]
        self.weight = (1 / (answers * count).to(like.dtype)).repeat_interleave(answers)
        self._first = [0, *ends.tolist()]  # once, and not for each tile: a GPU would have to be waited for

    def of(self, own: slice, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return row in the tile, column and weight of each answer of some rows, counted from the first of ``rows``."""
        pairs = own if self._first is None else slice(self._first[own.start], self._first[own.stop])
        return self.row[pairs] - (own.start + rows.start), self.column[pairs], self.weight[pairs]


class _Contrast:
    """The loss of a tile of anchors, and its gradient in the place of their cosines: a :class:`TileScore`."""

    def __init__(
        self,
        anchor: str,
        widths: Mapping[str, int],
        *,
        rows: slice,
        temperature: Tensor,
        hardness: float,
        answers: _Answers,
        known: FalseNegatives,
        owner: Tensor | None,
    ) -> None:
        self.anchor, self.widths, self.rows = anchor, widths, rows
        self.temperature, self.hardness = temperature, hardness
        self.answers, self.known, self.owner = answers, known, owner

    def prepare(self, own: slice) -> Tensor | None:
        """Return which candidates are left out."""
        rows = slice(own.start + self.rows.start, own.stop + self.rows.start)
        return either(self._by_knowledge(rows), self.known.by_teacher(self.anchor, list(self.widths), rows))

    def __call__(self, cosines: Tensor, own: slice, prepared: Tensor | None) -> Tensor:
        row, column, weight = self.answers.of(own, self.rows)
        answer = cosines[row, column] / self.temperature
        # Only the negatives are summed up: an answer is compared with their sum, so that several do not compete
        logits = cosines.mul_(1 / self.temperature + self.hardness)
        logits[row, column] = -torch.inf
        if prepared is not None:
            logits.masked_fill_(prepared, -torch.inf)
        highest = logits.amax(1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).min)  # a row may have no negative
        exponentials = logits.sub_(highest).exp_()
        total = exponentials.sum(1)
        gap = (highest.squeeze(1) + total.log())[row] - answer
        slope = gap.sigmoid() * weight / self.temperature
        share = torch.zeros_like(total).index_add_(0, row, slope) / total
        gradient = exponentials.mul_(torch.where(total > 0, share, 0.0).unsqueeze(1))
        gradient[row, column] = -slope
        return torch.sum(F.softplus(gap) * weight)

    def _by_knowledge(self, rows: slice) -> Tensor | None:
        row = torch.arange(rows.start, rows.stop, device=self.temperature.device).unsqueeze(1)
        parts = {role: self.known.of(self.anchor, role, rows) for role in self.widths}
        if self.anchor in parts:  # a text is no negative of itself
            itself = torch.arange(self.widths[self.anchor], device=row.device) == row
            parts[self.anchor] = either(parts[self.anchor], itself)
        if "negatives" in parts:
            parts["negatives"] = either(parts["negatives"], None if self.owner is None else self.owner != row)
        if all(part is None for part in parts.values()):
            return None
        nothing = torch.zeros((), dtype=torch.bool, device=row.device)
        shapes = {role: (len(row), width) for role, width in self.widths.items()}
        return torch.cat([(nothing if part is None else part).expand(shapes[role]) for role, part in parts.items()], 1)


class InfoNCE(Loss):
    """:func:`info_nce` as a term of an objective.

    Args:
        temperature: A number, a :class:`~lightning_jv5.losses.Schedule`, or a
            :class:`~lightning_jv5.losses.LearnableTemperature`, which is trained and saved with the module.
        direction: ``"query_to_document"``, ``"document_to_query"`` or ``"both"`` (their sum).
        own_negatives: Whether a hard negative counts for its own query only.
        query_query: Whether other queries are negatives of a query, too.
        document_document: Whether other documents are negatives of a document, from documents to queries.
        multiple_positives: Whether the documents of equal queries are all answers, rather than left out.
        hardness: Weighs each negative by ``exp(hardness * cos)``.
        mask_same_text: Whether candidates are left out whose text is the anchor's own, its answer, or the answer to an
            equal anchor. Where the batch does not tell which texts are equal, none are.
        mask_same_label: Whether texts of the query's class are left out.
        teacher_margin: Leave out what the teacher finds more similar than the answer by this difference of cosines.
        tile_rows: Rows in a tile of similarities; by default what fits a few megabytes.

    Raises:
        ValueError: If an option is wrong; in a step, if the batch lacks documents, labels or teacher vectors.

    >>> from lightning_jv5.losses import EmbeddingBatch
    >>> InfoNCE(temperature=1.0)(EmbeddingBatch(torch.eye(2), torch.eye(2)))
    tensor(0.3133)
    """

    def __init__(
        self,
        temperature: float | Schedule | LearnableTemperature = 0.02,
        *,
        direction: Direction = "query_to_document",
        own_negatives: bool = False,
        query_query: bool = False,
        document_document: bool = False,
        multiple_positives: bool = False,
        hardness: float = 0.0,
        mask_same_text: bool = True,
        mask_same_label: bool = False,
        teacher_margin: float | None = None,
        tile_rows: int | None = None,
    ) -> None:
        super().__init__()
        _check_options(direction, document_document)
        self.temperature = temperature_source(temperature)
        self.options: dict[str, Any] = {
            "direction": direction,
            "own_negatives": own_negatives,
            "query_query": query_query,
            "document_document": document_document,
            "multiple_positives": multiple_positives,
            "hardness": hardness,
            "tile_rows": tile_rows,
        }
        self.mask_same_text, self.mask_same_label = mask_same_text, mask_same_label
        self.teacher_margin = teacher_margin

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the loss of the batch; candidates are those of all ranks where the batch has been gathered."""
        return self._contrast(batch)

    def terms_at_dims(
        self, batch: EmbeddingBatch, dims: Sequence[int], weights: Sequence[float]
    ) -> dict[str, TermValue]:
        """Return the weighted sum over truncated embeddings, whose inner products are computed once for all dims."""
        return {"": TermValue(self._contrast(batch, dims=dims, dim_weights=weights), 1.0)}

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return the temperature where it changes."""
        return self.temperature.watched("temperature", step)

    def _contrast(self, batch: EmbeddingBatch, **at_dims: Any) -> Tensor:
        everywhere = batch.everywhere
        if everywhere.document is None:
            raise ValueError(
                f"Got a batch of {batch.dataset!r} without documents to contrast; use a data set of pairs, or ByScore "
                "if only some batches have them."
            )
        value = info_nce(
            everywhere.query,
            everywhere.document,
            temperature=self.temperature.at(batch.step),
            negatives=everywhere.negatives,
            negative_counts=everywhere.negative_counts,
            false_negatives=self._known(everywhere),
            rows=batch.rows,
            **self.options | ({"own_negatives": False} if everywhere.negatives is None else {}),
            **at_dims,
        )
        return value * batch.share("query")

    def _known(self, batch: EmbeddingBatch) -> FalseNegatives:
        if self.mask_same_label and batch.label is None:
            raise ValueError(
                f"Got a batch of {batch.dataset!r} without labels for mask_same_label; use a data set with a column "
                "label, or turn mask_same_label off."
            )
        texts = self.mask_same_text or self.options["multiple_positives"]
        return FalseNegatives(
            query_id=batch.query_id if texts else None,
            document_id=batch.document_id if texts else None,
            negatives_id=batch.negatives_id if texts else None,
            label=batch.label if self.mask_same_label else None,
            negatives_label=batch.negatives_label if self.mask_same_label else None,
            query_teacher=batch.query_teacher,
            document_teacher=batch.document_teacher,
            negatives_teacher=batch.negatives_teacher,
            teacher_margin=self.teacher_margin,
        )
