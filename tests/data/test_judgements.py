from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from lightning_jv5.data.bad_rows import BadRows
from lightning_jv5.data.identified_rows import BadRecordError
from lightning_jv5.data.judgements import judgement, judgement_schema, place_judgements
from lightning_jv5.data.row_checks import row_number

QUERIES, CORPUS = (Dataset.from_dict({"id": ids}) for ids in (["q2", "q1"], [f"d{row}" for row in range(9)]))


def table(*judged: tuple[str, str]) -> pa.Table:
    rows = [judgement(query, document, 1, line)[1] for line, (query, document) in enumerate(judged, start=2)]
    return pa.Table.from_pylist(rows, judgement_schema())


def test_texts_are_found_by_their_ids_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.data.judgements._IDS_PER_LOOK_UP", 4)
    judged = table(("q1", "d8"), ("q2", "d0"), ("q1", "d3"), ("q1", "d8"))
    placed = place_judgements(judged, QUERIES, CORPUS, BadRows("qrels"))
    assert placed.usable.all()
    assert {role: rows.tolist() for role, rows in placed.rows.items()} == {
        "query": [1, 0, 1, 1],
        "document": [8, 0, 3, 8],
    }


def test_what_is_not_there_is_reported_with_its_place_and_the_nearest_name() -> None:
    judged = table(("q1", "d1"), ("q1", "d11"), ("q3", "d2"), ("q3", "d11"))
    bad = BadRows("qrels", "skip", max_bad_share=1.0)
    placed = place_judgements(judged, QUERIES, CORPUS, bad)
    assert placed.usable.tolist() == [True, False, False, False]
    assert bad.count == 3  # the last is wrong twice, and counts once
    message = r"qrels, row 3 \(the first is 0\): judges document 'd11', which is not in the texts\. .*Did you mean 'd1'"
    with pytest.raises(ValueError, match=message):
        place_judgements(
            judged[:2], QUERIES, CORPUS, BadRows("qrels"), homes=("the queries", "the texts"), place=row_number
        )


@pytest.mark.parametrize("grade", ["0.5", 0.5, None, "high", float("nan"), float("inf"), ""])
def test_a_grade_that_is_no_whole_number_is_refused(grade: Any) -> None:
    with pytest.raises(BadRecordError, match="the score is"):
        judgement("q1", "d1", grade, 2)


@pytest.mark.parametrize("grade", ["-1", -1, -1.0])
def test_whole_grades_of_any_type_are_taken(grade: Any) -> None:
    assert judgement("q1", "d1", grade, 2)[1]["grade"] == -1
