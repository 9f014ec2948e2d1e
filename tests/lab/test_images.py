import threading

import numpy
import pytest
import torch

from lab import images, memory
from lab.errors import Refusal
from lab.images import ImageFile, ImageSet, OnDisk


@pytest.fixture
def stored(tmp_path):
    """Fifty random images in memory, and the same on the disk."""
    pixels = numpy.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=numpy.uint8)
    numpy.save(tmp_path / "images.npy", pixels)
    on_disk = OnDisk(ImageFile(tmp_path / "images.npy", "hash"), torch.arange(50))
    labels = torch.arange(50) % 3
    return tuple(
        ImageSet(where, labels, (0.5,) * 3, (0.2,) * 3)
        for where in (torch.from_numpy(pixels), on_disk)
    )


INDICES = [
    slice(3, 40), torch.tensor([7]), torch.tensor([], dtype=torch.long), torch.arange(49, -1, -1),
    torch.tensor([3, 3, 4, 5, 3, 49, 0]), torch.arange(50) % 4 == 1,
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("buffers", [1, 2, 512])
def test_any_index_gives_the_same_images_from_memory_and_disk(stored, monkeypatch, index, buffers):
    monkeypatch.setattr(images, "MOST_BUFFERS", buffers)
    in_memory, on_disk = (part[index] for part in stored)
    assert isinstance(on_disk.images, OnDisk) and len(on_disk) == len(in_memory)
    assert on_disk.images.shape == in_memory.images.shape
    assert torch.equal(on_disk.images.read(), in_memory.images)
    assert torch.equal(on_disk.normalised(), in_memory.normalised())
    assert torch.equal(on_disk.labels, in_memory.labels)


def test_images_are_read_where_scattered_reads_do_not_exist(stored, monkeypatch):
    monkeypatch.delattr(images.os, "preadv")  # Windows
    order = torch.randperm(50)
    assert torch.equal(stored[1][order].images.read(), stored[0].images[order])


def test_a_subset_of_a_subset_has_the_right_images(stored):
    first, second = torch.randperm(50)[:20], torch.tensor([19, 0, 3])
    in_memory, on_disk = (part[first][second][1:] for part in stored)
    assert torch.equal(on_disk.images.read(), in_memory.images)


@pytest.mark.parametrize(("free", "kind"), [(4799, OnDisk), (4800, torch.Tensor)])
def test_images_stay_on_the_disk_if_they_need_more_than_half_of_the_free_memory(
    stored, monkeypatch, free, kind
):
    monkeypatch.setattr(images, "free_memory", lambda device: free)  # they have 2,400 bytes
    moved = stored[1].to("cpu")
    assert isinstance(moved.images, kind)
    assert torch.equal(moved[:5].normalised(), stored[0][:5].normalised())


@pytest.mark.parametrize("count", [0, 1, 3, 30])
def test_batches_are_the_same_and_are_read_ahead_by_a_thread(stored, monkeypatch, count):
    readers, order = set(), torch.randperm(50)
    monkeypatch.setattr(images, "free_memory", lambda device: 0)
    read = OnDisk.read

    def noted(self):
        readers.add(threading.current_thread())
        return read(self)

    monkeypatch.setattr(OnDisk, "read", noted)
    parts = [order[5 * i % 50 :][:5] for i in range(count)]
    expected, found = (list(part.batches(parts)) for part in stored)
    assert len(found) == count
    for (pixels, labels), (same, too) in zip(expected, found, strict=True):
        assert torch.equal(pixels, same) and torch.equal(labels, too)
    assert threading.main_thread() not in readers and len(readers) == min(count, 1)


def test_the_reading_thread_ends_with_a_loop_that_is_left(stored):
    before = threading.active_count()
    batches = stored[1].batches([torch.arange(5)] * 100)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_an_error_of_reading_reaches_the_loop(stored, tmp_path):
    with (tmp_path / "images.npy").open("r+b") as file:
        file.truncate(1500)
    with pytest.raises(Refusal, match=r"images.npy is damaged, since it is too short: delete it"):
        list(stored[1].batches([torch.arange(5), torch.arange(45, 50)]))


def test_a_file_that_is_replaced_can_still_be_read(stored, tmp_path):
    (tmp_path / "images.npy").unlink()
    assert torch.equal(stored[1].images.read(), stored[0].images)


def test_repeated_images_follow_one_another_whole(stored):
    assert stored[0].repeated(1) is stored[0]
    for part in stored:
        assert torch.equal(part.repeated(3).labels, torch.cat([part.labels] * 3))


def test_the_counts_of_classes_are_listed_or_summarised(stored):
    said = stored[0].counts(["cat", "50 % dog", "owl", "none"])
    assert said == "50 training images, cat: 17, 50 % dog: 17, owl: 16, none: 0"
    many = stored[0].counts([f"c{i}" for i in range(20)])
    assert many == "50 training images, 20 classes of 0 (c3) to 17 (c1)"


def write_group(folder, limit: str, used: int, inactive: int):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nslab 3\n")


def test_the_limits_of_all_groups_around_the_process_count(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    membership = tmp_path / "membership"
    membership.write_text("0::/slurm/job_7\n")
    write_group(tmp_path / "cgroup/slurm/job_7", "1000", 700, 100)
    write_group(tmp_path / "cgroup/slurm", "max", 0, 0)
    assert min(memory._left_in_groups(membership)) == 400
    write_group(tmp_path / "cgroup", "5000", 4900, 0)  # a container around all
    assert min(memory._left_in_groups(membership)) == 100
    assert memory._left_in_groups(tmp_path / "none") == [2**62]


def test_the_limit_of_the_older_kind_of_groups_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    (tmp_path / "membership").write_text("7:cpu:/a\n6:memory,x:/docker/1\n0::/\n")
    group = tmp_path / "memory/docker/1"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000")
    (group / "memory.usage_in_bytes").write_text("300")
    assert min(memory._left_in_groups(tmp_path / "membership")) == 700


def test_free_memory_is_that_of_the_machine():
    assert 0 < memory.free_memory() < 2**50
