"""A baseline, written again from its description: the last version of tuomaso/train_mnist_fast.

    python benchmarks/mnist_fast.py [SEED]

All training images in memory, a convolution of 5×5 to 24 channels and one of 3×3 to 32, each
followed by max pooling and then ReLU, two fully-connected layers with 256 units between, Adam with
lr 0.01 and betas (0.7, 0.9) under a one-cycle schedule, batches of 256 in the order of the file,
one epoch, fp32: https://github.com/tuomaso/train_mnist_fast.
Prints seconds of training and test accuracy.
"""

import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.datasets import MNIST

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

BATCH_SIZE = 256


def load(train: bool, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    from os import environ

    dataset = MNIST(environ.get("DATA_DIR", PROJECT / "data"), train=train, download=True)
    images = dataset.data.unsqueeze(1).float().div(255).sub(0.1307).div(0.3081)
    return images.to(device), dataset.targets.to(device)


class PoolThenReLU(nn.Module):
    def forward(self, images):
        return F.relu(F.max_pool2d(images, 2))


def main() -> None:
    torch.manual_seed(int(sys.argv[1]) if len(sys.argv) > 1 else torch.seed() % 2**32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, labels = load(True, device)
    test_images, test_labels = load(False, device)
    model = nn.Sequential(
        nn.Conv2d(1, 24, 5), PoolThenReLU(),
        nn.Conv2d(24, 32, 3), PoolThenReLU(),
        nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9))
    steps = (len(images) - 1) // BATCH_SIZE + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=steps, cycle_momentum=False
    )
    started = time.perf_counter()
    for batch, target in zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
        optimizer.zero_grad()
        F.nll_loss(F.log_softmax(model(batch), dim=1), target).backward()
        optimizer.step()
        schedule.step()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        right = sum(
            (model(batch).argmax(1) == target).sum().item()
            for batch, target in zip(test_images.split(2000), test_labels.split(2000), strict=True)
        )
    print(f"{seconds:.3f} {right / len(test_labels):.4f}")


if __name__ == "__main__":
    main()
