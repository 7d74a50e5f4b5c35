"""What the views of a tiny run score without a Trainer."""

from typing import Any

from lightning_jv5.tasks import View, evaluate
from tests.callbacks.tiny_run import tiny_task


def directly(module: Any, *views: View) -> dict[tuple[str, str], float]:
    scores = evaluate(module.encode, {"small": tiny_task()}, views, progress=False)
    return {(measure, score.view.name): value for score in scores for measure, value in score.values.items()}
