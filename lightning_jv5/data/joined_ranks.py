"""The processes that a launcher started for one job, without a Trainer."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch.distributed as dist

_Made = TypeVar("_Made")
# Ranks wait for the slowest: how long that takes says nothing about whether it is alive
_PATIENCE = timedelta(days=365)


@dataclass(frozen=True)
class Ranks:
    """This process among those of its job.

    Attributes:
        rank: Which one this is, from 0.
        size: How many there are.
        local_rank: Which one this is on its machine.
        group: Their process group; None for a single process.

    >>> Ranks().from_first(lambda: 42)
    42
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = None

    def from_first(self, make: Callable[[], _Made]) -> _Made:
        """Make something on rank 0 and give it to all; all get here together.

        Raises:
            ValueError: On every rank, if making it raised one.
        """
        if self.group is None:
            return make()
        made: list[Any] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except ValueError as error:
                made[1] = str(error)
        self._together(lambda: dist.broadcast_object_list(made, src=0, group=self.group))
        if made[1] is not None:
            raise ValueError(made[1])
        result: _Made = made[0]
        return result

    def on_all(self, make: Callable[[], _Made]) -> _Made:
        """Make something on every rank; all get here together.

        Raises:
            ValueError: On every rank, if making it raised one on any.
        """
        if self.group is None:
            return make()
        made, refused = None, None
        try:
            made = make()
        except ValueError as error:
            refused = str(error)
        everywhere: list[Any] = [None] * self.size
        self._together(lambda: dist.all_gather_object(everywhere, refused, group=self.group))
        first = next((message for message in everywhere if message is not None), None)
        if first is not None:
            raise ValueError(first)
        return cast(_Made, made)

    def wait(self) -> None:
        """Wait until all ranks have come here.

        Raises:
            RuntimeError: If another rank has stopped.
        """
        if self.group is not None:
            self._together(lambda: dist.barrier(group=self.group))

    def _together(self, act: Callable[[], object]) -> None:
        try:
            act()
        except RuntimeError as error:
            raise RuntimeError(
                f"Rank {self.rank} waited for another rank, which has stopped; its own message says why. "
                "What is finished is kept: run the same command again to go on."
            ) from error


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that a launcher such as torchrun started; a single one without a launcher.

    A process group that exists already is used, and left as it is.

    Yields:
        This process among them.

    Raises:
        ValueError: If the environment tells of several processes but not where they meet.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if dist.is_available() and dist.is_initialized():
        yield _ranks(local_rank)
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(local_rank=local_rank)
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(
            f"The environment says WORLD_SIZE={size} but not {', '.join(missing)}; the ranks need all to meet. "
            "Start them with torchrun --nproc-per-node=N -m lightning_jv5 ..., or unset WORLD_SIZE."
        )
    dist.init_process_group("gloo")
    try:
        yield _ranks(local_rank)
    finally:
        dist.destroy_process_group()


def _ranks(local_rank: int) -> Ranks:
    # Plain objects go through gloo, whatever the tensors of the existing group go through
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), local_rank, group)
