"""What this project changes in torch, and why. Importing this module applies the changes.

Optimizers and torchvision import torch's compiler, only to tell it what is not to be compiled. That
takes as long as all else before the first step together, and most runs compile nothing.

When a process ends, the destructors of the CUDA libraries read 120 MB of their files into memory,
even where there is no GPU, to free what the system frees anyway: they are skipped. But a library in
LD_PRELOAD, such as that of a profiler, may write its report in its destructor: then all are called.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from typing import Any

import torch
from torch.optim import Optimizer

LATE = ("torchvision.models", "torchvision.ops")  # what imports the compiler


class LateImports:
    """Finds the modules LATE, which are then run when they are first used."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _without_a_word_to_the_compiler(step: Callable[..., Any]) -> Callable[..., Any]:
    """The `step` of an optimizer, otherwise decorated as torch does it."""

    @functools.wraps(step)
    def decorated(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return decorated


is_alone = sys.platform == "linux" and not os.environ.get("LD_PRELOAD")
if is_alone and hasattr(libc := ctypes.CDLL(None), "on_exit"):  # glibc
    # Python has ended by then. Of these two, the last one is called first: C's buffers are written.
    libc.on_exit(libc._exit, None)  # with the exit code
    libc.__cxa_atexit(libc.fflush, None, None)

sys.meta_path.insert(0, LateImports)

for method in vars(Optimizer).values():
    if function := getattr(method, "__wrapped__", None):
        function.__dynamo_disable = function  # what torch calls once it has told the compiler

for optimizer in filter(lambda value: isinstance(value, type), vars(torch.optim).values()):
    step = vars(optimizer).get("step")
    if getattr(step, "__code__", None) and step.__code__.co_name == "_use_grad":
        optimizer.step = _without_a_word_to_the_compiler(step.__wrapped__)
