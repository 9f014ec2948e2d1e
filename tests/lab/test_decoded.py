import errno
import os
import subprocess
import sys
import threading
import time

import filelock
import numpy
import pytest
from conftest import PROJECT
from test_picture_folder import write

from lab import decoded
from lab.errors import Refusal
from lab.picture_folder import decoded_from, listed


@pytest.fixture
def pets(tmp_path):
    write(tmp_path / "pets", "cat/1.png", "cat/2.png", color="red")
    write(tmp_path / "pets", "dog/1.png", color="blue")
    return tmp_path / "pets"


def images_of(folder, size=4):
    found = decoded_from(listed(folder), folder.parent, 3, size)
    return found, numpy.load(found.path)


def test_pictures_are_decoded_once_and_again_when_they_change(pets, monkeypatch):
    found, images = images_of(pets)
    assert images.shape == (3, 3, 4, 4) and images.dtype == numpy.uint8
    assert images[:, :, 0, 0].tolist() == [[255, 0, 0], [255, 0, 0], [0, 0, 255]]
    assert found.path.is_relative_to(pets.parent / "decoded/pets/3x4") and not found.bad
    with monkeypatch.context() as patch:
        patch.setattr(decoded, "_make", None)  # making them again would call it
        assert images_of(pets)[0] == found
    write(pets, "cat/2.png", color="lime")
    os.utime(pets / "cat/2.png", ns=(1, 1))
    changed, images = images_of(pets)
    assert images[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert changed.sha256 != found.sha256 and not found.path.exists()
    kept = sorted(path.name for path in found.path.parent.iterdir() if path.name != ".lock")
    assert kept == [changed.path.name, "index.json"]  # the older file is gone


def test_sizes_and_channels_have_files_of_their_own(pets):
    first = images_of(pets)[0].path
    assert images_of(pets, 5)[0].path != first
    decoded_from(listed(pets), pets.parent, 1, 4)
    assert first.exists() and images_of(pets)[0].path == first


RARE = ("no index", "half an index", "other index")
RARE = [pytest.param(name, marks=pytest.mark.slow) for name in RARE]


@pytest.mark.parametrize("damage", ["cut", "gone", *RARE])
def test_damaged_files_are_made_again(pets, damage):
    found, images = images_of(pets)
    index = found.path.with_name("index.json")
    if damage == "cut":
        os.truncate(found.path, 100)
    elif damage == "gone":
        found.path.unlink()
    elif damage == "no index":
        index.unlink()
    else:
        index.write_text(index.read_text()[:40] if damage == "half an index" else "{}")
    again, same = images_of(pets)
    assert again == found and (images == same).all()


def test_many_pictures_are_put_in_their_rows_by_several_processes(tmp_path, monkeypatch):
    colors = {}
    for number in range(23):
        colors[f"c{number % 3}/{number:02}.png"] = (number * 10, 0, 255 - number)
        write(tmp_path / "many", f"c{number % 3}/{number:02}.png", color=colors.popitem()[1])
    listing = listed(tmp_path / "many")
    numbers = [int(name.partition("/")[2][:2]) for name in listing.names]
    hashes = set()
    for workers in (1, 3):
        monkeypatch.setattr(decoded, "CHUNK", 4)
        monkeypatch.setattr(decoded, "cores", lambda workers=workers: workers)
        monkeypatch.setattr(decoded, "_found", lambda *_: None)
        found, images = images_of(tmp_path / "many")
        assert images[:, 0, 0, 0].tolist() == [number * 10 for number in numbers]
        assert images[:, 2, 3, 3].tolist() == [255 - number for number in numbers]
        hashes.add(found.sha256)
    assert len(hashes) == 1


def test_what_cannot_be_decoded_is_found_and_named(pets, caplog, monkeypatch):
    monkeypatch.setattr(decoded, "CHUNK", 2)
    for number in range(7):
        (pets / f"cat/bad{number}.png").write_text("no picture")
    found, images = images_of(pets)
    names = listed(pets).names
    assert sorted(names[row] for row in found.bad) == [f"cat/bad{i}.png" for i in range(7)]
    assert not images[list(found.bad)].any() and images.any((1, 2, 3)).sum() == 3
    with pytest.raises(Refusal) as refused:
        decoded.check_bad(names, found.bad, pets, "refuse")
    message = str(refused.value)
    assert message.startswith(f"7 of 10 pictures in {pets} cannot be decoded: cat/bad0.png (it is")
    assert "cat/bad4.png" in message and "cat/bad5.png" not in message and "and 2 more" in message
    assert message.endswith("or leave them out with on_bad_image=skip.")
    decoded.check_bad(names, found.bad, pets, "skip")
    assert "They are left out." in caplog.text
    assert images_of(pets)[0].bad == found.bad  # also when they are read from the index


RUN = """
import sys
from pathlib import Path
from lab.picture_folder import decoded_from, listed
from lab import decoded
decoded.CHUNK = 4
make, folder = decoded._make, Path(sys.argv[1])
def noted(*arguments):
    print("made", flush=True)
    return make(*arguments)
decoded._make = noted
print(decoded_from(listed(folder), folder.parent, 3, 8).sha256)
"""


def start(folder) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
def test_of_two_processes_one_decodes_and_both_get_the_same(tmp_path):
    write(tmp_path / "pets", *(f"c{i % 2}/{i}.png" for i in range(40)))
    outputs = [p.communicate()[0].split() for p in [start(tmp_path / "pets") for _ in range(2)]]
    assert sum(output.count("made") for output in outputs) == 1
    assert outputs[0][-1] == outputs[1][-1]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_half_and_no_other_process(tmp_path):
    folder = tmp_path / "pets"
    write(folder, *(f"c{i % 2}/{i}.png" for i in range(12)))
    write(folder, "c0/0.png")
    os.mkfifo(folder / "c1/stop.png")  # a process that opens it waits
    process = start(folder)
    assert process.stdout.readline() == "made\n"
    writer = os.open(folder / "c1/stop.png", os.O_WRONLY)  # as soon as one does
    place, children = tmp_path / "decoded/pets/3x8", _children(process.pid)
    process.kill()
    process.wait()
    assert children and not list(place.glob("*.npy")) and not (place / "index.json").exists()
    os.close(writer)
    deadline = time.monotonic() + 60
    while any(map(_is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_is_alive, children))
    (folder / "c1/stop.png").unlink()
    found, images = images_of(folder, 8)
    assert len(images) == 12 and not list(place.glob("*.partial")) and not found.bad


def _children(pid: int) -> list[int]:
    path = f"/proc/{pid}/task/{pid}/children"
    return [int(child) for child in open(path).read().split()] if os.path.exists(path) else []


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in open(f"/proc/{pid}/stat").read()
    except OSError:
        return False


def test_a_worker_that_is_killed_is_reported(pets, monkeypatch):
    monkeypatch.setattr(decoded.sys, "executable", "/bin/false")
    with pytest.raises(Refusal, match=r"that decodes pictures has ended \(exit code 1"):
        images_of(pets)
    assert not list((pets.parent / "decoded/pets/3x4").glob("*.[pn]*"))


def test_a_folder_that_cannot_be_written_to_is_left_alone(pets, monkeypatch, caplog):
    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(decoded.Path, "mkdir", refuse)  # chmod would not stop root
    found, images = images_of(pets)
    assert len(images) == 3 and "cannot be written to" in caplog.text
    assert not (pets.parent / "decoded").exists()
    assert not found.path.is_relative_to(pets.parent)


def test_too_little_space_is_found_before_anything_is_decoded(pets, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decoded.os, "posix_fallocate", full)
    monkeypatch.setattr(decoded, "_workers", None)
    with pytest.raises(OSError, match=r"GB, cannot be written to .*\(No space left.*: free some"):
        images_of(pets)
    assert not list((pets.parent / "decoded/pets/3x4").glob("*.[pn]*"))


@pytest.mark.slow
def test_a_process_waits_for_another_one_that_decodes(pets, caplog, monkeypatch):
    caplog.set_level("INFO")
    place = pets.parent / "decoded/pets/3x4"
    place.mkdir(parents=True)
    with filelock.FileLock(place / ".lock"):
        waiting = threading.Thread(target=images_of, args=[pets])
        waiting.start()
        deadline = time.monotonic() + 30
        while "waiting for another process" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
        assert waiting.is_alive() and not (place / "index.json").exists()
    waiting.join(60)
    assert (place / "index.json").exists()
