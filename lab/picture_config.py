"""Describe a folder of pictures: look at it, decode it, write config/dataset/NAME.yaml."""

import argparse
import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from lab import decoded, files
from lab.errors import Refusal
from lab.picture_folder import Listing, decoded_from, drawn_for_test, has_parts, is_picture, listed
from lab.provenance import PROJECT

TEST_SIZE = 0.2
VAL_SIZE = 0.05  # the default of config.yaml
BLOCK = 1024  # images whose pixels are added up at once


@dataclass
class Found:
    """What is in a folder of pictures, before any of them is decoded."""

    listings: dict[str, Listing]  # train and, where there are such folders, test and val
    classes: list[str]
    rows: dict[str, list[int]]  # of train and test, in their listings


def parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sources.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="train/CLASS/* and test/CLASS/*, or CLASS/*")
    parser.add_argument("--name", required=True, help="of the dataset: dataset=NAME")
    parser.add_argument("--image-size", type=int, default=64, help="pixels (64)")
    parser.add_argument("--grey", action="store_true", help="one channel instead of three")
    help = f"share of each class for testing, without a folder test/ ({TEST_SIZE})"
    parser.add_argument("--test-size", type=float, help=help)
    parser.add_argument("--seed", type=int, default=0, help="for drawing the test pictures (0)")
    parser.add_argument("--skip", action="store_true", help="leave out what cannot be decoded")
    parser.add_argument("--force", action="store_true", help="replace config/dataset/NAME.yaml")
    parser.add_argument("--data-dir", help="the data folder (DATA_DIR, or data/ beside script.py)")
    return parser


def main(arguments: list[str], doc: str) -> None:
    args = parser(doc).parse_args(arguments)
    check(args)
    folder = Path(os.path.abspath(args.folder.expanduser()))
    root = files.located(args.data_dir or os.environ.get("DATA_DIR") or PROJECT / "data")
    found = look(folder, args.test_size, args.seed)
    inside = linked(folder, root, args.name, args.force)
    channels, policy = 1 if args.grey else 3, "skip" if args.skip else "refuse"
    made = {}
    for part, listing in found.listings.items():
        placed = replace(listing, folder=root / inside / listing.folder.relative_to(folder))
        made[part] = decoded_from(placed, root, channels, args.image_size)
        decoded.check_bad(listing.names, made[part].bad, listing.folder, policy)
    for part, rows in found.rows.items():
        bad = made.get(part, made["train"]).bad
        found.rows[part] = [row for row in rows if row not in bad]
        if not found.rows[part]:
            raise Refusal(f"{folder} has no picture for {part}ing that can be decoded.")
    mean, std = statistics(made["train"].path, found.rows["train"])
    files.write_text(target_of(args.name), _yaml(args, folder, inside, found, channels, mean, std))
    _say(args, folder, found, policy)


def target_of(name: str) -> Path:
    return PROJECT / "config/dataset" / f"{name}.yaml"


def check(args: argparse.Namespace) -> None:
    """Raises Refusal for options that are impossible, before anything is looked at."""
    if not re.fullmatch(r"[A-Za-z_]\w*", args.name, re.ASCII):
        raise Refusal(f"--name {args.name} is not allowed: use letters, digits and underscores.")
    if args.image_size < 1:
        raise Refusal(f"--image-size {args.image_size} is not allowed: give 1 or more pixels.")
    if args.test_size is not None and not 0 < args.test_size < 1:
        raise Refusal(f"--test-size {args.test_size:g} is not allowed: give a share, like 0.2.")
    if (target := target_of(args.name)).exists() and not args.force:
        raise Refusal(f"{target} exists: choose another --name, or replace it with --force.")


def look(folder: Path, test_size: float | None, seed: int) -> Found:
    """Which pictures and classes there are. Raises Refusal for a folder of another layout."""
    if not folder.is_dir():
        raise Refusal(f"{folder} is not a folder: give the folder of your pictures.")
    in_parts = has_parts(folder)
    base = folder / "train" if in_parts else folder
    listings = {"train": listed(base)}
    classes = sorted(set(listings["train"].classes))
    if len(classes) < 2:
        loose = [name for name in os.listdir(base) if is_picture(name)]
        what = f"one class, {classes[0]}" if classes else "no pictures in folders"
        hint = f" ({len(loose)} pictures are in no folder)" if loose else ""
        raise Refusal(
            f"{base} has {what}{hint}, but a classifier needs two classes or more: put the "
            "pictures of each class into a folder of its own, as in cat/1.jpg and dog/1.jpg."
        )
    for part in ("test", "val") if in_parts else ():
        if (folder / part).is_dir():
            listings[part] = listed(folder / part)
    for listing in listings.values():
        if unknown := sorted(set(listing.classes) - set(classes)):
            raise Refusal(
                f"{listing.folder / unknown[0]} has pictures, but {base / unknown[0]} has none: "
                "a class needs pictures to train on."
            )
        if not listing.names:
            raise Refusal(f"{listing.folder} has no pictures: add some, or remove the folder.")
        for name in classes:
            if not name.isprintable() or "${" in name:  # also what is not UTF-8
                raise Refusal(f"the folder {name!r} has a name that YAML cannot hold: rename it.")
    if "test" in listings:
        if test_size is not None:
            raise Refusal(f"{folder / 'test'} has the test pictures: leave --test-size out.")
        parts = {part: list(range(len(listing.names))) for part, listing in listings.items()}
        return Found(listings, classes, parts)
    drawn = drawn_for_test(listings["train"], test_size or TEST_SIZE, seed)
    if not drawn:
        raise Refusal(f"{base} has one picture of each class: none can be taken for testing.")
    rest = [row for row in range(len(listings["train"].names)) if row not in drawn]
    return Found(listings, classes, {"train": rest, "test": sorted(drawn)})


