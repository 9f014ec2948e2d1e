"""The machine that a run computes on: device, precision, kernels, random generators."""

import ctypes
import logging
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab import group, ranks, torch_patches  # noqa: F401
from lab.errors import ConfigError
from lab.generators import seed_everything

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
COMPILE_STEPS = 10_000  # a vit recoups compilation in 4,000, an mlp never (benchmarks/README.md)
REMEDY = "install a C++ compiler, for example g++, or name one in the environment variable CXX"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes, with every "auto" of the config replaced by a choice."""

    device: str
    precision: str

    @classmethod
    def prepare(cls, device: str, precision: str, deterministic: bool, seed: int) -> "Machine":
        """Choose device and precision, set torch's switches, seed every random generator.

        Raises ConfigError for a device that this machine does not have.
        """
        device = choose_device(device)
        group.start(device)
        machine = cls(device, choose_precision(precision, device))
        choose_kernels(machine.device, machine.precision)
        set_deterministic(deterministic)
        seed_everything(seed)
        return machine

    def place(self, model: nn.Module) -> nn.Module:
        """`model` on the device, its convolutions in channels-last order, which is faster. All
        processes of the run get the weights of the first."""
        group.copy_from_first(*model.parameters(), *model.buffers())
        if ranks.current().are_several and self.is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model.to(self.device, memory_format=torch.channels_last)

    def distribute(self, model: nn.Module) -> nn.Module:
        """What to call in training instead of `model`: it averages the gradients over the processes
        of the run, if there are several."""
        if ranks.current().are_several:
            log.info("%d processes train together", ranks.current().count)
            if not self.is_cuda and any(isinstance(part, BATCH_NORM) for part in model.modules()):
                log.info(
                    "batch norm: each process normalises its own share of a batch, since torch "
                    "synchronises it on CUDA alone; the first one's statistics are kept"
                )
        return group.distributed(model)

    def compile(self, model: nn.Module, wanted: bool | str, total_steps: int) -> None:
        """Compile `model` in place. With "auto", only for a run long enough to save time by it,
        and where it works: otherwise a warning says why it does not.

        Raises ConfigError for `wanted=True` where it does not work, here or in the first step.
        """
        if total_steps >= COMPILE_STEPS if wanted == "auto" else wanted:
            if reason := why_not_compiled(self.device):
                do_without(wanted, f"fails on this machine ({reason}): {REMEDY}")
            else:
                # Each size of images by itself: sizes that were seen before would otherwise make
                # other kernels, and a run that is resumed has not seen them.
                model.compile(dynamic=False)
                model._compiled_call_impl = compiled_or_not(model, wanted)

    def autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def facts(self) -> dict[str, Any]:
        """What `result.json` records of the machine."""
        return {
            "device": self.device,
            "device_name": device_name(self.device),
            "processes": ranks.current().count,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
        }


def choose_device(wanted: str) -> str:
    """The first device that is present, for "auto". Raises ConfigError for one that is not.

    Of several GPUs, each process of a run has one, and `cuda:1` names one.
    """
    present = [name for name in ("cuda", "mps") if getattr(torch, name).is_available()] + ["cpu"]
    count = torch.cuda.device_count() if present[0] == "cuda" else 0
    present[1:1] = [f"cuda:{number}" for number in range(count)]
    chosen = present[0] if wanted == "auto" else wanted
    if chosen not in present:
        raise ConfigError(
            f"device={wanted} is not on this machine: use auto or {' or '.join(present)}."
        )
    me = ranks.current()
    if me.are_several and chosen.startswith("cuda:"):
        raise ConfigError(
            f"device={wanted} is one device for {me.count} processes, which need one each: use "
            "device=cuda."
        )
    if chosen == "cuda" and me.are_several:
        chosen = f"cuda:{me.local % count}"
    if chosen.startswith("cuda:"):
        torch.cuda.set_device(chosen)  # what is made on "cuda" from now on is made there
    return chosen


def choose_precision(wanted: str, device: str) -> str:
    """For "auto", bf16 where the hardware is faster with it than with fp32."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        is_faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        # With AVX512, an Intel Emerald Rapids takes twice as long for bf16 as for fp32, an AMD EPYC
        # half as long.
        avx512 = has.get("avx512_bf16") and "Intel" not in has.get("cpu_name", "")
        is_faster = device == "cpu" and bool(has.get("amx_bf16") or avx512)
    return "bf16" if is_faster else "fp32"


def choose_kernels(device: str, precision: str) -> None:
    """Settings that make a step faster; `benchmarks/README.md` says why."""
    if device.startswith("cuda"):  # TF32: products of fp32 numbers with 10 bits of their mantissas
        torch.set_float32_matmul_precision("high")
    # The flash kernel is made for long sequences: for a few tokens in bf16, plain matrix products
    # are faster. The switch is named after CUDA but applies to CPUs, too.
    torch.backends.cuda.enable_flash_sdp(device != "cpu" or precision != "bf16")
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        # Every step allocates blocks of the same sizes. Keep freed blocks instead of returning
        # large ones to the system, which would have to map and clear them again.
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def why_not_compiled(device: str) -> str | None:
    """Why torch.compile does not work on this machine; None if it does.

    A small function is compiled, forward and backward: each may need a compiler, and would
    otherwise find out in the middle of a step.
    """
    try:
        numbers = torch.ones(2, device=device, requires_grad=True)
        torch.compile(lambda x: x.sin().sum())(numbers).backward()
    except Exception as error:  # whatever dynamo, inductor or a compiler raises
        return first_line(error)
    return None


def compiled_or_not(model: nn.Module, wanted: bool | str) -> Callable[..., Any]:
    """A call of the compiled `model` that is made without compilation, for good, once that fails.

    If the call fails then, too, that error is the model's own, and is raised.
    """
    compiled = model._compiled_call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except Exception as error:  # whatever dynamo, inductor or a compiler raises
            model._compiled_call_impl = None
            answer = model(*args, **kwargs)
            do_without(wanted, f"fails on this model ({first_line(error)})")
            return answer

    return call


def do_without(wanted: bool | str, reason: str) -> None:
    """Warn that the model is not compiled. Raises ConfigError if it was to be."""
    if wanted != "auto":
        raise ConfigError(
            f"compile=true is not possible: torch.compile {reason}; or set compile=false."
        )
    log.warning("compile=auto: the model is not compiled, since torch.compile %s.", reason)


def first_line(error: Exception) -> str:
    """What went wrong, without the advice and the source code that torch appends."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def set_deterministic(wanted: bool) -> None:
    """Bit-identical results on one device. An operation without them then raises RuntimeError.
    Else, cuDNN's fastest kernel is found by benchmarking, which differs from run to run."""
    torch.backends.cudnn.benchmark = not wanted
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if wanted != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted)  # imports torch's compiler, which takes seconds


def device_name(device: str) -> str:
    """The vendor's name of the processor, or its architecture if there is none."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.*)", text, re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()
