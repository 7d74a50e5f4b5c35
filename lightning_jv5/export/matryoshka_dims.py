"""Which dims a model was trained to be cut to, by what its folder says of its training."""

from typing import Any


def matryoshka_dims(trained: Any) -> set[int]:
    """Find the dims of every :class:`~lightning_jv5.losses.Matryoshka` in plain data that describes a training.

    >>> loss = {"class_path": "lightning_jv5.losses.Matryoshka", "init_args": {"dims": [8, 16]}}
    >>> sorted(matryoshka_dims({"steps": 3, "objective": {"terms": [loss]}}))
    [8, 16]
    """
    if isinstance(trained, list):
        return {dim for part in trained for dim in matryoshka_dims(part)}
    if not isinstance(trained, dict):
        return set()
    is_matryoshka = str(trained.get("class_path", "")).rpartition(".")[2] == "Matryoshka"
    own = (trained.get("init_args") or {}).get("dims") if is_matryoshka else None
    return {*(own or []), *(dim for part in trained.values() for dim in matryoshka_dims(part))}
