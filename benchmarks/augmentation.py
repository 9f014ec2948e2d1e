"""What augmentation costs: a step of training, and images per second compared with a DataLoader.

    python benchmarks/augmentation.py                         both, with model=cnn
    python benchmarks/augmentation.py precision=fp32 --runs 9
    python benchmarks/augmentation.py --part step --images 2048

The images are random, of the shape of CIFAR-10 (32×32×3). Everything runs in this process, in
alternation; figures are medians. A step is that of training.train_epoch, its batch included. The
DataLoader gives pictures through torchvision's RandomCrop(32, padding=4), RandomHorizontalFlip,
ToTensor and Normalize, as its tutorials do, to the same model in fp32 with a plain optimizer.
"""

import statistics
import time

import numpy
import torch
from experiment import composed, finish
from harness import parser, report
from omegaconf import DictConfig
from PIL import Image
from torch import nn
from torchvision import transforms

from data import Augmentation, Curriculum, ImageSet
from lab.build import build, build_schedule
from lab.errors import errors_as_sentences
from lab.machine import Machine, choose_kernels
from lab.state import State
from training import train_epoch

CIFAR = (
    *("dataset.in_channels=3", "dataset.image_size=32", "dataset.margin=0"),
    *("dataset.mean=[0.4914,0.4822,0.4465]", "dataset.std=[0.247,0.2435,0.2616]"),
)
# All images at full size, as in throughput.py.
SAME_WORK = ("shrink.share=0", "skip_easy=0", "epochs=1000", "compile=false")
OPTIONS = ("crop_flip", "cutout", "mixup", "cutmix", "randaugment")


class Pictures(torch.utils.data.Dataset):
    """Arrays as pictures, as torchvision's CIFAR10 gives them."""

    def __init__(self, images: ImageSet, transform):
        self.data = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets, self.transform = images.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def random_images(cfg: DictConfig, count: int) -> ImageSet:
    pixels = numpy.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=numpy.uint8)
    facts = cfg.dataset
    labels = torch.arange(count) % facts.num_classes
    scale = tuple(facts.mean), tuple(facts.std)
    return ImageSet(torch.from_numpy(pixels), labels, *scale, num_classes=facts.num_classes)


def project_loop(overrides: list[str], option: str, count: int):
    """A function that trains one epoch with an augmentation, each time it is called."""
    cfg = composed([*CIFAR, *overrides, *SAME_WORK, f"augmentation={option}"])
    machine = Machine.prepare(cfg.device, cfg.precision, cfg.deterministic, cfg.seed)
    images = random_images(cfg, count).to(machine.device)
    augmentation = Augmentation(**cfg.augmentation)
    curriculum = Curriculum(cfg.epochs, cfg.batch_size, cfg.seed, augmentation)
    model = machine.place(build(cfg, "model"))
    optimizer = build(cfg, "optimizer", model.parameters())
    steps = curriculum.steps(count)
    losses = torch.zeros(count, device=machine.device)
    state = State(model, optimizer, build_schedule(cfg, optimizer, steps), steps, losses, cfg.seed)

    def epoch() -> None:
        choose_kernels(machine.device, machine.precision)
        shown = curriculum.epoch(0, images, state.image_losses, 0)
        train_epoch(state, shown, machine, cfg.label_smoothing, cfg.grad_clip)
        state.losses = []
        finish(machine.device)

    return epoch, steps[0]


def tutorial_loop(overrides: list[str], count: int, workers: int):
    """A function that trains one epoch of a DataLoader, each time it is called."""
    cfg = composed([*CIFAR, *overrides, *SAME_WORK, "optimizer.fused=null"])
    machine = Machine.prepare(cfg.device, "fp32", cfg.deterministic, cfg.seed)
    transform = transforms.Compose(
        [
            *(transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()),
            transforms.ToTensor(),
            transforms.Normalize(list(cfg.dataset.mean), list(cfg.dataset.std)),
        ]
    )
    loader = torch.utils.data.DataLoader(
        Pictures(random_images(cfg, count), transform),
        *(cfg.batch_size, True),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = build(cfg, "model").to(machine.device)
    optimizer = build(cfg, "optimizer", model.parameters())

    def epoch() -> None:
        choose_kernels(machine.device, "fp32")  # torch's own choice
        model.train()
        for images, labels in loader:
            images, labels = images.to(machine.device), labels.to(machine.device)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        finish(machine.device)

    return epoch


def in_alternation(loops: dict, runs: int, cpu: bool) -> dict[str, float]:
    """Median seconds of each loop, of the wall clock or of this process on the CPU."""
    clock = time.process_time if cpu else time.perf_counter
    for epoch in loops.values():
        epoch()  # the first one allocates memory
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(runs):
        for name, epoch in loops.items():
            started = clock()
            epoch()
            times[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    options = parser(__doc__, json="augmentation.json")
    options.add_argument("overrides", nargs="*", help="as for script.py, before any option")
    options.add_argument("--part", choices=("step", "loader", "both"), default="both")
    options.add_argument("--runs", type=int, default=5, help="of each loop, in alternation")
    options.add_argument("--images", type=int, default=2560, help="per run")
    options.add_argument("--cpu", action="store_true", help="CPU seconds, for a busy machine")
    options.add_argument("--workers", type=int, default=0, help="of the DataLoader")
    args = options.parse_args()
    overrides = ["model=cnn", *args.overrides]
    figures: dict[str, float] = {}
    if args.part != "loader":
        loops, steps = {}, 1
        for name in ("none", *OPTIONS):
            loops[name], steps = project_loop(overrides, name, args.images)
        times = in_alternation(loops, args.runs, args.cpu)
        figures["ms of a step, none"] = 1000 * times["none"] / steps
        figures |= {f"{n}: cost, %": 100 * (times[n] / times["none"] - 1) for n in OPTIONS}
    if args.part != "step":
        loops = {
            "project": project_loop(overrides, "crop_flip", args.images)[0],
            "loader": tutorial_loop(overrides, args.images, args.workers),
        }
        rates = {
            n: args.images / time for n, time in in_alternation(loops, args.runs, args.cpu).items()
        }
        figures |= {f"{name}, images/s": rate for name, rate in rates.items()}
        figures["ratio"] = rates["project"] / rates["loader"]
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
