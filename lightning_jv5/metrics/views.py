"""Ways to store and compare embeddings: fewer coordinates, fewer bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.rebuildable import Rebuildable

Precision = Literal["float", "int8", "binary", "asymmetric", "rescored"]
PRECISIONS: Sequence[Precision] = get_args(Precision)
"""From the most bits to the fewest; the last two store the bits of ``"binary"`` and search them otherwise."""


@dataclass(frozen=True)
class View(Rebuildable):
    """A smaller representation cut from an embedding, as a user with less memory would store it.

    A metric cuts an embedding once (:meth:`cut`) and then asks what is compared: :meth:`query` of a text that
    searches, :meth:`document` of one that was stored. Their dot product ranks as the precision does:

    ``"float"``
        Cosines.
    ``"int8"``
        Whole numbers from -127 to 127, on both sides: each vector is scaled so that its largest coordinate is 127 or
        -127. That asks for no calibration, and cosines do not change with the scale of a vector.
    ``"binary"``
        Sign bits on both sides, compared by Hamming distance. Zero counts as positive.
    ``"asymmetric"``
        Floats search among sign bits.
    ``"rescored"``
        Sign bits find the documents, floats put those that were found in order: only for tasks that search. Query and
        document are those of ``"binary"``; the metric rescores with what was cut.

    Attributes:
        dim: Leading coordinates to keep, normalised again; all of them by default.
        precision: One of the above.

    Raises:
        ValueError: If either is not possible.

    >>> view, embeddings = View(dim=2, precision="binary"), torch.tensor([[0.5, -0.5, 0.7]])
    >>> view.document(view.cut(embeddings))
    tensor([[ 1., -1.]])
    >>> View(dim=64).name, View(precision="binary").name, View().name
    ('dim64', 'binary', '')
    """

    dim: int | None = None
    precision: Precision = "float"

    def __post_init__(self) -> None:
        if self.dim is not None and self.dim < 1:
            raise ValueError(f"Got a view of dim {self.dim}; need at least 1. Leave dim out to keep all coordinates.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"Got precision {self.precision!r}; need one of {', '.join(PRECISIONS)}.")

    @property
    def name(self) -> str:
        """How log keys call this view; empty for the whole embedding."""
        parts = ["" if self.dim is None else f"dim{self.dim}", "" if self.precision == "float" else self.precision]
        return "_".join(filter(None, parts))

    def bytes_per_vector(self, width: int) -> int:
        """Bytes that a stored document takes in memory, where whole embeddings have ``width`` coordinates.

        Rescoring also needs ``4 * dim`` bytes each, of which it reads those of the documents that were found: they may
        lie on a disk.

        >>> [View(precision=precision).bytes_per_vector(100) for precision in ("float", "int8", "binary", "rescored")]
        [400, 100, 13, 13]
        """
        dim = width if self.dim is None else self.dim
        return {"float": 4 * dim, "int8": dim}.get(self.precision, -(-dim // 8))

    def cut(self, embeddings: Tensor) -> Tensor:
        """Keep the leading coordinates, normalised again, in float32: shape ``(texts, dim)``.

        Args:
            embeddings: Whole embeddings; shape ``(texts, width)``.

        Raises:
            ValueError: If the embeddings have fewer coordinates than the view.
        """
        width = embeddings.shape[-1]
        if self.dim is not None and self.dim > width:
            raise ValueError(
                f"Got embeddings of {width} coordinates for a view of {self.dim}; need at least as many. "
                f"Take {self.dim} out of the dims to evaluate."
            )
        return F.normalize(embeddings[..., : self.dim].float(), dim=-1)

    def query(self, cut: Tensor) -> Tensor:
        """Represent texts that search, of what :meth:`cut` returned: float32, shape ``(texts, dim)``.

        Those that search among sign bits asymmetrically are scaled to whole numbers of at most ``2**24 / dim``: their
        sums with any signs are exact in float32, so documents of the same bits tie, in whatever batches they come.
        """
        if self.precision != "asymmetric":
            return self.document(cut)
        return (cut * (2**24 // cut.shape[-1] / _largest(cut))).round()

    def document(self, cut: Tensor) -> Tensor:
        """Represent texts as they are stored, of what :meth:`cut` returned: float32, shape ``(texts, dim)``.

        Codes of int8 come with length 1, sign bits as +1 and -1; what is not a number stays so in every precision.
        """
        if self.precision == "float":
            return cut
        if self.precision == "int8":
            return F.normalize((cut * (127 / _largest(cut))).round(), dim=-1)
        signs = torch.where(cut >= 0, 1.0, -1.0)
        return torch.where(cut.isfinite(), signs, torch.nan)  # a diverged model must not pass for a binary one


def _largest(vectors: Tensor) -> Tensor:
    """Largest absolute coordinate of each vector, 1 for one of zeros; shape ``(vectors, 1)``."""
    largest = vectors.abs().amax(-1, keepdim=True)
    return torch.where(largest == 0, 1.0, largest)
