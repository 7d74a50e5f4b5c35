"""LightningCLI with our module and data module as defaults, a run folder, and errors of one line."""

import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_jv5.callbacks import EvaluationReport
from lightning_jv5.cli import fail
from lightning_jv5.cli_errors import OneLineErrors, innermost
from lightning_jv5.data.cache import atomic_file
from lightning_jv5.datamodule import EmbeddingDataModule
from lightning_jv5.models import resolve_path
from lightning_jv5.module import EmbeddingModule
from lightning_jv5.process_group import leave_process_group
from lightning_jv5.runs import CHECKPOINTS, Run, choose_run

RUN_PLACEHOLDER = "{run}"
FROM_PLACEHOLDER = "{from}"


def run(command: str, arguments: Sequence[str], configs: Sequence[Path]) -> None:
    """Parse, build and run one command.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: The words after it, config names resolved to files.
        configs: Those files, for messages.

    Raises:
        SystemExit: With status 2 after a message of one line if the config is wrong; with 143 where the run was ended
            by SIGTERM.
    """
    _quiet_other_people()
    cli = EmbeddingCLI.__new__(EmbeddingCLI)
    try:
        cli.__init__(command, arguments, configs)  # type: ignore[misc]
    except SIGTERMException:  # which would end with status 0, as if the run were finished
        raise SystemExit(128 + signal.SIGTERM) from None
    except Exception as error:
        cause = innermost(error)
        if not _is_for_the_user(cause, cli):
            raise
        fail(str(cause))
    del cli
    leave_process_group()


def _is_for_the_user(error: BaseException, cli: "EmbeddingCLI") -> bool:
    """Return whether an error says all there is to say: raised about a setting, before any training was done."""
    if not isinstance(error, ValueError | FileNotFoundError):
        return type(error).__name__ == "MisconfigurationException"
    trainer: Trainer | None = getattr(cli, "trainer", None)
    if trainer is None:
        return True  # a constructor refused its arguments
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    trained = trainer.fit_loop.epoch_loop.batch_progress.total.ready > 0
    return not trained and Path(__file__).parent in Path(raised_in).parents


class OneLineParser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser with errors of one line."""


class EmbeddingCLI(LightningCLI):
    """The Lightning commands over :class:`EmbeddingModule` and :class:`EmbeddingDataModule` or subclasses of them.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``; only its parser is built.
        arguments: The words after the command.
        configs: Config files among them.
    """

    def __init__(self, command: str, arguments: Sequence[str], configs: Sequence[Path]) -> None:
        self.command = command
        self.configs = list(configs)
        self.arguments = list(arguments)
        parser_class = type("Parser", (OneLineParser,), {"configs": self.configs, "words": self.arguments})
        super().__init__(
            EmbeddingModule,
            EmbeddingDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # checkpoints say themselves how to build the module
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"use_distributed_sampler": False},  # batches are divided among ranks by the data module
            seed_everything_default=0,
            parser_class=parser_class,
            parser_kwargs={
                "prog": "lightning_jv5",
                "allow_abbrev": False,  # --trainer.num_node is a slip
                command: {"prog": f"lightning_jv5 {command}"},
            },
            args=[command, *self.arguments],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one command that was asked for: building the parsers of all four costs seconds."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name and folder, and the default classes."""
        parser.set_defaults(
            {
                "model": {"class_path": "lightning_jv5.EmbeddingModule"},
                "data": {"class_path": "lightning_jv5.EmbeddingDataModule"},
            }
        )
        parser.add_argument(
            "--name", type=str | None, default=None, help="Name of the run; by default that of the first config."
        )
        parser.add_argument(
            "--from",
            type=str | None,
            default=None,
            help="Folder that export wrote from the stage before; stands for {from} in other settings.",
        )
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs: <runs>/<name>/version_N.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; unlike Lightning's, without a warning that ``args`` were given."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Let the config say what the model is, not the checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and fill in the settings that depend on it."""
        config = self.config[self.command]
        name = config.name or (self.configs[0].stem if self.configs else "default")
        self.run: Run = choose_run(Path(config.runs), name, config.get("ckpt_path"))
        config.name = name
        self.save_config_kwargs["unfilled"] = config.clone()
        _fill_in(config, RUN_PLACEHOLDER, str(self.run.folder))
        _fill_in_start(config)
        config.trainer.default_root_dir = str(self.run.folder)
        if "ckpt_path" in config:
            config.ckpt_path = None if self.run.checkpoint is None else str(self.run.checkpoint)
        if "weights_only" in config and config.weights_only is None:
            config.weights_only = True

        if "verbose" in config:
            config.verbose = False  # Lightning prints the scores of a task once for each of its loaders

    def after_fit(self) -> None:
        """Say where everything is."""
        if self.trainer.is_global_zero and not self.config[self.command].trainer.fast_dev_run:
            print(f"This run: {self.run.folder}    To look at it: tensorboard --logdir {self.run.folder.parent}")

    def instantiate_trainer(self, **settings: Any) -> Trainer:
        """Add what a run keeps unless told otherwise: TensorBoard events, the best and the last checkpoint, scores."""
        config = self.config_init[self.command].trainer
        if config.logger in (None, True):
            settings["logger"] = self._tensorboard()
        callbacks = config.callbacks or []
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        keeps_checkpoints = (
            self.command == "fit" and config.enable_checkpointing is not False and not config.fast_dev_run
        )
        if keeps_checkpoints and not any(isinstance(callback, Checkpoint) for callback in callbacks):
            callbacks += best_and_last(self.datamodule)
        if self.command in {"validate", "test"} and not any(isinstance(one, EvaluationReport) for one in callbacks):
            callbacks.append(EvaluationReport())
        if config.enable_progress_bar is not False and not any(isinstance(bar, ProgressBar) for bar in callbacks):
            # As the bars of data preparation and the teacher; a rich one would redraw itself below the final table
            callbacks.append(TQDMProgressBar())
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run.folder / CHECKPOINTS)
        settings["callbacks"] = callbacks
        return super().instantiate_trainer(**settings)

    def _tensorboard(self) -> TensorBoardLogger:
        purge_step = None
        if self.run.resumed and self.run.checkpoint is not None:
            # What an interrupted run logged beyond its last checkpoint is logged again: hide the first version
            checkpoint = torch.load(self.run.checkpoint, map_location="cpu", weights_only=True, mmap=True)
            purge_step = int(checkpoint["global_step"])
        return TensorBoardLogger(
            str(self.run.folder), name="", version="", default_hp_metric=False, purge_step=purge_step
        )