def linked(folder: Path, root: Path, name: str, force: bool) -> Path:
    """The name of `folder` within the data folder; a link is made there if it is elsewhere.

    Raises Refusal if the name of the link is taken.
    """
    if folder == root:
        raise Refusal(f"{folder} is the data folder itself: put the pictures into a folder in it.")
    if folder.is_relative_to(root) and "${" not in str(folder.relative_to(root)):
        return folder.relative_to(root)
    link = root / name
    if link.is_symlink() and (force or link.resolve() == folder.resolve()):
        link.unlink()
    if link.exists() or link.is_symlink():
        raise Refusal(
            f"{link} exists, so no link of this name to {folder} can be made: choose another "
            "--name, or move the pictures there."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder, target_is_directory=True)
    except OSError as error:  # a folder that cannot be written to; Windows without the right
        raise Refusal(
            f"a link to {folder} cannot be made in the data folder {root} ({error.strerror}): "
            "move the pictures there, or set DATA_DIR to the folder that they are in."
        ) from error
    return Path(name)


def statistics(path: Path, rows: list[int]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, over these images; black is 0, white is 1."""
    images = numpy.load(path, mmap_mode="r")
    total = numpy.zeros((2, images.shape[1]))
    for start in range(0, len(rows), BLOCK):
        values = images[rows[start : start + BLOCK]].astype(numpy.float64) / 255
        total += [values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))]
    mean, square = total / (len(rows) * images.shape[2] * images.shape[3])
    std = numpy.sqrt(numpy.maximum(square - mean**2, 0)).clip(1e-4)  # a folder of black pictures
    return [round(float(value), 4) for value in mean], [round(float(value), 4) for value in std]


def _yaml(
    args: argparse.Namespace,
    folder: Path,
    inside: Path,
    found: Found,
    channels: int,
    mean: list[float],
    std: list[float],
) -> str:
    size, drawn = args.image_size, "test" not in found.listings
    command = shlex.join(["python", "sources.py", *sys.argv[1:]])
    test = f"{args.test_size or TEST_SIZE:g}" if drawn else "null"
    about = "# of each class, drawn by test_seed" if drawn else "# all of test/"
    classes = [json.dumps(name, ensure_ascii=False) for name in found.classes]
    listed = f"[{', '.join(classes)}]"
    listed = listed if len(listed) < 90 else "".join(f"\n  - {name}" for name in classes)
    val = "val: {split: val}\n" if "val" in found.listings else ""
    patch = min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: abs(n - size / 8))
    return f"""\
# {len(found.classes)} classes of pictures in {folder}, as found by
# {command}
source:
  _target_: sources.PictureFolder
  folder: {json.dumps(inside.as_posix(), ensure_ascii=False)}   # in the data folder
  classes: ${{dataset.classes}}
  in_channels: ${{dataset.in_channels}}
  image_size: ${{dataset.image_size}}
  test_size: {test}   {about}
  test_seed: {args.seed}
train: {{split: train}}
test: {{split: test}}
{val}in_channels: {channels}
image_size: {size}
patch_size: {patch}
margin: null              # pictures are scaled and cropped, and not adapted in any other way
num_classes: {len(classes)}
classes: {listed}
mean: {mean}   # over the {len(found.rows["train"]):,} training images
std: {std}
shift: {size // 8}                  # pixels by which an image may be moved and keep its class
mirror: false             # true if a mirrored picture keeps its class, as an animal does
train_size: {len(found.rows["train"])}
"""


def _say(args: argparse.Namespace, folder: Path, found: Found, policy: str) -> None:
    parts = ", ".join(f"{len(rows)} for {part}ing" for part, rows in found.rows.items())
    parts = parts.replace("valing", "validation")
    print(f"{folder}: {len(found.classes)} classes; pictures: {parts}")
    count = numpy.bincount(
        [found.classes.index(found.listings["train"].classes[row]) for row in found.rows["train"]],
        minlength=len(found.classes),
    )
    pairs = zip(found.classes, count.tolist(), strict=True)
    print("training pictures: " + ", ".join(f"{name} {number}" for name, number in pairs))
    if count.min() * 3 < count.max():
        print("The classes are unbalanced: class_weights=balanced makes them count the same.")
    print(f"written: {target_of(args.name)}")
    command = f"python script.py dataset={args.name} model=cnn"
    if "val" not in found.listings and round(VAL_SIZE * len(found.rows["train"])) < 1:
        command += " val_size=0.5"
    print(f"Train on it with: {command}{' on_bad_image=skip' if policy == 'skip' else ''}")
