"""Whether the training data of a checkpoint are those of this run."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class ResumableData(Protocol):
    """A data module whose place a checkpoint keeps, whatever the data module's name."""

    def training_state(self, trained_batches: int) -> dict[str, Any]:
        """Return plain data that :meth:`resume_training` takes."""

    def resume_training(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken; refuse one of other data."""


def check_same_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume on other data.

    Args:
        saved: A description of the training data, as plain data, from the checkpoint.
        now: That of this run.

    Raises:
        ValueError: If they differ; names what does.

    >>> check_same_data({"seed": 0, "sets": {"a": {"rows": 5}}}, {"seed": 0, "sets": {"a": {"rows": 5}}})
    """
    found = [
        *_differing({**saved, "sets": None}, {**now, "sets": None}, ""),
        *(f"the data set {name!r} is new" for name in now["sets"] if name not in saved["sets"]),
        *(f"the data set {name!r} is not there any more" for name in saved["sets"] if name not in now["sets"]),
    ]
    for name in saved["sets"].keys() & now["sets"].keys():
        found += _differing(saved["sets"][name], now["sets"][name], f" of the data set {name!r}")
    if found:
        raise ValueError(
            f"The checkpoint was trained on other data: {'; '.join(sorted(found))}. Set the data as they were to "
            "continue the run, or start a new one from its weights: EmbeddingModule.load_from_checkpoint."
        )


def _differing(saved: dict[str, Any], now: dict[str, Any], of: str) -> list[str]:
    names = dict.fromkeys([*saved, *now])
    return [
        f"{name}{of} was {saved.get(name)!r} and is {now.get(name)!r}"
        for name in names
        if saved.get(name) != now.get(name)
    ]
