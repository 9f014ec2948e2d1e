"""Images per second of a training step: the loop that every tutorial shows, and script.py's.

    python benchmarks/throughput.py                          all models on MNIST
    python benchmarks/throughput.py --models cnn --runs 9

Both train the same model with the same batch size and optimizer, in this process, run by run in
alternation; the figures are medians over the runs. The peak is the machine's own: a large matrix
multiplication, measured in the same run, fp32 and, where the hardware has it, bf16.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torchvision
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import script  # noqa: E402
import training  # noqa: E402
from config import schema  # noqa: E402


def tutorial_loop(cfg, root: Path, images: int):
    """An epoch of the tutorials' loop over the first `images` training images, to be called."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(cfg.dataset.mean, cfg.dataset.std),
        ]
    )
    source = schema.instantiate(cfg.dataset.source, _partial_=True)
    dataset = source(root=str(root), train=True, transform=transform)
    part = torch.utils.data.Subset(dataset, range(images))
    loader = torch.utils.data.DataLoader(part, batch_size=cfg.batch_size, shuffle=True)
    model = schema.build(cfg, "model").to(cfg.device)
    cfg.optimizer.fused = None
    optimizer = schema.build(cfg, "optimizer", model.parameters())

    def epoch() -> None:
        training.choose_kernels(cfg.device, "fp32")  # torch's own choice
        model.train()
        for batch, labels in loader:
            batch, labels = batch.to(cfg.device), labels.to(cfg.device)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch), labels)
            loss.backward()
            optimizer.step()

    return epoch


def project_loop(cfg):
    """The epoch that script.py runs."""
    model = training.build_model(cfg)
    optimizer = schema.build(cfg, "optimizer", model.parameters())
    (train_set, _, _), _ = script.load_data(cfg)
    cfg.epochs = 1000  # a schedule that outlasts the benchmark
    state = training.new_state(cfg, model, optimizer, len(train_set))

    def epoch() -> None:
        training.choose_kernels(cfg.device, cfg.precision)
        training.train_epoch(state, train_set, cfg)
        state.losses = []

    return len(train_set), epoch


def seconds(call) -> float:
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """Multiply-adds of a square matrix product, in FLOP/s: the best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(5))


def flops_per_image(cfg) -> float:
    """Useful arithmetic of one training step, forward and backward, per image."""
    model = schema.build(cfg, "model")
    size = cfg.dataset.image_size
    images = torch.randn(8, cfg.dataset.in_channels, size, size)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def measure(model: str, runs: int, images: int, root: Path) -> dict:
    """Medians over `runs` alternating runs of both loops for one model."""
    # All images, whole: fewer or shrunk ones would be fewer operations than are counted.
    overrides = [
        "dataset=mnist",
        f"model={model}",
        f"data_dir={root}",
        "shrink.share=0",
        "skip_easy=0",
    ]
    with initialize_config_dir(str(PROJECT / "config"), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
        plain = compose("config", overrides=overrides)
    training.prepare(cfg)
    plain.device = cfg.device

    theirs = tutorial_loop(plain, root, images)
    ours_images, ours = project_loop(cfg)
    theirs(), ours()  # the first epoch allocates and warms up
    rates = {"tutorial": [], "project": []}
    for _ in range(runs):
        rates["tutorial"].append(images / seconds(theirs))
        rates["project"].append(ours_images / seconds(ours))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    dtype = torch.bfloat16 if cfg.precision == "bf16" else torch.float32
    flops = flops_per_image(cfg)
    achieved = middle["project"] * flops
    return {
        "model": model,
        "batch_size": cfg.batch_size,
        "precision": cfg.precision,
        "tutorial_images_per_second": round(middle["tutorial"]),
        "project_images_per_second": round(middle["project"]),
        "ratio": round(middle["project"] / middle["tutorial"], 2),
        "flops_per_image": flops,
        "share_of_peak": round(achieved / peak(cfg.device, dtype), 3),
        "runs": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["linear", "mlp", "cnn", "vit"])
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each loop")
    parser.add_argument("--images", type=int, default=6000, help="per run of the tutorial's loop")
    parser.add_argument("--data-dir", type=Path, default=PROJECT / "data")
    parser.add_argument("--json", type=Path, default=Path("throughput.json"))
    options = parser.parse_args()

    device = training.choose_device("auto")
    dtypes = {"fp32": torch.float32}
    if training.choose_precision("auto", device) == "bf16":  # emulated, one product takes a minute
        dtypes["bf16"] = torch.bfloat16
    record = {
        "device": training.device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_gflops": {name: round(peak(device, dtype) / 1e9) for name, dtype in dtypes.items()},
        "models": [],
    }
    print(f"{record['device']}, {record['threads']} threads, peak {record['peak_gflops']} GFLOP/s")
    print("model    batch  precision   tutorial    project   ratio  of peak")
    for model in options.models:
        row = measure(model, options.runs, options.images, options.data_dir.absolute())
        record["models"].append(row)
        print(
            f"{model:<8} {row['batch_size']:>5}  {row['precision']:<9} "
            f"{row['tutorial_images_per_second']:>10} {row['project_images_per_second']:>10} "
            f"{row['ratio']:>7.1f} {row['share_of_peak']:>8.0%}"
        )
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
