"""Uploading a model folder to the hub, and what may go there: https://huggingface.co/docs/hub/models-uploading."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lightning_jv5.export.card_name import renamed
from lightning_jv5.export.machine_paths import names_machine_path
from lightning_jv5.export.onnx import FLOAT
from lightning_jv5.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lightning_jv5.models.model_folder import CARD
from lightning_jv5.models.sentence_transformers_folder import read_sentence_transformers_folder

_PICKLES = ("*.ckpt", "*.pt", "*.pth", "*.bin", "*.pkl", "*.pickle", "*.joblib")  # they can run any code
_STATES = ("optimizer*", "scheduler*", "rng_state*", "trainer_state.json")
_LOGS = ("*.log", "events.out.tfevents*")
_TRAINING = (*_PICKLES, *_STATES, *_LOGS)
_VOCABULARY = "tokenizer.json"  # its strings are tokens, some of which look like paths
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Pushed:
    """What :func:`push` uploaded, or would.

    Attributes:
        repo: Owner and name on the hub.
        files: Sizes in bytes by path.
        url: Of the commit; None after a dry run.
    """

    repo: str
    files: dict[str, int]
    url: str | None = None

    def summary(self) -> str:
        """Say in a few lines what went where."""
        width = max(map(len, self.files))
        files = [f"  {name:<{width}}  {size / 1e6:10.3f} MB" for name, size in self.files.items()]
        total = f"{len(self.files)} files, {sum(self.files.values()) / 1e6:.3f} MB"
        first = f"{self.repo}: {total} would be uploaded" if self.url is None else f"{self.url}: {total}"
        return "\n".join([first, *files])


def push(folder: str, repo: str, *, private: bool = False, message: str | None = None, dry_run: bool = False) -> Pushed:
    """Upload a model folder with its card to the hub, as one commit; the repository is made if it is not there.

    What goes there is the folder as it is, but that the card calls the model by the repository's name, and its programs
    load it by that (:func:`~lightning_jv5.export.card_name.renamed`). Hidden files stay here, and files that the
    repository has already and the folder has not stay there. The token is the one of ``hf auth login`` or of the
    variable ``HF_TOKEN``.

    Args:
        folder: A folder with a model, an adapter or an ONNX graph, and a ``README.md``.
        repo: Owner and name, such as ``my-team/my-embedder``.
        private: Whether a repository that is made here can be seen by its owner only; otherwise its owner's default
            holds.
        message: Of the commit.
        dry_run: Only check the folder, and list what would be uploaded; needs no token and no network.

    Returns:
        What was uploaded.

    Raises:
        ValueError: If the folder has no model or no card, holds what is for training only or a path of this machine, or
            the hub refuses or cannot be reached.
    """
    if not _REPO.fullmatch(repo):
        raise ValueError(f"Got repo {repo!r}; need owner/name, such as my-team/my-embedder.")
    files = files_to_push(folder)
    card = renamed(Path(folder, CARD).read_text(encoding="utf-8"), repo).encode()
    files[CARD] = len(card)
    if dry_run:
        return Pushed(repo, files)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # of its HTTP client

    if get_token() is None:
        raise ValueError(
            "There is no token for the hub on this machine. Make one that may write at "
            "https://huggingface.co/settings/tokens, and run: hf auth login (or set HF_TOKEN)."
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=True if private else None, repo_type="model", exist_ok=True)
        commit: Any = api.create_commit(
            repo_id=repo,
            operations=[CommitOperationAdd(path, card if path == CARD else Path(folder, path)) for path in files],
            repo_type="model",
            commit_message=message or f"Upload {Path(folder).resolve().name} with lightning_jv5",
        )
    except HfHubHTTPError as error:
        raise ValueError(
            f"The hub refuses the upload to {repo!r}: {error} Does the token have the right to write there?"
        ) from error
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"Cannot reach the hub to upload to {repo!r}: {error} Check the network, and that HF_HUB_OFFLINE is not "
            "set; then run the command again."
        ) from error
    return Pushed(repo, files, str(commit.commit_url))


def files_to_push(folder: str) -> dict[str, int]:
    """Check that a folder is fit to be uploaded, and return the sizes in bytes of its files by path.

    Raises:
        ValueError: If it has no model or no card, or holds what is for training only or a path of this machine.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"Got folder {folder!r}, but there is no such folder. Give one with a model.")
    if not _has_model(root):
        raise ValueError(
            f"Got folder {folder!r}, which has neither a model (config.json, *.safetensors), nor an adapter "
            f"({ADAPTER_CONFIG}, {ADAPTER_WEIGHTS}), nor a graph ({FLOAT}, tokenizer.json). Give one that export, "
            "assemble, convert or onnx wrote."
        )
    card = root / CARD
    if not card.is_file() or not card.read_text(encoding="utf-8").strip():
        raise ValueError(
            f"Got folder {folder!r}, which has no model card. Write {CARD} in it: what the model is for, what it was "
            "trained on, how to use it. Or assemble or convert an adapter: that writes one."
        )
    files = {
        path.relative_to(root): path.stat().st_size
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
    if unfit := [str(path) for path in files if _for_training_only(path)]:
        raise ValueError(
            f"Got folder {folder!r} with {', '.join(unfit[:5])}: checkpoints, optimizer states, logs and pickles are "
            "for training only, and are not uploaded. Push a folder that export, assemble, convert or onnx wrote."
        )
    for path in files:
        if path.suffix in {".json", ".yaml", ".yml"} and path.name != _VOCABULARY:
            for key, value in _strings(_read(root / path)):
                if names_machine_path(value):
                    raise ValueError(
                        f"{str(root / path)!r} names a path of this machine, which nobody else has: {key} is "
                        f"{value!r:.200}. Put a hub id or a path inside the folder there, or take it out."
                    )
    return {path.as_posix(): size for path, size in files.items()}


def _for_training_only(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in _TRAINING)


def _has_model(root: Path) -> bool:
    if all((root / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)):
        return True
    if all((root / name).is_file() for name in (FLOAT, "tokenizer.json")):
        return True
    layout = read_sentence_transformers_folder(str(root), revision=None)
    model = root / (layout.subfolder if layout is not None else "")
    return (model / "config.json").is_file() and any(model.glob("*.safetensors"))


def _read(file: Path) -> Any:
    import yaml

    text = file.read_text(encoding="utf-8")
    try:
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read {str(file)!r}: {error}. Write it again.") from error


def _strings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every string of plain data with its dotted key."""
    if isinstance(content, str):
        yield key, content
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, part in parts:
        yield from _strings(part, f"{key}.{name}" if key else str(name))