def best_and_last(datamodule: EmbeddingDataModule) -> list[Callback]:
    """Return the checkpoints of a run that configures none: the best by the first task's main metric, and the last."""
    monitors = [f"val/{name}/{task.main_metric}" for name, task in datamodule.val.items()]
    best = [
        ModelCheckpoint(filename="best", monitor=monitor, mode="max", enable_version_counter=False)
        for monitor in monitors[:1]
    ]
    # Not save_last=True of the other: that copies a file whenever one is saved, which is when the score got better
    last = ModelCheckpoint(filename="last", save_on_exception=True, enable_version_counter=False)
    return [*best, last]


class SaveRunConfig(SaveConfigCallback):
    """Write the resolved config into the run folder; that of an interrupted run is kept beside it if it differs.

    Args:
        unfilled: The config as it was before the run's own folder was filled in, so that it can start other runs.
        settings: As for Lightning's callback.
    """

    def __init__(self, *settings: Any, unfilled: Any, **more_settings: Any) -> None:
        super().__init__(*settings, **more_settings)
        self.unfilled = unfilled

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml``; on rank 0 only."""
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ("config.yaml" if stage == "fit" else f"config.{TrainerFn(stage).value}.yaml")
        text = self.parser.dump(self.unfilled, skip_unset=False)
        if file.exists() and file.read_text() != text:
            earlier = len(list(folder.glob(f"{file.stem}.[0-9]*.yaml")))
            file.rename(folder / f"{file.stem}.{earlier}.yaml")
        with atomic_file(file) as temporary:
            temporary.write_text(text)


def _fill_in(node: Any, placeholder: str, value: str) -> None:
    """Replace a placeholder in every string of a config, in place."""
    items = (
        vars(node).items() if hasattr(node, "__dict__") else node.items() if isinstance(node, dict) else enumerate(node)
    )
    for key, item in list(items):
        filled = item.replace(placeholder, value) if isinstance(item, str) else item
        if filled is not item:
            if hasattr(node, "__dict__"):
                setattr(node, key, filled)
            else:
                node[key] = filled
        elif isinstance(item, dict | list) or hasattr(item, "__dict__"):
            _fill_in(item, placeholder, value)


def _fill_in_start(config: Any) -> None:
    """Fill in the folder that the run starts from, absolutely: its checkpoints will name it.

    Raises:
        ValueError: If there is no such folder, or settings need one and there is none.
    """
    start = config["from"]
    if start is not None:
        found = Path(resolve_path(start))
        _fill_in(config, FROM_PLACEHOLDER, str(found.absolute()) if found.is_dir() else start)
    elif FROM_PLACEHOLDER in str(config):
        raise ValueError(
            f"Got settings with {FROM_PLACEHOLDER} and nothing to start from. Give the folder of the stage before, "
            "which `python -m lightning_jv5 export` wrote: --from=DIR, or `from: DIR` in a config."
        )


def _quiet_other_people() -> None:
    """Silence advertisements and other libraries' deprecations, which our users can do nothing about."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the rows are tokenised already
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
