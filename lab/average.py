"""An exponential moving average of the weights while a model trains."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """The average of `model`, its buffers included, over the steps of `optimizer`.

    Step n counts with 1 - min(decay, (n + 1) / (n + 10)): with `decay` from the beginning, the
    average of a short run would be that of its first steps.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, decay: float):
        super().__init__(model, multi_avg_fn=self._move, use_buffers=True)
        self.decay = decay
        optimizer.register_step_post_hook(lambda *_: self.update_parameters(model))

    def _move(self, averages: list[Tensor], values: list[Tensor], _: Tensor) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            n = max(0, int(self.n_averaged))
            get_ema_multi_avg_fn(min(self.decay, (n + 1) / (n + 10)))(averages, values, n)
        else:  # swa_utils would round the averages of whole numbers down
            torch._foreach_copy_(averages, values)
