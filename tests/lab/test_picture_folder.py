import os

import pytest
from PIL import Image

from lab import picture_folder
from lab.errors import Refusal
from lab.picture_folder import drawn_for_test, has_parts, labels_of, listed, part_of, within


def write(folder, *names: str, color: str = "red") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), color).save(folder / name)


def test_pictures_are_listed_by_class_and_name(tmp_path):
    write(tmp_path, "b/2.png", "b/10.JPG", "a/deep/er/1.png", "a/ünï cödé.png")
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "a/.hidden.png").touch()
    (tmp_path / ".cache").mkdir()
    write(tmp_path, ".cache/1.png", "loose.png")
    (tmp_path / "empty").mkdir()
    listing = listed(tmp_path)
    assert listing.names == ["a/deep/er/1.png", "a/ünï cödé.png", "b/10.JPG", "b/2.png"]
    assert listing.classes == ["a", "a", "b", "b"]
    assert all(os.path.isfile(path) for path in listing.paths)
    assert labels_of(listing, ["a", "b"]).tolist() == [0, 0, 1, 1]
    with pytest.raises(Refusal, match=r"b has pictures, but 'b' is not in dataset.classes"):
        labels_of(listing, ["a", "c"])


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere", "1.png")
    write(tmp_path / "root", "a/2.png")
    (tmp_path / "root/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/loop").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/a/above").symlink_to(tmp_path / "root")
    (tmp_path / "root/a/broken.png").symlink_to(tmp_path / "nothing")
    listing = listed(tmp_path / "root")
    assert listing.names == ["a/2.png", "a/broken.png", "b/1.png"]  # the second is a bad picture
    (tmp_path / "elsewhere/1.png").rename(tmp_path / "nothing")
    assert listed(tmp_path / "root").fingerprint() != listing.fingerprint()


@pytest.mark.parametrize("change", ["add", "remove", "rename", "size", "time"])
def test_any_change_of_the_files_is_noticed(tmp_path, change):
    write(tmp_path, "a/1.png", "a/2.png", "b/3.png")
    before = listed(tmp_path).fingerprint()
    assert listed(tmp_path).fingerprint() == before
    path = tmp_path / "a/1.png"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    if change == "add":
        write(tmp_path, "b/4.png")
    elif change == "remove":
        path.unlink()
    elif change == "rename":
        path.rename(tmp_path / "a/0.png")
    elif change == "size":
        path.write_bytes(path.read_bytes() + b" ")
        os.utime(path, ns=times)
    else:
        os.utime(path, ns=(times[0], times[1] + 1000))
    assert listed(tmp_path).fingerprint() != before


def test_train_is_a_part_only_if_it_has_classes(tmp_path):
    write(tmp_path / "vehicles", "train/1.png", "test/2.png", "car/3.png")  # a class of that name
    write(tmp_path / "parts", "train/a/1.png")
    assert not has_parts(tmp_path / "vehicles") and has_parts(tmp_path / "parts")
    assert set(part_of(tmp_path / "vehicles", "train", None, 0)[0].classes) == {
        "car", "test", "train"
    }  # fmt: skip


def names_of(folder, split: str, size: float | None, seed: int = 0) -> set[str]:
    listing, rows = part_of(folder, split, size, seed)
    return {listing.names[row] for row in rows}


@pytest.mark.parametrize("below", ["", "train/"])
def test_a_share_of_each_class_is_drawn_for_testing(tmp_path, below):
    write(tmp_path, *(f"{below}a/{i}.png" for i in range(40)))
    write(tmp_path, *(f"{below}b/{i}.png" for i in range(3)), f"{below}c/0.png")
    train, test = (names_of(tmp_path, part, 0.25) for part in ("train", "test"))
    assert not train & test and len(train | test) == 44
    assert sum(name[0] == "a" for name in test) == 10
    assert sum(name[0] == "b" for name in test) == 1
    assert "c/0.png" in train  # the only one of its class
    assert names_of(tmp_path, "test", 0.25, seed=1) != test == names_of(tmp_path, "test", 0.25)


def test_a_picture_that_is_added_moves_one_other_at_most(tmp_path):
    write(tmp_path, *(f"a/{i}.png" for i in range(40)), "b/0.png", "b/1.png")
    before = drawn_for_test(listed(tmp_path), 0.2, 0)
    names = {listed(tmp_path).names[row] for row in before}
    for number in range(100, 105):
        write(tmp_path, f"a/{number}.png")
        now = {listed(tmp_path).names[row] for row in drawn_for_test(listed(tmp_path), 0.2, 0)}
        assert len(names - now) <= 1
        names = now


def test_parts_that_are_there_are_used_whole(tmp_path):
    write(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "val/b/4.png")
    assert names_of(tmp_path, "train", None) == {"a/1.png", "b/2.png"}
    assert names_of(tmp_path, "test", None) == {"a/3.png"}
    assert names_of(tmp_path, "val", None) == {"b/4.png"}
    (tmp_path / "val/b/4.png").unlink()
    (tmp_path / "val/b").rmdir()
    (tmp_path / "val").rmdir()
    with pytest.raises(Refusal, match=r"val is not a folder: set dataset.val=null"):
        part_of(tmp_path, "val", None, 0)


@pytest.mark.parametrize("name", ["/etc", "../a", "a/../../b", "", "."])
def test_a_folder_outside_the_data_folder_is_refused(tmp_path, name):
    (tmp_path / "data").mkdir()
    with pytest.raises(Refusal, match=r"not a folder within the data folder"):
        within(tmp_path / "data", name)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"pets is not a folder: put the pictures there, or set data"):
        within(tmp_path, "pets")


def test_suffixes_are_those_that_pillow_reads():
    Image.init()
    readable = {suffix for suffix, kind in Image.EXTENSION.items() if kind in Image.OPEN}
    assert set(picture_folder.SUFFIXES) <= readable
    assert picture_folder.is_picture("A.JPEG") and not picture_folder.is_picture("jpg")
