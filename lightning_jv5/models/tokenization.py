"""Text to token ids, exactly as one model wants them: prompt, limit and end token."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.data.roles import PROMPT_ROLES, check_role

_PROMPT_ROLE = {"query": "query", "document": "document", "negatives": "document"}
_FINGERPRINT_VERSION = 1  # raise when the same settings would give other token ids


def load_tokenizer(
    path: str,
    *,
    subfolder: str = "",
    revision: str | None = None,
    trust_remote_code: bool = False,
    lowercase: bool = False,
) -> Any:
    """Load a fast tokenizer from a folder or the hub.

    Args:
        path: A folder or a hub id, as :func:`~lightning_jv5.models.backbone.resolve_path` returns it.
        subfolder: Where in it the tokenizer lies.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.
        lowercase: Lower the text first, as the ``do_lower_case`` of a sentence-transformers folder asks.

    Raises:
        ValueError: If there is no tokenizer, or no fast one.
    """
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, subfolder=subfolder, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Cannot load a tokenizer from {path!r}: {error} "
            "Give tokenizer: a folder, hub id or package:// path that holds tokenizer.json."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{path!r} has a {type(tokenizer).__name__}, which is not backed by tokenizer.json; need a fast tokenizer. "
            "Convert it with transformers and save it again."
        )
    if lowercase:
        backend = tokenizer.backend_tokenizer
        steps = [normalizers.Lowercase()] + ([backend.normalizer] if backend.normalizer is not None else [])
        backend.normalizer = normalizers.Sequence(steps)
    return tokenizer


class Tokenization:
    """Turn texts into token ids the way one model was trained on them.

    The end token is whatever the tokenizer's post-processor appends (``[SEP]`` for BERT, ``<|endoftext|>`` for
    Qwen3-Embedding), and is kept when a text is truncated. A text without any token (an empty document) becomes one end
    token, or one padding token, so that it keeps its place.

    Args:
        tokenizer: A fast transformers tokenizer.
        prompts: Text put before the texts of a role: keys ``"query"`` and ``"document"``; a missing one means none.
        max_length: Most tokens of a text, prompt and special tokens included: one number, or one for each role.
        positions: Most tokens that the model has positions for; None where nothing limits them.
        append_end: Whether every sequence must end with the end token (what last-token pooling needs). Where the
            post-processor appends nothing, the tokenizer's eos token is appended, or else its sep token.

    Raises:
        ValueError: If a prompt or limit is for an unknown role, a limit leaves no room for text or is above the
            model's positions, or an end token is needed and there is none.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        prompts: Mapping[str, str],
        max_length: Mapping[str, int] | int,
        append_end: bool,
        positions: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.append_end = append_end
        self.positions = positions
        for role in prompts:
            check_role(role, PROMPT_ROLES, "prompts")
        self.prompts = {role: prompts.get(role, "") for role in PROMPT_ROLES}
        if isinstance(max_length, Mapping):
            for role in max_length:
                check_role(role, PROMPT_ROLES, "max_length")
            missing = [role for role in PROMPT_ROLES if role not in max_length]
            if missing:
                raise ValueError(f"Got max_length {dict(max_length)}; it lacks {', '.join(missing)}. Give both roles.")
            self.max_length = {role: max_length[role] for role in PROMPT_ROLES}
        else:
            self.max_length = dict.fromkeys(PROMPT_ROLES, max_length)

        prefix, suffix = _added_tokens(tokenizer)
        self.appended: list[int] = []  # by us, where the post-processor appends nothing
        if append_end and not suffix:
            end = next((token for token in (tokenizer.eos_token_id, tokenizer.sep_token_id) if token is not None), None)
            if end is None:
                raise ValueError(
                    f"The tokenizer {type(tokenizer).__name__} appends no end token and names no eos or sep token, but "
                    "last-token pooling needs one. Set its eos_token, or use pooling 'mean' or 'cls'."
                )
            self.appended = [int(end)]
        self._before, self._after = len(prefix), len(suffix)
        for role, limit in self.max_length.items():
            self._check_limit(limit, role)
        self.end_token_id: int | None = (suffix + self.appended)[-1] if suffix or self.appended else None

    def __call__(self, texts: Sequence[str], role: str) -> list[list[int]]:
        """Tokenise texts of one role.

        Args:
            texts: The texts, without prompt.
            role: ``"query"``, ``"document"``, or ``"negatives"`` (which are documents).

        Returns:
            Token ids of each text: at least one, at most ``max_length`` of the role.

        Raises:
            ValueError: If the role is unknown, or ``texts`` is one string.
        """
        return self.column(role)(texts).ids

    def column(self, role: str, *, prompt: str | None = None, max_length: int | None = None) -> "ColumnTokenization":
        """Return how the texts of one column are tokenised.

        Args:
            role: ``"query"``, ``"document"``, or ``"negatives"`` (which are documents).
            prompt: Text put before each text, instead of the role's.
            max_length: Most tokens of a text, instead of the role's limit.

        Raises:
            ValueError: If the role is unknown, or the limit leaves no room for text.
        """
        check_role(role, tuple(_PROMPT_ROLE), "role")
        role = _PROMPT_ROLE[role]
        if max_length is not None:
            self._check_limit(max_length, role)
        return ColumnTokenization(
            self,
            self.prompts[role] if prompt is None else prompt,
            self.max_length[role] if max_length is None else max_length,
        )

    def replaced(
        self, *, prompts: Mapping[str, str] | None = None, max_length: Mapping[str, int] | int | None = None
    ) -> "Tokenization":
        """Return the same with other prompts or limits; a role without one keeps its limit."""
        if isinstance(max_length, Mapping):
            max_length = {**self.max_length, **max_length}
        return Tokenization(
            self.tokenizer,
            prompts=self.prompts if prompts is None else prompts,
            max_length=self.max_length if max_length is None else max_length,
            append_end=self.append_end,
            positions=self.positions,
        )

    def _tokenized(self, texts: Sequence[str], prompt: str, max_length: int) -> "TokenizedTexts":
        if isinstance(texts, str):
            raise ValueError(f"Got one string, {texts[:40]!r}; need a list of texts. Put it in a list.")
        if not texts:
            return TokenizedTexts([], [])
        limit = max_length - len(self.appended)
        encoded = self.tokenizer(
            [prompt + text for text in texts],
            add_special_tokens=True,
            truncation=True,
            max_length=limit + 1,  # one more than wanted tells which texts are longer
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        cut = [len(ids) > limit for ids in encoded["input_ids"]]
        last = self._before if self.tokenizer.truncation_side == "left" else limit - self._after
        placeholder = [self.pad_token_id if self.end_token_id is None else self.end_token_id]
        kept = [
            ids[:last] + ids[last + 1 :] if longer else ids
            for ids, longer in zip(encoded["input_ids"], cut, strict=True)
        ]
        return TokenizedTexts([[*ids, *self.appended] or placeholder for ids in kept], cut)

    def _check_limit(self, limit: int, role: str) -> None:
        added = self._before + self._after + len(self.appended)
        if limit <= added:
            raise ValueError(
                f"Got max_length {limit} for {role}; the tokenizer adds {added} tokens itself, so nothing of "
                f"the text would be left. Give at least {added + 1}."
            )
        if self.positions is not None and limit > self.positions:
            raise ValueError(
                f"Got max_length {limit} for {role}, but the model has only {self.positions} positions. "
                f"Give at most {self.positions}."
            )

    def ragged(self, texts: Sequence[str], role: str) -> RaggedTexts:
        """Tokenise texts of one role and lay them end to end."""
        return RaggedTexts.from_lists(self(texts, role))

    @property
    def pad_token_id(self) -> int:
        """What fills padded positions; 0 where the tokenizer has none (padding is masked, so the value is not seen)."""
        token = self.tokenizer.pad_token_id
        return 0 if token is None else int(token)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the token ids, equal in every process: a cache of token ids may be named by it."""
        return _hash([*self._common_settings(), self.prompts, self.max_length])

    @functools.cached_property
    def tokenizer_fingerprint(self) -> str:
        """Hash of what the roles share: all of :attr:`fingerprint` but prompts and limits."""
        return _hash(self._common_settings())

    def _common_settings(self) -> list[Any]:
        return [_FINGERPRINT_VERSION, self._vocabulary, self.tokenizer.truncation_side, self.appended, self.append_end]

    @functools.cached_property
    def _vocabulary(self) -> Any:
        vocabulary = json.loads(self.tokenizer.backend_tokenizer.to_str())
        # What the last call set, not a property of the tokenizer.
        vocabulary.pop("truncation", None)
        vocabulary.pop("padding", None)
        return vocabulary


def _hash(settings: list[Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of texts.

    Attributes:
        ids: At least one token id of each text, and at most the limit.
        cut: Whether the text was longer than the limit.
    """

    ids: list[list[int]]
    cut: list[bool]


class ColumnTokenization:
    """How the texts of one column become token ids: made by :meth:`Tokenization.column`.

    Args:
        tokenization: The model's.
        prompt: Text put before each text.
        max_length: Most tokens of a text, prompt and special tokens included.
    """

    def __init__(self, tokenization: Tokenization, prompt: str, max_length: int) -> None:
        self.tokenization, self.prompt, self.max_length = tokenization, prompt, max_length

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenise texts, given without prompt.

        Raises:
            ValueError: If ``texts`` is one string.
        """
        return self.tokenization._tokenized(texts, self.prompt, self.max_length)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the token ids, equal in every process."""
        return _hash([*self.tokenization._common_settings(), self.prompt, self.max_length])


def _added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the token ids that the post-processor puts before and after a text."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # some tokenizer.json files pad to a fixed length
    backend.no_truncation()
    some_word = next(iter(backend.get_vocab()), "")
    for probe in ("a", "the", "1", some_word):
        bare = backend.encode(probe, add_special_tokens=False).ids
        whole = backend.encode(probe, add_special_tokens=True).ids
        for start in range(len(whole) - len(bare) + 1 if bare else 0):
            if whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
    raise ValueError(
        f"The tokenizer {type(tokenizer).__name__} gives no tokens for any text that was tried. "
        "Is its tokenizer.json the one that belongs to the model?"
    )
