"""Which adapters belong to a model's path, and what each of them wants: prompts and limits."""

import json
from pathlib import Path

from lightning_jv5.models.backbone import resolve_path
from lightning_jv5.models.lora import ADAPTER_CONFIG, check_adapter_name
from lightning_jv5.models.model_folder import ADAPTERS, ModelFolder, adapters_in, base_path, read_model_folder


class AdapterFolders:
    """The adapters of a model, by name, none of them loaded.

    Args:
        path: A model's path: a folder that may have adapters under ``adapters/``, the folder of an adapter alone, a
            hub id, or None.
        revision: Branch, tag or commit on the hub.

    Attributes:
        model: Path of the model itself: for an adapter alone that of the model that it belongs to.
        own_task: Name of the adapter, where the path is that of an adapter alone.

    Raises:
        ValueError: If the model that an adapter belongs to is not known or not there.
    """

    def __init__(self, path: str | None, *, revision: str | None = None) -> None:
        self.model, self.own_task = path, None
        self._folders: dict[str, Path] = {}
        self._descriptions: dict[str, ModelFolder | None] = {}
        self._on_hub: tuple[str, str | None] | None = None
        if path is None:
            return
        folder = Path(resolve_path(path))
        if not folder.is_dir():
            self._on_hub = path, revision
        elif (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
            self.own_task = self.add(str(folder))
            self.model = self._model_of(folder, self.own_task)
        else:
            self._folders = adapters_in(folder)

    @property
    def folders(self) -> dict[str, Path]:
        """Where each adapter lies; those of a hub id are fetched when they are first asked for.

        Raises:
            ValueError: If they can be neither fetched nor found in the hub's cache.
        """
        if self._on_hub is not None:
            fetched = adapters_in(_fetched_adapters(*self._on_hub))
            self._folders, self._on_hub = fetched, None
        return self._folders

    def add(self, folder: str, name: str | None = None) -> str:
        """Add the folder of an adapter; returns its name, by default that of its task.

        Raises:
            ValueError: If it is no such folder, or there is an adapter of that name.
        """
        path = Path(folder)
        if not (path / ADAPTER_CONFIG).is_file():
            raise ValueError(f"Got the adapter folder {folder!r}, which has no {ADAPTER_CONFIG}. Give an exported one.")
        described = read_model_folder(path)
        name = name or (described.task if described is not None else None) or path.name
        check_adapter_name(name)
        if name in self.folders:
            raise ValueError(
                f"Got a second adapter named {name!r}, from {folder!r}; the first is from {str(self.folders[name])!r}. "
                "Give it another name."
            )
        self.folders[name] = path
        return name

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        del self.folders[name]
        self._descriptions.pop(name, None)

    def folder(self, task: str) -> Path:
        """Return where an adapter lies.

        Raises:
            ValueError: If there is none of that name.
        """
        if task not in self.folders:
            raise ValueError(
                f"Got task {task!r}; {self.model!r} has adapters for {', '.join(self.folders) or 'none'}. "
                "Use one of these names, or load_adapter first."
            )
        return self.folders[task]

    def prompts(self, task: str | None) -> dict[str, str] | None:
        """Return an adapter's prompts, or None where it does not say."""
        described = self._description(task)
        return None if described is None else described.prompts

    def max_length(self, task: str | None) -> dict[str, int] | None:
        """Return an adapter's limits, or None where it does not say."""
        described = self._description(task)
        return None if described is None else described.max_length

    def base_fingerprint(self, task: str) -> str | None:
        """Return what tells the weights that an adapter was trained on, or None where it does not say."""
        described = self._description(task)
        return None if described is None else described.base_fingerprint

    def inference_theta(self, task: str | None) -> float | None:
        """Return the RoPE theta that an adapter is to infer with, or None where it does not say."""
        described = self._description(task)
        return None if described is None else described.inference_theta

    def _description(self, task: str | None) -> ModelFolder | None:
        if task is None:
            return None
        if task not in self._descriptions:
            self._descriptions[task] = read_model_folder(self.folder(task))
        return self._descriptions[task]

    def _model_of(self, folder: Path, task: str) -> str:
        described = self._description(task)
        base = base_path(folder, described) if described is not None else None
        if base is None:  # PEFT's own file may say
            settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            base = settings.get("base_model_name_or_path")
        if not base:
            raise ValueError(
                f"{str(folder)!r} holds an adapter and does not say of which model. Give the model's path, and call "
                f"load_adapter({str(folder)!r})."
            )
        try:
            return resolve_path(base)
        except ValueError as error:
            raise ValueError(f"{str(folder)!r} holds an adapter of a model that is not there: {error}") from error


def _fetched_adapters(path: str, revision: str | None) -> Path:
    """Fetch the adapters of a model of the hub; returns the folder that has them under ``adapters/``."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP client

    # With a file that every model has, as it warns where nothing fits
    wanted = ["config.json", f"{ADAPTERS}/*"]
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=wanted))
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"Cannot fetch the adapters of {path!r} from the hub: {error} Check the network and the name, or give a "
            "local folder."
        ) from error
