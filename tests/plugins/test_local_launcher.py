"""The GPUs that the launcher for this machine gives to its jobs: what they see, without any GPU."""

import os
import sys
import time

import cloudpickle
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.local_launcher import LocalLauncher
from lab.errors import ConfigError


class Launcher(LocalLauncher):
    """Its jobs return the GPUs that they see, and from when to when they run."""

    def run(self, *_: object) -> JobReturn:
        started = time.time()
        time.sleep(0.2)
        seen = [os.environ.get("CUDA_VISIBLE_DEVICES"), started, time.time()]
        return JobReturn(status=JobStatus.COMPLETED, _return_value=seen)


def launcher(tmp_path, parallel: int, gpus_per_job: int = 1, device: str = "auto") -> Launcher:
    made = Launcher(parallel, gpus_per_job)
    sweep = {"hydra": {"sweep": {"dir": str(tmp_path)}}}
    made.config = OmegaConf.create({"device": device, "fail_fast": False, **sweep})
    return made


@pytest.mark.parametrize(
    ("visible", "parallel", "gpus_per_job", "slots"),
    [
        ("4,5", 2, 1, ["4", "5"]),
        ("4,5", 8, 1, ["4", "5"]),  # the other jobs queue
        ("4,5,6", 2, 1, ["4", "5"]),
        ("0,1,2,3,4", 8, 2, ["0,1", "2,3"]),
        ("GPU-8932f937,GPU-46e3d2a1", 2, 1, ["GPU-8932f937", "GPU-46e3d2a1"]),
        ("4,5", 3, 0, ["", "", ""]),
        ("4", 2, 1, ["", ""]),  # they share it
        ("", 2, 1, ["", ""]),
    ],
)
def test_where_there_are_several_gpus_each_job_has_its_own(
    tmp_path, monkeypatch, visible, parallel, gpus_per_job, slots
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launcher(tmp_path, parallel, gpus_per_job)._slots() == slots
    for device in ("cpu", "cuda:1"):
        assert launcher(tmp_path, parallel, gpus_per_job, device)._slots() == [""] * parallel


def test_gpus_are_counted_by_nvidia_smi(tmp_path, monkeypatch):
    """A GPU that is divided (MIG) counts once."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H100'\necho '  MIG 1g.10gb'\necho 'GPU 1: H100'\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert launcher(tmp_path, 2)._slots() == ["0", "1"]
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert launcher(tmp_path, 2)._slots() == ["", ""]


def test_more_gpus_per_job_than_there_are_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(ConfigError, match="gpus_per_job=3 is more than the 2 GPUs"):
        launcher(tmp_path, 2, 3)._slots()
    with pytest.raises(ConfigError, match="gpus_per_job=-1 is not allowed"):
        launcher(tmp_path, 2, -1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")
def test_jobs_see_their_own_gpu_and_queue_for_it(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # restored at the end
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        made = launcher(tmp_path, 4)
        returns = made.launch([[f"hydra.sweep.subdir=job{i}"] for i in range(5)], 0)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    jobs = [answer.return_value for answer in returns]
    assert len(jobs) == 5 and {gpu for gpu, _, _ in jobs} == {"4", "5"}
    for gpu in "45":
        times = sorted((start, end) for own, start, end in jobs if own == gpu)
        ends = [0.0, *(end for _, end in times)]
        assert len(times) >= 2
        assert all(start >= end for (start, _), end in zip(times, ends, strict=False))
