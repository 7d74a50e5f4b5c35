"""Ways to read one embedding: fewer coordinates, fewer bits."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.rebuildable import Rebuildable


@dataclass(frozen=True)
class View(Rebuildable):
    """A smaller representation cut from an embedding, as a user with less memory would store it.

    Attributes:
        dim: Leading coordinates to keep, normalised again; all of them by default.
        precision: ``"float"``, or ``"binary"`` for sign bits written as +1 and -1 (zero counts as positive), so that
            the dot product of two ranks as their Hamming distance does.

    Raises:
        ValueError: If either is not possible.

    >>> View(dim=2, precision="binary")(torch.tensor([[0.5, -0.5, 0.7]]))
    tensor([[ 1., -1.]])
    >>> View(dim=64).name, View(precision="binary").name, View().name
    ('dim64', 'binary', '')
    """

    dim: int | None = None
    precision: Literal["float", "binary"] = "float"

    def __post_init__(self) -> None:
        if self.dim is not None and self.dim < 1:
            raise ValueError(f"Got a view of dim {self.dim}; need at least 1. Leave dim out to keep all coordinates.")
        if self.precision not in ("float", "binary"):
            raise ValueError(f"Got precision {self.precision!r}; need 'float' or 'binary'. Correct the view.")

    @property
    def name(self) -> str:
        """How log keys call this view; empty for the whole embedding."""
        parts = ["" if self.dim is None else f"dim{self.dim}", "" if self.precision == "float" else self.precision]
        return "_".join(filter(None, parts))

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Represent embeddings, shape ``(texts, width)``, in float32: shape ``(texts, dim)``.

        Raises:
            ValueError: If the embeddings have fewer coordinates than the view.
        """
        width = embeddings.shape[-1]
        if self.dim is not None and self.dim > width:
            raise ValueError(
                f"Got embeddings of {width} coordinates for a view of {self.dim}; need at least as many. "
                f"Take {self.dim} out of the dims to evaluate."
            )
        kept = embeddings[..., : self.dim].float()
        if self.precision == "float":
            return F.normalize(kept, dim=-1)
        signs = torch.where(kept >= 0, 1.0, -1.0)
        return torch.where(kept.isfinite(), signs, torch.nan)  # a diverged model must not pass for a binary one
