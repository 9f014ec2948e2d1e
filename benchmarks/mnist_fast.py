"""A baseline for time_to_accuracy.py: the network and schedule of tuomaso/train_mnist_fast.

    python benchmarks/mnist_fast.py [SEED]

It is written from the description of that project's last version
(https://github.com/tuomaso/train_mnist_fast): all training images in memory; a convolution of 5×5
to 24 channels and one of 3×3 to 32, each followed by max pooling and then ReLU; two fully connected
layers with 256 units between them; Adam with lr 0.01 and betas (0.7, 0.9) under a one-cycle
schedule; batches of 256 in the order of the file; one epoch in fp32.
Prints the seconds of training and the test accuracy.
"""

import sys
import time

import torch
from experiment import composed, finish, load_images
from torch import nn
from torch.nn import functional as F

from lab.errors import errors_as_sentences
from lab.machine import choose_device

BATCH_SIZE = 256


class PoolThenReLU(nn.Module):
    def forward(self, images):
        return F.relu(F.max_pool2d(images, 2))


def main() -> None:
    torch.manual_seed(int(sys.argv[1]) if len(sys.argv) > 1 else torch.seed() % 2**32)
    device = choose_device("auto")
    train_set, test_set = (part.to(device) for part in load_images(composed(["dataset=mnist"])))
    images, test_images = train_set.normalised(), test_set.normalised()
    model = nn.Sequential(
        nn.Conv2d(1, 24, 5), PoolThenReLU(),
        nn.Conv2d(24, 32, 3), PoolThenReLU(),
        nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9))
    batches = list(zip(images.split(BATCH_SIZE), train_set.labels.split(BATCH_SIZE), strict=True))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=len(batches), cycle_momentum=False
    )
    started = time.perf_counter()
    for batch, labels in batches:
        optimizer.zero_grad()
        F.nll_loss(F.log_softmax(model(batch), dim=1), labels).backward()
        optimizer.step()
        schedule.step()
    finish(device)
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        predicted = torch.cat([model(batch).argmax(1) for batch in test_images.split(2000)])
    accuracy = (predicted == test_set.labels).double().mean().item()
    print(f"{seconds:.3f} {accuracy:.4f}")


if __name__ == "__main__":
    with errors_as_sentences():
        main()
