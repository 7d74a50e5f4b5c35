import json
import math

from lightning_jv5.tasks import Score, View, evaluate, scores_table, share_of_full
from tests.tasks.labelled_texts import DIM, encode_words, one_of_each


def score(task: str, view: View, value: float, width: int | None = 1024) -> Score:
    return Score(task, view, {"other": 0.25, "main": value}, complete=True, main_metric="main", width=width)


def test_views_are_in_order_of_what_they_cost_and_none_comes_twice() -> None:
    views = [View(64, "binary"), View(), View(1024), View(64), View(precision="binary"), View(128, "int8")]
    scores = [score("a-task", view, 0.8 / place) for place, view in enumerate(views, 1)]
    assert scores_table(scores).splitlines() == [
        "task    measure   score  others",
        "a-task  main     0.4000  other 0.2500",
        "",
        "a-task: main",
        " dim  precision  bytes   score  of full",
        "1024  float       4096  0.4000   100.0%",
        "  64  float        256  0.2000    50.0%",
        " 128  int8         128  0.1333    33.3%",
        "1024  binary       128  0.1600    40.0%",
        "  64  binary         8  0.8000   200.0%",
    ]


def test_what_is_not_known_is_a_dash() -> None:
    scores = [score("first", View(8), 0.5, None), score("first", View(precision="binary"), 0.4, None)]
    table = scores_table([*scores, Score("second", View(), {"only": -0.5}, complete=True)]).splitlines()
    assert table[1:3] == ["first   main      0.5000  other 0.2500", "second  only     -0.5000"]
    assert table[-2:] == ["    8  float         32  0.5000        -", "whole  binary         -  0.4000        -"]


def test_without_scores_there_is_no_table() -> None:
    assert scores_table([]) == ""


def test_a_share_is_that_of_the_same_task_and_of_something_positive() -> None:
    scores = [score("a", View(), 0.5), score("b", View(), 0.0), score("b", View(8), 0.25), score("a", View(8), 0.25)]
    assert [share_of_full(one, scores) for one in scores] == [1.0, None, None, 0.5]


def test_the_scores_of_every_kind_of_task_are_plain_data_and_a_table() -> None:
    tasks = one_of_each()
    scores = evaluate(encode_words, tasks, [View(), View(4), View(precision="binary")], progress=False)
    plain = json.loads(json.dumps([one.to_plain() for one in scores], allow_nan=False))
    for one, row in zip(scores, plain, strict=True):
        assert (row["task"], row["main_metric"]) == (one.task, tasks[one.task].main_metric)
        assert row["values"] == one.values
        assert (row["dim"], row["bytes_per_vector"]) == {
            "": (DIM, 4 * DIM),
            "dim4": (4, 16),
            "binary": (DIM, 2),
        }[one.view.name]
    table = scores_table(scores)
    assert all(f"\n{name}: {task.main_metric}\n" in table for name, task in tasks.items())


def test_json_has_no_nan() -> None:
    plain = Score("cut", View(), {"main": math.nan, "other": 1.0}, complete=False).to_plain()
    assert plain["values"] == {"main": None, "other": 1.0}
    assert (plain["dim"], plain["bytes_per_vector"], plain["complete"]) == (None, None, False)
