from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp
from tqdm.auto import tqdm

from lightning_jv5.tasks import EmbeddedTexts, Evaluation, ReadyRetrieval, RetrievalData, Score, View, evaluate

LETTERS = "abcdefgh"
VIEWS = (View(), View(dim=4), View(precision="binary"), View(dim=4, precision="asymmetric"), View(4, "int8"))


def encode_letters(texts: Sequence[str], role: str) -> Tensor:
    """Sum the letters' random vectors, weighted by place: unequal texts do not tie, so rounding cannot swap them."""
    letters = torch.randn(len(LETTERS), 8, generator=torch.Generator().manual_seed(0))
    return torch.stack(
        [sum(letters[LETTERS.index(letter)] / place for place, letter in enumerate(text, 1)) for text in texts]
    )


def task(seed: int, queries: int = 6, documents: int = 23) -> ReadyRetrieval:
    generator = torch.Generator().manual_seed(seed)

    def text() -> str:
        length = int(torch.randint(6, 14, (), generator=generator))
        return "".join(LETTERS[place] for place in torch.randint(0, 8, (length,), generator=generator).tolist())

    return ReadyRetrieval(
        RetrievalData(
            [f"q{row}" for row in range(queries)],
            [text() for _ in range(queries)],
            [f"d{row}" for row in range(documents)],
            [text() for _ in range(documents)],
            {f"q{row}": {f"d{row}": 1, f"d{row + 7}": 2} for row in range(queries)},
        )
    )


def tasks() -> dict[str, ReadyRetrieval]:
    return {"first": task(0), "second": task(1, documents=15)}


def test_every_view_of_one_pass_scores_as_a_pass_of_its_own() -> None:
    scores = evaluate(encode_letters, tasks(), VIEWS, progress=False, batch_texts=4)
    assert [(score.task, score.view) for score in scores] == [
        (name, view) for name in ("first", "second") for view in VIEWS
    ]
    assert all(score.complete for score in scores)
    assert len({score.values["ndcg@10"] for score in scores}) > 4
    for score in scores:
        alone = ReadyRetrieval(tasks()[score.task]._ready)
        alone.prepare()
        metric = alone.metric(score.view)
        for part in alone.parts():
            metric.update(part.role, encode_letters(part.texts, part.role), torch.arange(len(part.texts)))
        assert score.values == {name: value.item() for name, value in metric.compute().items()}


def test_texts_are_encoded_queries_first_longest_first_and_once() -> None:
    calls: list[tuple[str, list[str]]] = []

    def encode(texts: Sequence[str], role: str) -> Tensor:
        calls.append((role, list(texts)))
        return encode_letters(texts, role)

    evaluate(encode, {"first": task(0)}, VIEWS, progress=False, batch_texts=10)
    assert [(role, len(texts)) for role, texts in calls] == [
        ("query", 6),
        ("document", 10),
        ("document", 10),
        ("document", 3),
    ]
    lengths = [len(text) for role, texts in calls if role == "document" for text in texts]
    assert lengths == sorted(lengths, reverse=True)


