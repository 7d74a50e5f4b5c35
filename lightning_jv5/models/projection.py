"""The linear map between the student's and the teacher's space, usable at every Matryoshka dimension."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_jv5.models.model_folder import PROJECTION
from lightning_jv5.rebuildable import Rebuildable


class Projection(Rebuildable, nn.Module):
    """``W z + b`` from the student's space to the teacher's: eq. 1 of https://arxiv.org/abs/2602.15547.

    An embedding truncated to ``k`` dimensions meets the first ``k`` columns of the same ``W`` and the same ``b``, so
    one projection serves every Matryoshka dimension. ``W`` starts as the identity where it is square, else with
    orthonormal rows or columns; ``b`` starts at zero. With ``path`` both start as an earlier stage left them.

    Args:
        input_dim: Dimension of the whole student embedding; known where there is a ``path``.
        output_dim: Dimension of the teacher embedding; known where there is a ``path``.
        path: A folder that ``export`` wrote, with the projection of the stage before.
        trainable: Whether ``W`` and ``b`` are trained; ``False`` freezes them where they start.

    Raises:
        ValueError: If a dimension is not positive, missing, or not that of the file, or there is no such file.

    >>> Projection(3, 3)(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2., 0.]], grad_fn=<AddmmBackward0>)
    """

    def __init__(
        self,
        input_dim: int | None = None,
        output_dim: int | None = None,
        *,
        path: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        if path is not None:
            weight, bias = read_projection(path)
            found = {"output_dim": (output_dim, len(weight)), "input_dim": (input_dim, weight.shape[1])}
            for name, (wanted, is_there) in found.items():
                if wanted not in (None, is_there):
                    raise ValueError(
                        f"Got {name} {wanted} and the projection of {path!r}, which has {is_there}; leave {name} out, "
                        "or give no path to start a new projection."
                    )
        else:
            if input_dim is None or output_dim is None or input_dim < 1 or output_dim < 1:
                raise ValueError(
                    f"Got input_dim {input_dim}, output_dim {output_dim}; both must be at least 1. Only with path may "
                    "they be left out."
                )
            weight, bias = torch.empty(output_dim, input_dim), torch.zeros(output_dim)
            if input_dim == output_dim:
                nn.init.eye_(weight)
            else:
                nn.init.orthogonal_(weight)
        self.output_dim, self.input_dim = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=trainable)
        self.bias = nn.Parameter(bias, requires_grad=trainable)

    def forward(self, z: Tensor) -> Tensor:
        """Project embeddings, whole or truncated.

        Args:
            z: Embeddings, shape ``(..., k)`` with ``k <= input_dim``.

        Returns:
            Projected embeddings, shape ``(..., output_dim)``; not normalised.

        Raises:
            ValueError: If ``z`` is wider than ``input_dim``.
        """
        width = z.shape[-1]
        if width > self.input_dim:
            raise ValueError(
                f"Got embeddings of dimension {width}; this projection takes at most {self.input_dim}. "
                "Build Projection(input_dim=...) with the student's full dimension."
            )
        return F.linear(z, self.weight[:, :width], self.bias)


def read_projection(path: str) -> tuple[Tensor, Tensor]:
    """Read ``W`` and ``b`` from a folder that ``export`` wrote, in float32.

    Raises:
        ValueError: If there is none.
    """
    from safetensors.torch import load_file

    file = Path(path) / PROJECTION
    if not file.is_file():
        raise ValueError(
            f"Got the path {path!r} for a projection, where there is no {PROJECTION}. Give a folder that export wrote "
            "from a run with a projection, or input_dim and output_dim instead, to start a new one."
        )
    tensors = load_file(str(file))
    return tensors["weight"].float(), tensors["bias"].float()
