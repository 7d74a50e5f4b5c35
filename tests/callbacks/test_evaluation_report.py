import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytrec_eval
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_jv5 import EmbeddingModule, __version__
from lightning_jv5.callbacks import BinaryQuantization, EvaluationReport, MatryoshkaEvaluation, RankedExamples
from lightning_jv5.callbacks.evaluation_report import write_run_file
from lightning_jv5.tasks import (
    BeirRetrieval,
    EvaluationTask,
    ReadyRetrieval,
    RerankingTask,
    RetrievalData,
    RetrievalTask,
    View,
    evaluate,
)
from tests.callbacks.tiny_run import STUDENT_DIM, tiny_datamodule, tiny_module, tiny_trainer
from tests.process_runs import evaluation_run, finished, in_process, ranks_environment
from tests.tasks.labelled_texts import Rows, one_of_each
from tests.tiny_beir import write_beir
from tests.tiny_data import tiny_texts


def graded() -> ReadyRetrieval:
    """Grades, an unjudged query and a document without text, under ids that sort otherwise than rows do."""
    texts = tiny_texts(43, seed=5)  # none alike: equal texts in different batches differ in their last bits
    documents = [*texts[:33], ""]
    ids = [f"d{7 * row % 34}" for row in range(33)] + ["é1"]
    judgements = {
        f"q{query}": {ids[(5 * query + step) % 34]: grade for step, grade in enumerate((2, 0, 1, -1, 3))}
        for query in range(9)
    }
    return ReadyRetrieval(RetrievalData([f"q{row}" for row in range(10)], texts[33:], ids, documents, judgements))


