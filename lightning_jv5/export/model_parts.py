"""What a model folder of ours is made of, whichever of them it is: of a stage, of an adapter, or assembled."""

from dataclasses import dataclass, replace
from pathlib import Path

from lightning_jv5.data.roles import PROMPT_ROLES
from lightning_jv5.export.machine_paths import without_machine_paths
from lightning_jv5.models.adapter_folders import AdapterFolders
from lightning_jv5.models.backbone import resolve_path
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.lora import ADAPTER_CONFIG
from lightning_jv5.models.model_folder import ModelFolder, read_model_folder
from lightning_jv5.models.rope import rope_theta


@dataclass(frozen=True)
class ModelParts:
    """A model and its adapters, none of them loaded.

    Attributes:
        folder: The folder that was given.
        adapters: Its adapters by task, and where the model without them lies.
    """

    folder: Path
    adapters: AdapterFolders

    @property
    def tasks(self) -> list[str]:
        """Names of the adapters."""
        return list(self.adapters.folders)

    @property
    def model(self) -> Path:
        """The folder of the model without adapters."""
        return Path(str(self.adapters.model))

    def embedder(self, task: str | None = None) -> Embedder:
        """Load the model alone, or one that computes with the adapter of a task."""
        return Embedder(str(self.model if task is None else self.folder), task=task)

    def description(self, embedder: Embedder, task: str | None = None) -> ModelFolder:
        """Describe the model or one of its adapters.

        Args:
            embedder: Made by :meth:`embedder`; answers what the folder leaves open.
            task: Whose adapter; None for the model alone.
        """
        tokenization, prompts = embedder.tokenization, self.adapters.prompts(task)
        theta = rope_theta(embedder.backbone)
        found = read_model_folder(self.model if task is None else self.adapters.folder(task))
        described = found or ModelFolder("model", {}, {}, embedder.dim, theta=theta)
        return replace(
            described,
            prompts=tokenization.prompts if prompts is None else {role: prompts.get(role, "") for role in PROMPT_ROLES},
            max_length={**tokenization.max_length, **(self.adapters.max_length(task) or {})},
            inference_theta=self.adapters.inference_theta(task) or theta,
            trained=without_machine_paths(described.trained),
        )


def read_model_parts(path: str) -> ModelParts:
    """Find out what a folder has.

    Raises:
        ValueError: If it is no folder, has neither a model nor an adapter, or an adapter's model is not there.
    """
    folder = Path(resolve_path(path))
    if not folder.is_dir():
        raise ValueError(f"Got the model {path!r}, which is no local folder. Give one that export or assemble wrote.")
    if not (folder / "config.json").is_file() and not (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(
            f"Got the model {path!r}, a folder with neither config.json nor {ADAPTER_CONFIG}. Give one that export or "
            "assemble wrote."
        )
    return ModelParts(folder, AdapterFolders(str(folder)))
