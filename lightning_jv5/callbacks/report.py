"""Where figures, texts and tables of a run go: always files in the run's folder, and TensorBoard where it is used."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_folder(trainer: Trainer) -> Path:
    """Return the folder that the run writes to, whatever its loggers.

    >>> run_folder(Trainer(default_root_dir="runs/small/version_0", logger=False, barebones=True)).name
    'version_0'
    """
    return Path(trainer.default_root_dir)


def log_figure(trainer: Trainer, name: str, figure: "Figure", data: Any) -> None:
    """Keep a figure as PNG, the numbers in it as JSON, and show it in TensorBoard. Rank 0 writes; others may call.

    Args:
        trainer: Says where to and at which step.
        name: Log key, such as ``"val/matryoshka"``; with dots for slashes it names the files in ``figures/``.
        figure: A figure that belongs to no pyplot state.
        data: What is drawn, as plain data.

    Example::

        figure = Figure()
        figure.subplots().plot(losses)
        log_figure(trainer, "train/losses", figure, {"losses": losses})
    """
    if not trainer.is_global_zero:
        return
    path = _path(trainer, "figures", name)
    _write_atomically(path.with_name(f"{path.name}.png"), lambda file: figure.savefig(file, format="png", dpi=150))
    write_json(path.with_name(f"{path.name}.json"), data)
    for logger in _tensorboards(trainer):
        # Closing is pyplot's business, and would make this figure part of its global state
        logger.experiment.add_figure(name, figure, trainer.global_step, close=False)


def log_text(trainer: Trainer, name: str, markdown: str, data: Any) -> None:
    """Keep a text as Markdown, what it tells as JSON, and show it in TensorBoard. Rank 0 writes; others may call.

    Args:
        trainer: Says where to and at which step.
        name: Log key, such as ``"val/retrieval/examples"``; with dots for slashes it names the files in ``texts/``.
        markdown: The text.
        data: What it tells, as plain data.

    Example::

        log_text(trainer, "val/note", "All is **well**.", {"well": True})
    """
    if not trainer.is_global_zero:
        return
    path = _path(trainer, "texts", name)
    _write_atomically(path.with_name(f"{path.name}.md"), lambda file: file.write(f"{markdown}\n".encode()))
    write_json(path.with_name(f"{path.name}.json"), data)
    for logger in _tensorboards(trainer):
        logger.experiment.add_text(name, markdown, trainer.global_step)


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write plain data as JSON; whoever reads sees the old file or the new one, never a part.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "new", "value.json"), {"value": 1})
    ...     Path(folder, "new", "value.json").read_text(encoding="utf-8").split()
    ['{', '"value":', '1', '}']
    """
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    _write_atomically(Path(path), lambda file: file.write(text.encode()))


def _path(trainer: Trainer, kind: str, name: str) -> Path:
    return run_folder(trainer) / kind / f"{name.replace('/', '.')}.step-{trainer.global_step}"


def _tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _write_atomically(path: Path, write: Callable[[Any], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared run from its other readers
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
