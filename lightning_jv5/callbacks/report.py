"""Where figures, texts and tables of a run go: always files in the run's folder, and TensorBoard where it is used."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_jv5.data.cache import atomic_file, write_json

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
    with atomic_file(path.with_name(f"{path.name}.png")) as file:
        figure.savefig(file, format="png", dpi=150)
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
    with atomic_file(path.with_name(f"{path.name}.md")) as file:
        file.write_text(f"{markdown}\n", encoding="utf-8")
    write_json(path.with_name(f"{path.name}.json"), data)
    for logger in _tensorboards(trainer):
        logger.experiment.add_text(name, markdown, trainer.global_step)


def _path(trainer: Trainer, kind: str, name: str) -> Path:
    return run_folder(trainer) / kind / f"{name.replace('/', '.')}.step-{trainer.global_step}"


def _tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
