"""Torch starts without its compiler, and computes what it computed."""

import copy
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import PROJECT
from hydra.utils import get_class
from torch.optim.optimizer import _use_grad_for_differentiable

import lab.torch_patches  # noqa: F401


@pytest.mark.parametrize(
    "words",
    [
        ("dataset=mnist", "model=mlp"),
        pytest.param(("dataset=digits", "model=vit", "optimizer=adamw"), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_not_compiled_does_not_import_the_compiler(tmp_path, data_dir, words):
    command = [sys.executable, "-X", "importtime", PROJECT / "script.py", *words, "debug=smoke"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"DATA_DIR": str(data_dir)}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"torch._dynamo", "torch._inductor", "sklearn", "sympy"}


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam"])
def test_steps_are_those_of_torch(name):
    cls = getattr(torch.optim, name)
    models = [torch.nn.Linear(3, 2)]
    models.append(copy.deepcopy(models[0]))
    own, theirs = (cls(model.parameters(), lr=0.1) for model in models)
    original = _use_grad_for_differentiable(cls.step.__wrapped__.__wrapped__)
    for _ in range(3):
        for model in models:
            model.zero_grad()
            model(torch.ones(4, 3)).square().sum().backward()
        own.step()
        original(theirs)
    assert all(map(torch.equal, *(list(model.parameters()) for model in models)))
    assert not any(weights.grad_fn for weights in models[0].parameters())


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's on_exit")
def test_a_process_that_has_imported_torch_ends_completely_and_without_more_memory():
    code = """
import atexit, ctypes, resource, sys
import lab.torch_patches
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
ctypes.CDLL(None).printf(b"buffered by C\\n")
sys.exit(7)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 7
    assert "buffered by C" in output
    before = next(int(line) for line in output.splitlines() if line.isdigit())
    assert usage.ru_maxrss - before < 30_000  # KiB


@pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's on_exit")
def test_a_preloaded_library_writes_its_report_at_exit(tmp_path):
    source, library = tmp_path / "tool.c", tmp_path / "tool.so"
    source.write_text(
        "#include <unistd.h>\n"
        '__attribute__((destructor)) static void end(void) { write(1, "report", 6); }\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    done = subprocess.run(
        [sys.executable, "-c", "import lab.torch_patches"],
        cwd=PROJECT,
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert "report" in done.stdout, done.stderr


def test_what_is_imported_late_works():
    import torchvision

    assert torchvision.models.resnet18(num_classes=3).fc.out_features == 3
    assert torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5).tolist() == [0]
    assert get_class("torchvision.models.ResNet").__name__ == "ResNet"