def tasks() -> dict[str, EvaluationTask]:
    return {"beir": graded(), "sts": one_of_each()["sts"]}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class Logs(Callback):
    """A measure of the user's own."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/own", 0.125)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_the_table_and_the_file_have_what_evaluate_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    module = EmbeddingModule(tiny_module(tmp_path, teacher=False).student)
    callbacks = [EvaluationReport(), MatryoshkaEvaluation(), BinaryQuantization([8]), RankedExamples()]
    trainer = tiny_trainer(tmp_path, callbacks)
    data = tiny_datamodule(**{"val" if stage == "validate" else "test": tasks()})
    getattr(trainer, stage)(module, data, verbose=False)
    views = [View(), View(2), View(4), View(8), View(16), View(8, "binary")]
    expected = evaluate(module.encode, tasks(), views, progress=False)
    report = read(tmp_path / "scores.json")
    assert (report["lightning_jv5"], report["stage"]) == (__version__, stage)
    assert report["tasks"] == {
        "beir": {"main_metric": "ndcg@10", "texts": {"query": 10, "document": 34}},
        "sts": {"main_metric": "spearman", "texts": {"document": 35}},
    }
    found = {(row["task"], row["dim"], row["precision"]): row for row in report["scores"]}
    assert len(found) == len(report["scores"]) == len(expected)
    for score in expected:
        row = found[score.task, score.dim, score.view.precision]
        assert row["values"] == pytest.approx(score.values, abs=1e-6)
        assert row["bytes_per_vector"] == score.view.bytes_per_vector(STUDENT_DIM)
        full = found[score.task, STUDENT_DIM, "float"]["values"][score.main]
        share = score.values[score.main] / full if full > 0 else None  # of a negative correlation there is none
        assert row["share_of_full"] == (share if share is None else pytest.approx(share, abs=1e-5))
    prefix = {"validate": "val", "test": "test"}[stage]
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert report["logged"] == logged
    assert f"{prefix}/sts/pearson/dim4" in logged
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'student'}, {STUDENT_DIM} coordinates" in printed
    best = next(score for score in expected if score.task == "beir")
    assert re.search(rf"^beir +ndcg@10 +{best.values['ndcg@10']:.4f}  recall@10 ", printed, re.MULTILINE)
    assert "\nsts: spearman\n" in printed
    assert f"Every measure of every view: {tmp_path / 'scores.json'}" in printed


def test_the_model_is_told_by_its_weights(tmp_path: Path) -> None:
    found = []
    for change in (0.0, 0.0, 0.5):
        module = EmbeddingModule(tiny_module(tmp_path, teacher=False).student)
        with torch.no_grad():
            next(module.student.backbone.parameters()).add_(change)
        file = str(tmp_path / "elsewhere" / "found.json")
        trainer = tiny_trainer(tmp_path, [EvaluationReport(json_file=file)])
        trainer.validate(module, tiny_datamodule(), verbose=False)
        found.append(read(Path(file))["model"])
    assert not (tmp_path / "scores.json").exists()
    assert found[0] == found[1] != found[2]
    assert found[0].keys() == {"path", "task", "dim", "fingerprint", "adapter_fingerprint", "checkpoint"}
    assert (found[0]["path"], found[0]["dim"], found[0]["task"]) == (str(tmp_path / "student"), STUDENT_DIM, None)


def test_what_the_users_code_logs_is_printed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tiny_trainer(tmp_path, [Logs(), EvaluationReport()])
    trainer.validate(tiny_module(tmp_path, teacher=False), tiny_datamodule(), verbose=False)
    assert "\nval/own  0.1250\n" in capsys.readouterr().out
    assert read(tmp_path / "scores.json")["logged"]["val/own"] == 0.125


def test_fit_reports_nothing_and_a_pass_that_is_cut_short_has_no_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [EvaluationReport(run_files=True)], limit_test_batches=1)
    trainer.fit(module, tiny_datamodule())
    assert "Nothing was scored" not in capsys.readouterr().out
    trainer.test(module, tiny_datamodule(), verbose=False)
    assert "Nothing was scored: fast_dev_run or a limit on batches" in capsys.readouterr().out
    trainer.validate(module, tiny_datamodule(), verbose=False)
    assert "mrr@10" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} >= {"scores.json", "small.trec"}


# Run files


def read_run(file: Path) -> dict[str, list[tuple[str, int, float]]]:
    run: dict[str, list[tuple[str, int, float]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        query, q0, document, rank, score, tag = line.split(" ")
        assert (q0, tag) == ("Q0", "lightning_jv5")
        run.setdefault(query, []).append((document, int(rank), float(score)))
    return run


def assert_trec_eval_agrees(file: Path, task: RetrievalTask, values: dict[str, float]) -> None:
    """Check that sorting by score and id, as trec_eval does, is the order of the ranks, and that the measures agree."""
    run = read_run(file)
    assert run.keys() == set(task.data.query_ids)
    for lines in run.values():
        assert [rank for _, rank, _ in lines] == list(range(1, len(lines) + 1))
        assert sorted(lines, key=lambda line: (line[2], line[0]), reverse=True) == lines
    judged = {query: dict(grades) for query, grades in task.data.judgements.items()}
    known = (
        ("ndcg@10", "ndcg_cut_10", 100),
        ("recall@10", "recall_10", 100),
        ("recall@100", "recall_100", 100),
        ("map@100", "map_cut_100", 100),
        ("map@1000", "map_cut_1000", 1000),
        ("mrr@10", "recip_rank", 10),  # trec_eval has no cut-off: that is the measure of a shorter run
    )
    assert len([one for one in known if one[0] in values]) >= 3
    for measure, theirs, depth in known:
        if measure not in values:
            continue
        scored = {query: {name: score for name, _, score in lines[:depth]} for query, lines in run.items()}
        found = pytrec_eval.RelevanceEvaluator(judged, {theirs}).evaluate(scored)
        assert found.keys() == judged.keys()
        mean = sum(one[theirs] for one in found.values()) / len(found)
        assert values[measure] == pytest.approx(mean, abs=1e-6)


def test_trec_eval_finds_in_the_run_file_what_was_scored(tmp_path: Path) -> None:
    task = graded()
    trainer = tiny_trainer(tmp_path, [EvaluationReport(run_files=True)])
    trainer.validate(tiny_module(tmp_path, teacher=False), tiny_datamodule(val={"beir": task}), verbose=False)
    [row] = read(tmp_path / "scores.json")["scores"]
    assert_trec_eval_agrees(tmp_path / "beir.trec", task, row["values"])


@pytest.mark.parametrize("kind", ["beir", "reranking"])
def test_trec_eval_agrees_on_beir_folders_and_on_candidates(tmp_path: Path, kind: str) -> None:
    texts = tiny_texts(40, seed=8)
    if kind == "beir":
        corpus = [{"_id": f"{7 * row % 25}", "title": "", "text": text} for row, text in enumerate(texts[:25])]
        queries = [{"_id": f"{row}", "text": text} for row, text in enumerate(texts[25:])]  # some ids are a document's
        judged = [(f"{row}", f"{(row + step) % 25}", step - 1) for row in range(14) for step in range(1, 5)]
        folder = write_beir(tmp_path / "beir", corpus, queries, judged, split="test")
        task: RetrievalTask = BeirRetrieval(folder)
    else:
        columns: dict[str, list[Any]] = {
            "query": texts[:8],
            "positive": [texts[8 + row : 10 + row] for row in range(8)],
            "negative": [texts[20 + row : 30 + row] for row in range(8)],
        }
        task = RerankingTask(Rows(columns))
    trainer = tiny_trainer(tmp_path, [EvaluationReport(run_files=True)])
    trainer.validate(tiny_module(tmp_path, teacher=False), tiny_datamodule(val={kind: task}), verbose=False)
    [row] = read(tmp_path / "scores.json")["scores"]
    assert_trec_eval_agrees(tmp_path / f"{kind}.trec", task, row["values"])
    lengths = {len(lines) for lines in read_run(tmp_path / f"{kind}.trec").values()}
    assert lengths == ({24} if kind == "beir" else {12})  # without the document of the query's own id


@pytest.mark.parametrize("seed", range(5))
def test_documents_that_tie_stand_in_the_run_file_as_trec_eval_orders_them(tmp_path: Path, seed: int) -> None:
    task, generator = graded(), torch.Generator().manual_seed(seed)
    task.prepare()
    metric = task.metric()
    for part in task.parts():  # small whole numbers, whose products are exact and often alike
        rows = torch.arange(len(part.texts))
        metric.update(part.role, torch.randint(-1, 2, (len(rows), 3), generator=generator).float(), rows)
    write_run_file(tiny_trainer(tmp_path, []), tmp_path / "ties.trec", task, metric)
    [lines, *_] = read_run(tmp_path / "ties.trec").values()
    assert len({score for _, _, score in lines}) < len(lines) == 34
    values = {name: value.item() for name, value in metric.compute().items()}
    assert_trec_eval_agrees(tmp_path / "ties.trec", task, values)


def test_scores_keep_every_bit(tmp_path: Path) -> None:
    scores = torch.tensor([1 + 2**-23, 1.0, 1 - 2**-24, 1e-30, -(1 + 2**-23)])
    data = RetrievalData(["q"], ["?"], list("abcde"), list("abcde"), {"q": {"a": 1}})
    task = ReadyRetrieval(data)
    task.prepare()
    metric = task.metric()
    metric.update("query", torch.ones(1, 1), torch.tensor([0]))
    metric.update("document", scores[:, None], torch.arange(5))
    write_run_file(tiny_trainer(tmp_path, []), tmp_path / "bits.trec", task, metric)
    [lines] = read_run(tmp_path / "bits.trec").values()
    assert torch.equal(torch.tensor([score for _, _, score in lines]), scores)


@pytest.mark.parametrize("bad", ["a b", "", "tab\t", "wide\u3000"])
def test_ids_that_a_run_file_cannot_have_are_refused_before_encoding(tmp_path: Path, bad: str) -> None:
    task = ReadyRetrieval(RetrievalData(["q"], ["who runs"], ["d1", bad], ["a cat", "a dog"], {"q": {"d1": 1}}))
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [EvaluationReport(run_files=True)])
    with pytest.raises(ValueError, match="Got run_files for the task 'bad', which has the document id") as error:
        trainer.validate(module, tiny_datamodule(val={"bad": task}), verbose=False)
    assert repr(bad) in str(error.value)
    trainer = tiny_trainer(tmp_path, [EvaluationReport()])
    trainer.validate(module, tiny_datamodule(val={"bad": task}), verbose=False)


# Batches and ranks


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    evaluation_run(folder, tasks, 64)
    return folder


def assert_same_report(folder: Path, expected: Path) -> None:
    for one, other in zip(
        read(folder / "scores.json")["scores"], read(expected / "scores.json")["scores"], strict=True
    ):
        assert one.pop("values") == pytest.approx(other.pop("values"), abs=1e-6)
        assert one.pop("share_of_full") == pytest.approx(other.pop("share_of_full"), abs=1e-6)
        assert one == other
    for name in ("stage", "tasks", "model"):
        assert read(folder / "scores.json")[name] == read(expected / "scores.json")[name]
    ours, theirs = (read_run(path / "beir.trec") for path in (folder, expected))
    assert ours.keys() == theirs.keys()
    for query, lines in ours.items():
        assert [line[:2] for line in lines] == [line[:2] for line in theirs[query]]
        assert [line[2] for line in lines] == pytest.approx([line[2] for line in theirs[query]], abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_batch_size_reports_the_same(alone: Path, tmp_path: Path, batch_size: int) -> None:
    evaluation_run(tmp_path, tasks, batch_size)
    assert_same_report(tmp_path, alone)


def test_two_ranks_report_what_one_does_and_the_first_alone_prints(alone: Path, tmp_path: Path) -> None:
    environment = ranks_environment(2)
    processes = [
        in_process(evaluation_run, tmp_path, tasks, 3, environment={**environment, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert finished(processes) == [0, 0]
    assert_same_report(tmp_path, alone)
    first, second = (read(tmp_path / f"logged{rank}.json") for rank in (0, 1))
    assert first == second == pytest.approx(read(alone / "logged0.json"), abs=1e-6)
    assert "val/sts/spearman/binary" in first
    assert "beir: ndcg@10" in (tmp_path / "printed0.txt").read_text()
    assert (tmp_path / "printed1.txt").read_text() == ""
