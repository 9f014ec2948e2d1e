"""Images per second of training: the usual tutorial loop, and the loop of script.py.

    python benchmarks/throughput.py                          all models on MNIST
    python benchmarks/throughput.py --models cnn --runs 9
    python benchmarks/throughput.py precision=fp32 --models mlp cnn

Both loops train the same model with the same batch size and optimizer, in this process, in
alternation; the figures are medians over the runs. The peak is that of the machine itself: a large
matrix product, timed in the same run, in fp32 and, where the hardware supports it, in bf16.
"""

import platform
import statistics
from collections.abc import Callable

import torch
import torchvision
from experiment import Experiment, composed, finish
from harness import parser, seconds
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lab.build import build
from lab.errors import errors_as_sentences
from lab.files import write_json
from lab.machine import Machine, choose_kernels
from sources import data_root

# All images at full size, since that is what the operations are counted for, under a schedule that
# outlasts the benchmark. The tutorial does not compile its model, so neither is compiled.
SAME_WORK = ("shrink.share=0", "skip_easy=0", "epochs=1000", "compile=false")


def tutorial_loop(cfg: DictConfig, device: str, num_images: int) -> Callable[[], None]:
    """A function that trains one epoch on the first `num_images` images, as tutorials do."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.ToTensor(),
            # Plain lists: OmegaConf's would be converted again for every image.
            torchvision.transforms.Normalize(list(cfg.dataset.mean), list(cfg.dataset.std)),
        ]
    )
    source = instantiate(cfg.dataset.source, _partial_=True)
    dataset = source(root=str(data_root(cfg.data_dir)), train=True, transform=transform)
    part = torch.utils.data.Subset(dataset, range(num_images))
    loader = torch.utils.data.DataLoader(part, batch_size=cfg.batch_size, shuffle=True)
    model = build(cfg, "model").to(device)
    optimizer = build(cfg, "optimizer", model.parameters())

    def epoch() -> None:
        choose_kernels(device, "fp32")  # torch's own choice
        model.train()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        finish(device)

    return epoch


def project_loop(experiment: Experiment) -> Callable[[], None]:
    """A function that trains the first epoch of `experiment`, each time it is called."""
    machine = experiment.machine

    def epoch() -> None:
        choose_kernels(machine.device, machine.precision)
        experiment.train_epoch()
        experiment.state.losses = []

    return epoch


def peak(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a square matrix product: the best of five."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        a @ b
        finish(device)

    product()
    return 2 * size**3 / min(seconds(product) for _ in range(5))


def flops_per_image(cfg: DictConfig) -> float:
    """Operations of a training step, forward and backward, per image."""
    model = build(cfg, "model")
    size = cfg.dataset.image_size
    images = torch.randn(8, cfg.dataset.in_channels, size, size)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / len(images)


def measure(overrides: list[str], runs: int, num_images: int) -> dict:
    """Medians over `runs` alternating runs of both loops."""
    cfg = composed([*overrides, *SAME_WORK])
    experiment = Experiment.prepare(cfg)
    machine, state = experiment.machine, experiment.state
    plain = composed([*overrides, *SAME_WORK, "optimizer.fused=null"])
    loops = {
        "tutorial": (tutorial_loop(plain, machine.device, num_images), num_images),
        "project": (project_loop(experiment), state.steps[0] * cfg.batch_size),
    }
    for epoch, _ in loops.values():
        epoch()  # the first one allocates memory
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(runs):
        for name, (epoch, count) in loops.items():
            rates[name].append(count / seconds(epoch))
    median = {name: statistics.median(values) for name, values in rates.items()}
    dtype = torch.bfloat16 if machine.precision == "bf16" else torch.float32
    flops = flops_per_image(cfg)
    return {
        "batch_size": cfg.batch_size,
        "precision": machine.precision,
        "tutorial_images_per_second": round(median["tutorial"]),
        "project_images_per_second": round(median["project"]),
        "ratio": round(median["project"] / median["tutorial"], 2),
        "flops_per_image": flops,
        "share_of_peak": round(median["project"] * flops / peak(machine.device, dtype), 3),
        "runs": rates,
    }


def main() -> None:
    options = parser(__doc__, json="throughput.json")
    options.add_argument("overrides", nargs="*", help="as for script.py, before any option")
    options.add_argument("--models", nargs="+", default=["linear", "mlp", "cnn", "vit"])
    options.add_argument("--runs", type=int, default=5, help="of each loop, in alternation")
    options.add_argument("--images", type=int, default=6000, help="per run of the tutorial's loop")
    args = options.parse_args()

    machine = Machine.prepare("auto", "auto", deterministic=False, seed=0)
    dtypes = {"fp32": torch.float32}
    if machine.precision == "bf16":  # emulated, the product takes a minute
        dtypes["bf16"] = torch.bfloat16
    peaks = {name: round(peak(machine.device, dtype) / 1e9) for name, dtype in dtypes.items()}
    facts = machine.facts()
    record = {
        "device": facts["device_name"],
        "threads": facts["threads"],
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_gflops": peaks,
        "models": [],
    }
    print(f"{record['device']}, {record['threads']} threads, peak {peaks} GFLOP/s")
    print("model    batch  precision   tutorial    project   ratio  of peak")
    for model in args.models:
        overrides = ["dataset=mnist", f"model={model}", *args.overrides]
        row = {"model": model} | measure(overrides, args.runs, args.images)
        record["models"].append(row)
        print(
            f"{model:<8} {row['batch_size']:>5}  {row['precision']:<9} "
            f"{row['tutorial_images_per_second']:>10} {row['project_images_per_second']:>10} "
            f"{row['ratio']:>7.1f} {row['share_of_peak']:>8.0%}"
        )
        write_json(args.json, record)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
