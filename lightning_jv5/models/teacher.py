"""The frozen model whose embeddings the student learns to give."""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.data.roles import PROMPT_ROLES, check_role
from lightning_jv5.models.backbone import resolve_path
from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.settings import EncoderSettings, check_arguments, read_settings
from lightning_jv5.models.text_encoder import TextEncoder
from lightning_jv5.models.tokenization import Tokenization
from lightning_jv5.rebuildable import Plain, Rebuildable

_FINGERPRINT_VERSION = 1  # raise when the same settings would give other vectors
_LOADING = threading.RLock()  # not an attribute: a lock cannot be copied or pickled with its module
_HASH_BLOCK = 1 << 20


class Teacher(Rebuildable, nn.Module):
    r"""A frozen text encoder with its own tokenizer and prompts.

    Paths and arguments are checked at once (a local model's whole settings, a hub model's without network), but the
    weights are read on first use, because loading a student's checkpoint must not load its 4-billion-weight teacher.
    Always in evaluation mode, never trained, and computed in its own ``dtype`` whatever the autocast around it, so that
    vectors depend on nothing but these arguments.

    Args:
        path: A folder, a hub id, or ``package://name/sub/path`` inside an installed package.
        config: Instead of ``path``: a transformers config with ``model_type``, for random weights, the
            same every time (for tests).
        tokenizer: Path of another tokenizer than the model's own; needed with ``config``.
        pooling: ``"last"``, ``"mean"`` or ``"cls"``; by default that of a sentence-transformers folder.
        prompts: Text put before each text, by role: ``"query"``, ``"document"``.
        instruction: What the query asks for, in Qwen3-Embedding's frame: queries start with
            ``Instruct: {instruction}\nQuery:``, documents with nothing. Instead of ``prompts``.
        max_length: Most tokens of a text, for all roles or by role.
        dtype: Dtype of the weights.
        attention: transformers' attention implementation, or ``"packed"``: texts lie end to end and nothing is padded;
            made for GPUs in half precision; on a CPU hardly faster or slower than padded chunks of similar length.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.
        max_tokens_per_chunk: Most padded tokens of one forward pass.

    Raises:
        ValueError: If a setting is wrong, missing, or does not fit the model.

    Attributes:
        reads_student_tokens: Whether it embeds the tokens of the student rather than some of its own.
    """

    reads_student_tokens = False

    def bind(self, student: nn.Module) -> None:
        """Meet the student, once: a model of its own has no need to."""

    def __init__(
        self,
        path: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        pooling: PoolingName | None = None,
        prompts: dict[str, str] | None = None,
        instruction: str | None = None,
        max_length: int | dict[str, int] | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        attention: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_tokens_per_chunk: int = 16384,
    ) -> None:
        super().__init__()
        if instruction is not None:
            if prompts is not None:
                raise ValueError("Got prompts and instruction; need at most one. instruction is the query's prompt.")
            prompts = {"query": f"Instruct: {instruction}\nQuery:"}
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"Got dtype {dtype!r}; need float32 or bfloat16.")
        if max_tokens_per_chunk < 1:
            raise ValueError(f"Got max_tokens_per_chunk {max_tokens_per_chunk}; need at least 1.")
        check_arguments(path, config, tokenizer, pooling, prompts)
        self.dtype = dtype
        self.attention = attention
        self.max_tokens_per_chunk = max_tokens_per_chunk
        self._settings_arguments: dict[str, Any] = {
            "path": None if path is None else resolve_path(path),
            "config": config,
            "tokenizer": None if tokenizer is None else resolve_path(tokenizer),
            "pooling": pooling,
            "prompts": prompts,
            "max_length": max_length,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
        }
        self._settings: EncoderSettings | None = None
        self._embedder: TextEncoder | None = None
        self._fingerprint: str | None = None
        self._weights: list[str] | None = None
        # moves with .to(), so it remembers the device until there are weights to move
        self.register_buffer("_device_marker", torch.empty(0), persistent=False)
        super().train(False)
        named = [self._settings_arguments[name] for name in ("path", "tokenizer")]
        if all(name is None or Path(name).is_dir() for name in named):
            _ = self.settings

    @property
    def settings(self) -> EncoderSettings:
        """Everything but the weights, read on first use."""
        with _LOADING:
            if self._settings is None:
                self._settings = read_settings(**self._settings_arguments)
            return self._settings

    @property
    def embedder(self) -> TextEncoder:
        """The frozen encoder, loaded on first use."""
        with _LOADING:
            if self._embedder is None:
                # The first use may be in the middle of a step or of a validation: draw none of the student's random
                # numbers, and make no inference tensors.
                with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                    torch.default_generator.manual_seed(0)
                    self._embedder = self._load()
            return self._embedder

    def _load(self) -> TextEncoder:
        settings = self.settings
        embedder = TextEncoder(
            settings.load_backbone(dtype=self.dtype, attention=self.attention, trainable=False),
            settings.tokenization,
            settings.pooling,
            dense=settings.load_dense(),
            dim=settings.dim,
            normalize=True,
            max_tokens_per_chunk=self.max_tokens_per_chunk,
            recompute=False,
            always_mask=settings.trust_remote_code,
        )
        marker: Any = self._device_marker
        return embedder.requires_grad_(False).eval().to(marker.device)

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._embedder is not None

    @property
    def tokenization(self) -> Tokenization:
        """Text to the teacher's token ids; needs no weights."""
        return self.settings.tokenization

    @property
    def dim(self) -> int:
        """Dimension of an embedding; needs no weights."""
        return self.settings.dim

    def train(self, mode: bool = True) -> "Teacher":
        """Do nothing: a teacher is always in evaluation mode."""
        return self

    def forward(self, texts: RaggedTexts) -> Tensor:
        """Embed texts without gradients, on the device of ``texts``.

        Args:
            texts: Token ids from this teacher's :attr:`tokenization`.

        Returns:
            Unit-length embeddings, float32, shape ``(texts, dim)``: a normal tensor, which autograd may save.
        """
        device = texts.token_ids.device
        embedder = self.embedder
        marker: Any = self._device_marker
        if marker.device != device:
            self.to(device)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            embeddings: Tensor = embedder(texts)
        return embeddings.clone()

    def encode(
        self, texts: Sequence[str], role: str = "document", *, truncate_dim: int | None = None, progress: bool = False
    ) -> Tensor:
        """Embed strings: as :meth:`TextEncoder.encode`."""
        embedder = self.embedder
        marker: Any = self._device_marker
        with torch.autocast(marker.device.type, enabled=False):
            return embedder.encode(texts, role, truncate_dim=truncate_dim, progress=progress)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the vectors, to name precomputed ones by: equal on every machine.

        Over the weights (the content of local files; the commit of a hub model), tokenization (prompts and limits
        included), pooling and dtype. Reads every weight of a local model once.
        """
        with _LOADING:
            if self._fingerprint is None:
                settings = self.settings
                facts = [
                    _FINGERPRINT_VERSION,
                    self.weights_identity,
                    settings.tokenization.fingerprint,
                    settings.pooling,
                    self.dtype,
                ]
                self._fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
            return self._fingerprint

    @property
    def weights_identity(self) -> list[str]:
        """Which weights these are: hashes of a local model's files, or hub id, subfolder and commit.

        The first hash of a local model is that of ``config.json``, those of the ``*.safetensors`` follow in the order
        of their names, as ``sha256sum`` prints them.
        """
        with _LOADING:
            if self._weights is None:
                self._weights = self._identify_weights(self.settings)
            return self._weights

    def facts(self, role: str) -> dict[str, Plain]:
        """Return what decides the vectors of one role, by name: :attr:`fingerprint` without the other role's part.

        Reads every weight of a local model once.

        Args:
            role: ``"query"`` or ``"document"``.

        Raises:
            ValueError: If the role is unknown.
        """
        check_role(role, PROMPT_ROLES, "role")
        tokenization = self.tokenization
        return {
            "weights": list(self.weights_identity),
            "tokenizer": tokenization.tokenizer_fingerprint,
            "prompt": tokenization.prompts[role],
            "max_length": tokenization.max_length[role],
            "pooling": self.settings.pooling,
            "dtype": self.dtype,
            "full_dim": self.dim,
        }

    def _identify_weights(self, settings: EncoderSettings) -> list[str]:
        if not isinstance(settings.source, str):
            state = self.embedder.state_dict()
            return [_hash_tensors(state)]
        dense = [_hash_file(Path(layer.weights)) for layer in settings.dense]
        activations = [f"{layer.activation} {layer.bias}" for layer in settings.dense]
        folder = Path(settings.source) / settings.subfolder
        if folder.is_dir():
            files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
            return [*(_hash_file(file) for file in files), *dense, *activations]
        return [settings.source, settings.subfolder, _hub_commit(settings), *dense, *activations]


def _hub_commit(settings: EncoderSettings) -> str:
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    file = cached_file(str(settings.source), "config.json", subfolder=settings.subfolder, revision=settings.revision)
    commit = extract_commit_hash(file, None)
    if commit is None:
        raise ValueError(
            f"Cannot tell which commit of {settings.source!r} is in use, so its vectors cannot be named. "
            "Download it and give the folder as path."
        )
    return str(commit)


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
