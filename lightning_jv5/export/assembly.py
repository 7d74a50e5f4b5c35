"""One model folder out of a model and its adapters."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_jv5.data.cache import atomic_folder, write_json
from lightning_jv5.export.machine_paths import forget_machine
from lightning_jv5.export.model_card import read_written, write_model_card
from lightning_jv5.export.output_folder import check_output
from lightning_jv5.export.score_files import SCORE_FILES, SCORES, read_scores
from lightning_jv5.models.backbone import resolve_path
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.model_folder import ADAPTERS, ModelFolder, base_path, read_model_folder
from lightning_jv5.models.rope import rope_theta


@dataclass(frozen=True)
class Assembled:
    """What :func:`assemble` wrote.

    Attributes:
        folder: Where to.
        tasks: Names of its adapters.
    """

    folder: Path
    tasks: list[str]

    def summary(self) -> str:
        """Say in a line or two what was written, and how to use it."""
        example = f"lightning_jv5.Embedder({str(self.folder)!r}).encode(texts, task={self.tasks[0]!r})"
        return f"{self.folder}: a model with adapters for {', '.join(self.tasks)}.\n  In Python: {example}"


def assemble(
    adapters: list[str],
    output: str,
    *,
    base: str | None = None,
    scores: str | None = None,
    license: str | None = None,  # named as the hub's front matter names it
    overwrite: bool = False,
) -> Assembled:
    """Join a model and adapters that were trained on it to one folder: the model's files, and ``adapters/<task>/``.

    Args:
        adapters: Folders that ``export`` wrote of runs with an adapter, of different tasks.
        output: The folder to write.
        base: Folder of the model that they belong to; by default the one that they name.
        scores: What was measured, for the card: the ``scores.json`` of ``validate`` or ``test``, or the folder of their
            run. Scores that adapters were exported with are in the card anyway.
        license: The card's license, as the hub abbreviates it: ``apache-2.0``. Without, the card gives none.
        overwrite: Whether a model that is there may be replaced.

    Returns:
        What was written.

    Raises:
        ValueError: If something is not such a folder or file, a task is there twice, or an adapter belongs to another
            model.
    """
    folder = Path(output)
    check_output(folder, overwrite)
    measured = read_scores(scores)
    described = _described(adapters)
    named = {base_path(path, one) for path, one in zip(adapters, described.values(), strict=True)} - {None}
    bases = {str(one) for one in named} if base is None else {base}
    if len(bases) != 1:
        raise ValueError(
            f"The adapters belong to {' and '.join(sorted(map(repr, bases))) or 'no model that they name'}; need one "
            "model. Give it as base."
        )
    source = Path(resolve_path(bases.pop()))
    if not (source / "config.json").is_file():
        raise ValueError(
            f"Got the model {str(source)!r}, which is no local folder with a config.json. Export it first."
        )
    embedder = Embedder(str(source), pooling=None)
    theta = rope_theta(embedder.backbone)
    for path, (task, one) in zip(adapters, described.items(), strict=True):
        # Refuses one of another model; the model's folder may have one of that name
        embedder.load_adapter(path, f"assembled-{task}")
        if one.inference_theta is not None and one.inference_theta != theta:
            raise ValueError(
                f"{path!r} is to be used with a RoPE theta of {one.inference_theta}, and its model has {theta}. Train "
                "all stages with the same inference_theta."
            )
    with atomic_folder(folder, replace=overwrite) as building:
        beside = shutil.ignore_patterns(ADAPTERS, *SCORE_FILES)  # scores of the model alone
        shutil.copytree(source, building, dirs_exist_ok=True, ignore=beside)
        for path, task in zip(adapters, described, strict=True):
            shutil.copytree(path, building / ADAPTERS / task)
            forget_machine(building / ADAPTERS / task)
        forget_machine(building)
        if measured is not None:
            write_json(building / SCORES, measured)
        name = folder.resolve().name
        write_model_card(building, "assembled", read_written(building), name=name, license=license)
    return Assembled(folder, list(described))


def _described(adapters: list[str]) -> Mapping[str, ModelFolder]:
    if not adapters:
        raise ValueError("Got no adapters to assemble; give at least one folder that export wrote.")
    described: dict[str, ModelFolder] = {}
    for path in adapters:
        one = read_model_folder(path)
        if one is None or one.task is None:
            raise ValueError(
                f"Got the adapter {path!r}, which is no folder that export wrote of a run with an adapter."
            )
        if one.task in described:
            raise ValueError(f"Got two adapters for {one.task!r}; need one for each task.")
        described[one.task] = one
    return described