def test_progress_counts_all_texts(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(encode_letters, tasks(), description="checking", batch_texts=4)
    bar = capfd.readouterr().err
    assert "checking" in bar
    assert "50/50" in bar


@pytest.mark.parametrize("progress", [True, False])
def test_scoring_that_takes_long_shows_a_bar_if_asked(
    progress: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "lightning_jv5.tasks.evaluation.tqdm", lambda *args, **settings: tqdm(*args, **settings | {"delay": 0})
    )
    first = task(0)
    first.prepare()
    assert len(Evaluation({"first": first}, VIEWS).compute(progress=progress)) == len(VIEWS)
    assert ("Scoring" in capfd.readouterr().err) == progress


def test_embeddings_in_half_precision_and_with_gradients_are_taken() -> None:
    def encode(texts: Sequence[str], role: str) -> Tensor:
        return encode_letters(texts, role).bfloat16().requires_grad_()

    [score] = evaluate(encode, {"first": task(0)}, progress=False)
    assert score.complete


def test_arrays_are_taken_as_tensors_are() -> None:
    expected = evaluate(encode_letters, {"first": task(0)}, progress=False)
    assert (
        evaluate(lambda texts, role: encode_letters(texts, role).numpy(), {"first": task(0)}, progress=False)
        == expected
    )


def test_documents_may_lie_in_a_column_on_disk() -> None:
    data = task(0)._ready
    column = Dataset.from_dict({"text": data.documents})["text"]
    on_disk = RetrievalData(data.query_ids, data.queries, data.document_ids, column, data.judgements)
    expected = evaluate(encode_letters, {"first": task(0)}, VIEWS, progress=False)
    assert (
        evaluate(encode_letters, {"first": ReadyRetrieval(on_disk)}, VIEWS, progress=False, batch_texts=5) == expected
    )


def test_scores_know_their_main_measure_and_the_width() -> None:
    whole, half = evaluate(encode_letters, {"first": task(0)}, [View(), View(4, "int8")], progress=False)
    assert (whole.main, whole.width, whole.dim, whole.bytes_per_vector) == ("ndcg@10", 8, 8, 32)
    assert (half.main, half.width, half.dim, half.bytes_per_vector) == ("ndcg@10", 8, 4, 4)


def test_a_pass_that_was_cut_short_says_so() -> None:
    first = task(0)
    first.prepare()
    evaluation = Evaluation({"first": first}, [View()])
    queries, documents = first.parts()
    evaluation.update(EmbeddedTexts(encode_letters(queries.texts, "query"), torch.arange(6), "first", "query"))
    rows = torch.arange(20)
    evaluation.update(EmbeddedTexts(encode_letters(documents.texts[:20], "document"), rows, "first", "document"))
    [score] = evaluation.compute()
    assert isinstance(score, Score)
    assert not score.complete
    evaluation.reset()
    evaluation.update(EmbeddedTexts(encode_letters(queries.texts, "query"), torch.arange(6), "first", "query"))
    assert evaluation.metric("first", View()).query_seen.all()


def _evaluate_on_a_rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        encoded: list[str] = []

        def encode(texts: Sequence[str], role: str) -> Tensor:
            encoded.extend(texts if role == "document" else [])
            return encode_letters(texts, role)

        scores = evaluate(encode, tasks(), VIEWS, progress=False, batch_texts=5)
        torch.save(([(score.values, score.complete) for score in scores], len(encoded)), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_ranks_share_the_documents_and_score_as_one(tmp_path: Path) -> None:
    mp.spawn(_evaluate_on_a_rank, args=(2, str(tmp_path)), nprocs=2)
    alone = [(score.values, score.complete) for score in evaluate(encode_letters, tasks(), VIEWS, progress=False)]
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [scores for scores, _ in shares] == [alone, alone]
    assert sorted(encoded for _, encoded in shares) == [11 + 7, 12 + 8]


def test_what_does_not_fit_is_refused() -> None:
    first = task(0)
    first.prepare()
    with pytest.raises(ValueError, match=r"Got tasks \[\] and views"):
        Evaluation({}, [View()])
    with pytest.raises(ValueError, match="no view twice"):
        Evaluation({"first": first}, [View(dim=4), View(dim=4)])
    evaluation = Evaluation({"first": first}, [View()])
    with pytest.raises(ValueError, match=r"Got embeddings of the task 'other'; need one of \['first'\]"):
        evaluation.update(EmbeddedTexts(torch.ones(1, 2), torch.tensor([0]), "other", "query"))
    with pytest.raises(ValueError, match=r"Got task 'first' and view .*dim=4.*; this evaluation scores first whole\."):
        evaluation.metric("first", View(dim=4))
    with pytest.raises(ValueError, match="embeddings of 8 coordinates for a view of 9"):
        evaluate(encode_letters, {"first": first}, [View(dim=9)], progress=False)
    with pytest.raises(ValueError, match=r"Got embeddings \(1, 8\) for 6 texts"):
        evaluate(lambda texts, role: torch.ones(1, 8), {"first": first}, progress=False)
    with pytest.raises(ValueError, match="Got batch_texts=0"):
        evaluate(encode_letters, {"first": first}, progress=False, batch_texts=0)
    with pytest.raises(ValueError, match="NaN or infinite embeddings of 6 texts"):
        evaluate(lambda texts, role: torch.full((6, 8), torch.nan), {"first": first}, [View(precision="binary")])


def test_a_task_has_no_score_of_a_precision_that_says_nothing_of_it() -> None:
    class WithoutInt8(ReadyRetrieval):
        precisions = ("float", "binary")

    first = WithoutInt8(task(0)._ready)
    scores = evaluate(encode_letters, {"first": first, "second": task(1)}, [View(), View(4, "int8")], progress=False)
    assert [(score.task, score.view.name) for score in scores] == [
        ("first", ""),
        ("second", ""),
        ("second", "dim4_int8"),
    ]


def test_a_task_that_no_view_says_something_of_is_refused_before_it_is_encoded() -> None:
    class FloatsAlone(ReadyRetrieval):
        precisions = ("float",)

    tasks = {"first": FloatsAlone(task(0)._ready)}
    with pytest.raises(ValueError, match="Got views of the precisions int8, binary for the task 'first', which is s"):
        evaluate(encode_letters, tasks, [View(4, "int8"), View(precision="int8"), View(precision="binary")])


def test_scores_come_in_the_order_in_which_views_are_asked_for() -> None:
    first = task(0)
    first.prepare()
    evaluation = Evaluation({"first": first}, VIEWS)
    wanted = [VIEWS[3], VIEWS[0], VIEWS[1]]
    assert [score.view for score in evaluation.compute(wanted)] == wanted
