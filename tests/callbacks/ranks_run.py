"""Run every callback on some ranks: ``python -m tests.callbacks.ranks_run FOLDER RANKS``; Lightning starts the rest."""

import json
import sys
from pathlib import Path

from lightning_jv5.callbacks import (
    BinaryQuantization,
    EmbeddingProjector,
    EmbeddingWriter,
    IsotropyEvaluation,
    MatryoshkaEvaluation,
    RankedExamples,
    TeacherStudentTable,
    Throughput,
)
from lightning_jv5.process_group import leave_process_group
from tests.callbacks.tiny_run import tiny_datamodule, tiny_module, tiny_task, tiny_trainer
from tests.tasks.labelled_texts import one_of_each


def main(folder: Path, ranks: int) -> None:
    callbacks = [
        MatryoshkaEvaluation([8, 16]),
        BinaryQuantization(),
        RankedExamples(),
        IsotropyEvaluation(),
        EmbeddingProjector("small"),
        EmbeddingProjector("topics", max_texts=9),
        Throughput(window=1),
        TeacherStudentTable([16, 32]),
        EmbeddingWriter(str(folder / "corpus"), rows_per_file=4),
    ]
    settings = {"devices": ranks, "strategy": "ddp" if ranks > 1 else "auto"}
    trainer = tiny_trainer(folder, callbacks, **settings)
    module = tiny_module(folder / f"models-{trainer.global_rank}")
    # Three rows at a time: with two ranks, the first has two batches of documents and the second has one
    datamodule = tiny_datamodule(evaluation_batch_size=3, val={"small": tiny_task(), **one_of_each()})
    trainer.validate(module, datamodule=datamodule, verbose=False)
    measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.fit(module, datamodule=datamodule)
    rates = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    trainer.predict(module, datamodule=datamodule)
    (folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps({"val": measured, "train": rates}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    leave_process_group()
