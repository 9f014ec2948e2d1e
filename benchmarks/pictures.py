"""Folders of pictures, and images that do not fit into memory.

    python benchmarks/pictures.py                     20,000 JPEG pictures, then 400,000 images
    python benchmarks/pictures.py --pictures 2000 --images 20000

The first part compares the first run on a folder of JPEG pictures of 128×128, which decodes them
to 64×64, up to its first step, with the first epoch of torchvision's ImageFolder and a DataLoader
with as many workers; both as whole commands. Then a later run up to its first step, and one on
MNIST. The second part trains on images of 64×64×3 in one file, once in memory and once as if they
did not fit, and measures images per second and the peak memory of the process.

The files go to a temporary folder, where a second run of the first part would find them in the
cache of the system: so does the first, since they have just been written.
"""

import json
import re
import runpy
import shutil
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy
from harness import ENVIRONMENT, parser, python, report, run, seconds
from PIL import Image

from lab import decoded, images
from lab.errors import errors_as_sentences
from lab.provenance import PROJECT

CLASSES, SIDE, SIZE = 10, 128, 64
WHOLE = ("model=linear", "epochs=1", "compile=false")
LOADER = """
import sys, torch, torchvision
from torchvision.transforms import v2
change = torchvision.transforms.Compose([
    torchvision.transforms.Resize(64), torchvision.transforms.CenterCrop(64),
    torchvision.transforms.ToTensor(),
])
dataset = torchvision.datasets.ImageFolder(sys.argv[1], change)
loader = torch.utils.data.DataLoader(
    dataset, batch_size=128, shuffle=True, num_workers=int(sys.argv[2])
)
for images, labels in loader:
    pass
"""


class Synthetic:
    """The images of root/synthetic.npy, of which the last thousand are for testing."""

    def __init__(self, root: str, train: bool):
        import torch

        path = Path(root, "synthetic.npy")
        rows = torch.arange(len(numpy.load(path, mmap_mode="r")))
        rows = rows[:-1000] if train else rows[-1000:]
        self.data = images.OnDisk(images.ImageFile(path, "synthetic"), rows)
        self.targets = rows % CLASSES


def write_pictures(folder: Path, count: int) -> None:
    """Smooth pictures with some noise, of about 10 kB, as photographs of this size have."""
    random = numpy.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8))
        pixels = numpy.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=int)
        pixels = pixels + random.integers(-12, 13, pixels.shape)
        path = folder / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(path, quality=90)


def first_step(folder: Path, *arguments: str) -> float:
    """Seconds from the command to its first step."""
    before, started = set(folder.glob("runs/**/result.json")), time.time()
    run(python("script.py", *arguments), folder)
    (path,) = set(folder.glob("runs/**/result.json")) - before
    result = json.loads(path.read_text(encoding="utf-8"))
    begun = datetime.fromisoformat(result["started"]).timestamp()
    return begun - started + result["startup_seconds"]


def measure_pictures(folder: Path, count: int, runs: int) -> dict[str, float]:
    data = Path(ENVIRONMENT["DATA_DIR"]) if "DATA_DIR" in ENVIRONMENT else PROJECT / "data"
    mnist = first_step(folder, "dataset=mnist", *WHOLE, f"data_dir={data}")
    pictures, name = folder / "data/pictures", "benchmark_pictures"
    write_pictures(pictures, count)
    ENVIRONMENT["DATA_DIR"] = str(folder / "data")
    target = PROJECT / f"config/dataset/{name}.yaml"
    first, loaded, later = [], [], []
    try:
        run(python("sources.py", str(pictures), "--name", name, "--image-size", str(SIZE)))
        for _ in range(runs):
            shutil.rmtree(folder / "data/decoded")
            command = [sys.executable, "-c", LOADER, str(pictures), str(decoded.cores())]
            first.append(first_step(folder, f"dataset={name}", *WHOLE))
            loaded.append(seconds(lambda command=command: run(command)))
            later.append(first_step(folder, f"dataset={name}", *WHOLE))
    finally:
        target.unlink(missing_ok=True)
    return {
        "first_run_seconds": min(first),
        "image_folder_epoch_seconds": min(loaded),
        "times_faster": min(loaded) / min(first),
        "later_run_seconds": min(later),
        "mnist_seconds": mnist,
    }


def measure_large(folder: Path, count: int) -> dict[str, float]:
    file = folder / "data/synthetic.npy"
    file.parent.mkdir(exist_ok=True)
    array = numpy.lib.format.open_memmap(file, "w+", numpy.uint8, (count, 3, SIZE, SIZE))
    random = numpy.random.default_rng(0)
    for start in range(0, count, 10_000):
        part = array[start : start + 10_000]
        part[:] = random.integers(0, 256, part.shape, dtype=numpy.uint8)
    del array, part
    figures = {"large_gigabytes": file.stat().st_size / 1e9}
    for where in ("memory", "disk"):
        output = run(python("benchmarks/pictures.py", "--train", where, str(file.parent)), folder)
        speed, peak = map(float, output.split()[-2:])
        figures |= {f"images_per_second_{where}": speed, f"peak_gigabytes_{where}": peak}
    figures["share_of_speed"] = (
        figures["images_per_second_disk"] / figures["images_per_second_memory"]
    )
    return figures


def train(where: str, root: str) -> None:
    """Train in this process, as if `where` were the only place for the images; print images per
    second and the peak memory in GB."""
    count = len(numpy.load(Path(root, "synthetic.npy"), mmap_mode="r"))
    images.free_memory = lambda device: 2**62 if where == "memory" else 0
    sys.modules["pictures"] = sys.modules["__main__"]
    facts = {
        "source": "{_target_:pictures.Synthetic}", "in_channels": 3, "image_size": SIZE,
        "num_classes": CLASSES, "classes": [f"c{i}" for i in range(CLASSES)], "mean": [0.5] * 3,
        "std": [0.3] * 3, "train_size": count - 1000, "margin": 0,
    }  # fmt: skip
    overrides = [f"dataset.{key}={value}".replace("'", "") for key, value in facts.items()]
    model = ("model=linear", "epochs=1", "val_size=1000", "compile=false", f"data_dir={root}")
    sys.argv = ["script.py", *model, *overrides, f"hydra.run.dir={where}"]
    runpy.run_path(str(PROJECT / "script.py"), run_name="__main__")
    _, figures = (Path(where) / "metrics.csv").read_text(encoding="utf-8").splitlines()
    # Of this program alone: ru_maxrss would count what the process that started it had mapped.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024 / 1e9
    print(figures.split(",")[-1], peak)


def main() -> None:
    if sys.argv[1:2] == ["--train"]:
        train(*sys.argv[2:])
        return
    options = parser(__doc__, json="pictures.json")
    options.add_argument("--pictures", type=int, default=20_000)
    options.add_argument("--images", type=int, default=400_000)
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = {}
        if args.pictures:
            figures |= measure_pictures(Path(temporary), args.pictures, args.runs)
        if args.images:
            figures |= measure_large(Path(temporary), args.images)
    report(figures, args.json)


if __name__ == "__main__":
    with errors_as_sentences():
        main()
