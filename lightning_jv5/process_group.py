"""The end of a process group, which neither Lightning nor the interpreter's exit brings about in order."""

import gc

from torch import distributed as dist


def leave_process_group() -> None:
    """End the process group that this process is in, once all its ranks have come here; without one, do nothing.

    A process that exits within a group may be aborted although its work is done, as threads of the group still let go
    of tensors (gloo), or warns of leaked resources (NCCL). Let go of modules and trainers first: what gathers gradients
    waits for its group.

    Example:
        >>> leave_process_group()
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a trainer and its module know each other
        dist.barrier()
        dist.destroy_process_group()
