"""The stages of a recipe in their order, each an ordinary ``fit`` and its export; at the end one model, one table."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_jv5 import __version__
from lightning_jv5.config_files import check_keys, find_config
from lightning_jv5.data.cache import atomic_folder, fingerprint, write_json
from lightning_jv5.export import assemble, export
from lightning_jv5.export.machine_paths import forget_machine
from lightning_jv5.export.model_card import read_written, write_model_card
from lightning_jv5.export.output_folder import check_output
from lightning_jv5.export.score_files import RESULTS
from lightning_jv5.models import Embedder
from lightning_jv5.models.model_folder import DESCRIPTION, read_model_folder
from lightning_jv5.rebuildable import Rebuildable
from lightning_jv5.runs import AVERAGED_CHECKPOINT, CHECKPOINTS, next_version
from lightning_jv5.tasks import EvaluationTask, evaluate

_CHECKPOINT_FILES = {"last": "last.ckpt", "best": "best.ckpt", "averaged": AVERAGED_CHECKPOINT}


@dataclass
class Stage(Rebuildable):
    """One stage: a ``fit`` with these configs, and which of its checkpoints is handed over.

    Args:
        config: Names or paths of configs, merged left to right.
        after: Name of the stage whose folder this one starts from: its ``from``.
        settings: Settings that replace those of the configs, as on the command line: ``["trainer.max_steps=100"]``.
        checkpoint: What is exported: ``"last"``, ``"best"`` (by the monitored score), or ``"averaged"``, which
            :class:`~lightning_jv5.callbacks.AdapterAveraging` writes.

    Raises:
        ValueError: If there is no config, a setting is no ``key=value``, or there is no such kind of checkpoint.
    """

    config: str | list[str]
    after: str | None = None
    settings: list[str] = field(default_factory=list)
    checkpoint: Literal["last", "best", "averaged"] = "last"

    def __post_init__(self) -> None:
        if not self.config:
            raise ValueError("Got a stage without a config; name one, such as small.yaml.")
        for setting in self.settings:
            if "=" not in setting or setting.startswith("-"):
                raise ValueError(
                    f"Got the setting {setting!r} of a stage; need key=value, such as trainer.max_steps=9."
                )
        if self.checkpoint not in _CHECKPOINT_FILES:
            raise ValueError(f"Got checkpoint {self.checkpoint!r}; need one of {', '.join(_CHECKPOINT_FILES)}.")

    @property
    def configs(self) -> list[str]:
        """The configs as a list."""
        return [self.config] if isinstance(self.config, str) else list(self.config)

    @property
    def words(self) -> list[str]:
        """The stage as words of the command line."""
        words = [f"--config={find_config(name)}" for name in self.configs]
        return words + [f"--{setting}" for setting in self.settings]


@dataclass(frozen=True)
class Finished:
    """What :func:`recipe` made.

    Attributes:
        folder: The model folder.
        stages: The folder of each stage.
        main_metrics: The measure that stands for each task.
        scores: Measure by stage and task.
    """

    folder: Path
    stages: dict[str, Path]
    main_metrics: dict[str, str]
    scores: dict[str, dict[str, float]]

    def summary(self) -> str:
        """Return the table of stages and tasks, and where the model is."""
        return f"{stages_table(self.scores, self.main_metrics)}\n\nThe model: {self.folder}"


def recipe(
    stages: dict[str, Stage],
    tasks: dict[str, EvaluationTask],
    output: str,
    *,
    name: str = "recipe",
    runs: str = "runs",
    license: str | None = None,  # named as the hub's front matter names it
) -> Finished:
    """Train the stages in order, assemble their adapters to one model, and score every stage on every task.

    A stage that is finished for the same configs, settings and predecessors is skipped; one that was interrupted goes
    on from its last checkpoint. Runs and folders are in ``<runs>/<name>/<stage>-<key>/``, where the key stands for
    what the stage was trained with. Each stage is a process of its own, so several GPUs are ``trainer.devices`` of its
    config.

    Args:
        stages: By name, in their order. One trains the model; the others adapters on it.
        tasks: What every stage is scored on.
        output: The model folder to write; a model that is there is replaced once the new one is complete.
        name: Name of the recipe.
        runs: Folder of all runs.
        license: The card's license, as the hub abbreviates it: ``apache-2.0``. Without, the card gives none.

    Returns:
        The model's folder and the scores.

    Raises:
        ValueError: If stages do not fit together, a stage fails, or leaves no checkpoint of its kind, or the output is
            something that is no model of ours.
    """
    _check_stages(stages)
    folder = Path(output)
    check_output(folder, overwrite=True)
    folders: dict[str, Path] = {}
    for number, (stage_name, stage) in enumerate(stages.items(), start=1):
        key = stage_key(stage, None if stage.after is None else folders[stage.after].parent.name)
        home = Path(runs) / name / f"{stage_name}-{key}"
        folders[stage_name] = home / "model"
        title = f"stage {number} of {len(stages)}: {stage_name}"
        if (folders[stage_name] / DESCRIPTION).is_file():
            print(f"{title} is finished, in {folders[stage_name]}")
            continue
        print(f"{title}, in {home}", flush=True)
        _fit(stage, home, start=None if stage.after is None else folders[stage.after])
        export(str(_checkpoint(stage, stage_name, home)), str(folders[stage_name]))
    adapters = [str(folder) for folder in folders.values() if _kind(folder) == "adapter"]
    if adapters:
        assemble(adapters, output, overwrite=True)
    else:
        with atomic_folder(folder, replace=True) as building:
            shutil.copytree(list(folders.values())[-1], building, dirs_exist_ok=True)
            forget_machine(building)
    scores = _scores(folders, tasks)
    main_metrics = {task: one.main_metric for task, one in tasks.items()}
    write_json(folder / RESULTS, {"main_metrics": main_metrics, "scores": scores})
    layout = "assembled" if adapters else "stage"
    write_model_card(folder, layout, read_written(folder), name=folder.resolve().name, license=license)
    return Finished(folder, folders, main_metrics, scores)


def stage_key(stage: Stage, predecessor: str | None) -> str:
    """Return a short name for all that a stage is trained with: configs without comments, settings, predecessor."""
    import yaml

    contents = []
    for name in stage.configs:
        path = find_config(name)
        check_keys(path)
        contents.append(yaml.safe_load(path.read_text(encoding="utf-8")))
    return fingerprint(__version__, contents, [*stage.settings], stage.checkpoint, predecessor)[:8]


def _check_stages(stages: Mapping[str, Stage]) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "Got several processes, started by torchrun or the like; a recipe starts its stages itself. Run it once, "
            "with trainer.devices in the stages' configs, or run the stages one by one with fit."
        )
    if not stages:
        raise ValueError("Got a recipe without stages; name at least one.")
    seen: list[str] = []
    for name, stage in stages.items():
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"Got a stage named {name!r}; it becomes a folder, so use letters, digits, '_' and '-'.")
        if stage.after is not None and stage.after not in seen:
            raise ValueError(
                f"Got the stage {name!r} after {stage.after!r}; the stages before it are {', '.join(seen) or 'none'}. "
                "Put a stage behind the one that it starts from."
            )
        for config in stage.configs:
            find_config(config)
        seen.append(name)


def _fit(stage: Stage, home: Path, start: Path | None) -> None:
    words = [*stage.words, f"--runs={home.parent}", f"--name={home.name}", "--ckpt_path=last-or-new"]
    words += [] if start is None else [f"--from={start}"]
    with _passing_signals_on(subprocess.Popen([sys.executable, "-m", "lightning_jv5", "fit", *words])) as process:
        status = process.wait()
    if status:
        raise ValueError(
            f"The stage in {home} ended with status {status}; what went wrong is above. Once that is mended, the same "
            "command goes on from its last checkpoint."
        )


@contextmanager
def _passing_signals_on(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """Let a stage end with the recipe: it then saves a checkpoint to go on from.

    Raises:
        SystemExit: If a signal came: a stage may end well all the same, but is not finished.
    """
    ended_by = 0

    def stop(number: int, frame: Any) -> None:
        nonlocal ended_by
        ended_by = number
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.terminate()
            process.wait()
        if ended_by:
            raise SystemExit(128 + ended_by)


def _checkpoint(stage: Stage, name: str, home: Path) -> Path:
    file = _CHECKPOINT_FILES[stage.checkpoint]
    found = home / f"version_{next_version(home) - 1}" / CHECKPOINTS / file
    if not found.is_file():
        raise ValueError(
            f"The stage {name!r} is trained, but there is no {found}. Choose another checkpoint for the stage, or let "
            "its config write this one: 'best' needs something to monitor, 'averaged' the callback AdapterAveraging."
        )
    return found


def _kind(folder: Path) -> str:
    described = read_model_folder(folder)
    return "" if described is None else described.kind


def _scores(folders: Mapping[str, Path], tasks: Mapping[str, EvaluationTask]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for stage, folder in folders.items() if tasks else ():
        found = evaluate(Embedder(str(folder)).encode, tasks, description=stage)
        scores[stage] = {score.task: score.values[tasks[score.task].main_metric] for score in found}
    return scores


def stages_table(scores: Mapping[str, Mapping[str, float]], main_metrics: Mapping[str, str]) -> str:
    """Return scores as an aligned table: a line for each stage, a column for each task; the best of a column starred.

    >>> print(stages_table({"student": {"sts": 0.5}, "sts": {"sts": 0.75}}, {"sts": "spearman"}))
    stage    sts, spearman
    student         0.5000
    sts             0.7500 *
    """
    titles = [f"{task}, {metric}" for task, metric in main_metrics.items()]
    width = max(map(len, ["stage", *scores]))
    lines = ["stage".ljust(width) + "  " + "    ".join(titles)]
    for stage, by_task in scores.items():
        cells = []
        for task, title in zip(main_metrics, titles, strict=True):
            best = by_task[task] == max(other[task] for other in scores.values())
            cells.append(f"{by_task[task]:.4f}".rjust(len(title)) + (" *" if best else "  "))
        lines.append("  ".join([stage.ljust(width), *cells]).rstrip())
    return "\n".join(lines)
