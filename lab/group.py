"""What the processes of a run tell one another while they train; in a run of one process, nothing.

Besides the gradients, which DistributedDataParallel averages, everything goes through the memory of
the CPU (gloo): it is little, and no step waits for the device.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lab import ranks
from lab.errors import ConfigError

T = TypeVar("T")
# Longer than anything that only one of them does: checkpoints, the log, a slow disk.
LONGEST = timedelta(minutes=15)
_control: Any = None  # the group of this module; the default group is that of the gradients


def start(device: str) -> None:
    """Connect the processes, once, if there are several. Raises RuntimeError if that fails."""
    global _control
    me = ranks.current()
    if me.are_several and _control is None:
        backend = "nccl" if device.startswith("cuda") else "gloo"
        store = dist.PrefixStore("group", ranks.store())
        dist.init_process_group(
            backend, store=store, rank=me.rank, world_size=me.count, timeout=LONGEST
        )
        _control = dist.new_group(backend="gloo", timeout=LONGEST)
        ranks.closing.append(_end)


def _end() -> None:
    global _control
    control, _control = _control, None
    dist.destroy_process_group(control)
    if dist.get_backend() == "gloo":  # NCCL might wait for a process that has failed
        dist.destroy_process_group()


def from_first(value: T) -> T:
    """The value that the first process has; `value` matters there alone."""
    if _control is None:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_control)
    return values[0]


def gathered(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks."""
    if _control is None:
        return [value]
    values: list[Any] = [None] * ranks.current().count
    dist.all_gather_object(values, value, group=_control)
    return values


@torch.no_grad()
def copy_from_first(*tensors: Tensor) -> None:
    """Make these tensors, parameters or buffers, what they are in the first process."""
    if _control is not None:
        for own, value in zip(tensors, from_first([t.cpu() for t in tensors]), strict=True):
            own.copy_(value)


def distributed(model: nn.Module) -> nn.Module:
    """What averages the gradients of `model` over all processes when it is called in training."""
    if _control is None:
        return model
    # Without the search for unused parameters, a model that has any fails in its second step; and
    # DDP rearranges gradients in memory after the first step, which changes their sums in the last
    # bit: in a run that is resumed, that is another step.
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def columns(size: int) -> slice:
    """Which of the `size` images of a batch this process has: the shares of the processes differ by
    one image at most. Raises ConfigError for a batch of fewer images than processes."""
    me = ranks.current()
    if size < me.count:
        raise ConfigError(
            f"batch_size={size} cannot be shared among {me.count} processes, which need an image "
            "each: set a larger batch_size, or start fewer processes."
        )
    return slice(size * me.rank // me.count, size * (me.rank + 1) // me.count)


class Share:
    """A process's share of every batch of an epoch of `steps` batches of `size` images.

    Where each image is mixed with the one before it in the batch, its partner, that of the first
    image comes with the share, and is left out once they are mixed.
    """

    def __init__(self, steps: int, size: int, has_partners: bool):
        self.steps, self.size = steps, size
        self.columns = columns(size)
        self.partners = int(has_partners and _control is not None)

    def of(self, values: Any) -> Any:
        """The rows of an epoch that this process shows: `values[rows]`."""
        if _control is None:
            return values
        batch = torch.arange(self.columns.start - self.partners, self.columns.stop) % self.size
        return values[(torch.arange(self.steps)[:, None] * self.size + batch).flatten()]

    def parts(self) -> list[slice]:
        """The rows of each step, among those."""
        size = self.columns.stop - self.columns.start + self.partners
        return [slice(step * size, (step + 1) * size) for step in range(self.steps)]

    def weights(self, weights: Tensor) -> Sequence[Tensor]:
        """How much each of this process's images counts in the loss of each step: by its share of
        the weights of the batch and, since gradients are averaged over the processes, by their
        number."""
        batches = weights[: self.steps * self.size].view(self.steps, self.size)
        scale = ranks.current().count / batches.sum(1, keepdim=True)
        return (batches * scale)[:, self.columns].unbind()

    def own(self, batch: Tensor) -> Tensor:
        """A batch without the partner."""
        return batch[1:] if self.partners else batch


def shared(image_set: Any) -> Any:
    """This process's share of the images, as many as any other has: some may have the last image
    as well, whose answers `joined` leaves out."""
    if _control is None:
        return image_set
    me, count = ranks.current(), len(image_set)
    size = -(-count // me.count)
    return image_set[torch.arange(me.rank * size, (me.rank + 1) * size).clamp(max=count - 1)]


def joined(answers: Tensor, count: int) -> Tensor:
    """What all processes have answered for their shares of `count` images, in their order."""
    if _control is None:
        return answers
    own = answers.cpu().contiguous()
    parts = [torch.empty_like(own) for _ in range(ranks.current().count)]
    dist.all_gather(parts, own, group=_control)
    return torch.cat(parts)[:count].to(answers.device)


class Votes:
    """Numbers that the processes cast in each step. All learn the largest, in the same step: that
    of the step before, so that none waits for it, or of this one in a run of one process."""

    def __init__(self) -> None:
        self.before: tuple[Tensor, Any] | None = None

    def cast(self, number: int) -> int:
        if _control is None:
            return number
        before, vote = self.before, torch.tensor(number)
        work = dist.all_reduce(vote, dist.ReduceOp.MAX, group=_control, async_op=True)
        self.before = vote, work
        return self._result(before)

    def cast_and_wait(self, number: int) -> int:
        """The largest of this and the step before, for the end of an epoch."""
        before = self.cast(number)
        last, self.before = self.before, None
        return max(before, self._result(last) if last else 0)

    @staticmethod
    def _result(cast: tuple[Tensor, Any] | None) -> int:
        if cast is None:
            return 0
        vote, work = cast
        work.wait()
        return int(vote)
