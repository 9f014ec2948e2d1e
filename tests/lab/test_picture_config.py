import shutil
import subprocess
import sys

import numpy
import pytest
import torch
from conftest import PROJECT
from hydra import compose, initialize_config_dir
from PIL import Image
from test_picture_folder import write

import sources
from lab import picture_config, schema
from lab.build import locate
from lab.errors import Refusal


@pytest.fixture
def describe(tmp_path, monkeypatch):
    """`python sources.py ARGUMENTS` in this process, for a project in `tmp_path`."""
    shutil.copytree(PROJECT / "config", tmp_path / "config")
    monkeypatch.setattr(picture_config, "PROJECT", tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(sources, "_loaded", {})
    monkeypatch.setattr("lab.arrays.mixed", torch.arange)  # the order of the files
    return lambda *arguments: picture_config.main(list(map(str, arguments)), "")


def loaded(tmp_path, name: str, *overrides: str):
    """The composed config of the dataset, checked, and its images."""
    with initialize_config_dir(str(tmp_path / "config"), version_base="1.3"):
        cfg = compose("config", overrides=[f"dataset={name}", "name=x", *overrides])
    schema.check(cfg)
    source = locate(cfg, "dataset.source")
    return cfg.dataset, sources.load(source, tmp_path / "data", cfg.dataset, cfg.on_bad_image)


def gradient(shade: int) -> Image.Image:
    pixels = numpy.full((12, 16, 3), shade, dtype=numpy.uint8)
    pixels[:6] //= 2
    return Image.fromarray(pixels)


@pytest.fixture
def pets(tmp_path):
    """Pictures in train/, test/ and val/, outside the data folder."""
    for part, count in (("train", 6), ("test", 2), ("val", 3)):
        for number, name in enumerate(("cat", "no", "1e3", "ünï {$x} 'q'")):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                gradient(40 * number + index).save(folder / f"{index}.png")
    return tmp_path / "pets"


def test_a_folder_in_parts_becomes_a_dataset(describe, pets, tmp_path, capsys):
    describe(pets, "--name", "pets", "--image-size", 12)
    facts, (train, test, found) = loaded(tmp_path, "pets")
    assert list(facts.classes) == ["1e3", "cat", "no", "ünï {$x} 'q'"]  # no YAML number, no false
    assert (len(train), len(test), len(train.val)) == (24, 8, 12)
    train, test, val = (part.to("cpu") for part in (train, test, train.val))
    assert train.images.shape[1:] == (3, 12, 12) and facts.train_size == 24
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert test.images[:, 0, -1, 0].tolist() == [80, 81, 0, 1, 40, 41, 120, 121]
    assert val.images[:3, 0, -1, 0].tolist() == [80, 81, 82]
    pixels = train.images.double() / 255
    assert list(facts.mean) == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert list(facts.std) == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-4)
    assert set(found) == {"data_sha256"}
    said = capsys.readouterr().out
    assert "4 classes; pictures: 24 for training, 8 for testing, 12 for validation" in said
    assert said.endswith("Train on it with: python script.py dataset=pets model=cnn\n")
    assert (tmp_path / "data/pets").is_symlink()


@pytest.mark.slow
def test_the_test_pictures_are_drawn_and_recorded(describe, tmp_path, capsys):
    write(tmp_path / "data/zoo", *(f"a/{i}.jpg" for i in range(30)), color="red")
    write(tmp_path / "data/zoo", *(f"b/{i}.jpg" for i in range(9)), color="blue")
    options = ("--name", "zoo", "--image-size", 10, "--grey", "--test-size", 0.3, "--seed", 4)
    describe(tmp_path / "data/zoo", *options)
    facts, (train, test, _) = loaded(tmp_path, "zoo")
    assert facts.source.folder == "zoo" and not (tmp_path / "data/zoo").is_symlink()
    assert (facts.source.test_size, facts.source.test_seed, facts.in_channels) == (0.3, 4, 1)
    assert len(train) == 27 and test.labels.bincount().tolist() == [9, 3]
    assert not set(train.images.rows.tolist()) & set(test.images.rows.tolist())
    assert "The classes are unbalanced: class_weights=balanced" in capsys.readouterr().out
    other = loaded(tmp_path, "zoo", "dataset.source.test_seed=5")[1]
    assert other[2] != loaded(tmp_path, "zoo")[1][2]  # another hash of the data


@pytest.mark.slow
def test_a_limit_shows_pictures_of_all_classes(describe, pets, tmp_path, monkeypatch):
    describe(pets, "--name", "pets", "--image-size", 12)
    ordered = loaded(tmp_path, "pets")[1]
    monkeypatch.undo()
    monkeypatch.setattr(sources, "_loaded", {})
    train, test, _ = loaded(tmp_path, "pets")[1]
    assert len(train[:12].labels.unique()) == 4 and len(test[:6].labels.unique()) > 2
    for part, same in ((train, ordered[0]), (test, ordered[1])):
        rows, others = part.images.rows, same.images.rows
        assert torch.equal(rows.sort().values, others) and not torch.equal(rows, others)
        assert torch.equal(part.labels[rows.argsort()], same.labels)


def test_two_pictures_of_each_class_are_enough(describe, tmp_path, capsys):
    write(tmp_path / "tiny", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    describe(tmp_path / "tiny", "--name", "tiny", "--image-size", 8)
    assert "model=cnn val_size=0.5\n" in capsys.readouterr().out
    _, (train, test, _) = loaded(tmp_path, "tiny", "val_size=0.5")
    assert len(train) == len(test) == 2


def test_pictures_that_cannot_be_decoded_are_left_out_if_asked(describe, pets, tmp_path, capsys):
    for part in ("train", "test", "val"):
        (pets / part / "cat/0.png").write_text("no picture")
    arguments = (pets, "--name", "pets", "--image-size", 12)
    with pytest.raises(Refusal, match=r"1 of 24 pictures in .*cat/0.png \(it is not a picture\)"):
        describe(*arguments)
    assert not (tmp_path / "config/dataset/pets.yaml").exists()
    describe(*arguments, "--skip")
    assert "dataset=pets model=cnn on_bad_image=skip\n" in capsys.readouterr().out
    with pytest.raises(sources.DataError, match=r"cat/0.png .*on_bad_image=skip"):
        loaded(tmp_path, "pets")
    facts, (train, test, found) = loaded(tmp_path, "pets", "on_bad_image=skip")
    assert (len(train), len(test), len(train.val), facts.train_size) == (23, 7, 11, 23)
    assert found["skipped_images"] == 3
    assert test.labels.tolist() == [0, 0, 1, 2, 2, 3, 3]


@pytest.mark.slow
def test_an_existing_file_is_replaced_only_by_force(describe, pets, tmp_path):
    with pytest.raises(Refusal, match=r"mnist.yaml exists: choose another --name, or replace"):
        describe(pets, "--name", "mnist")
    describe(pets, "--name", "mine", "--image-size", 8)
    describe(pets, "--name", "mine", "--image-size", 12, "--force")
    assert loaded(tmp_path, "mine")[0].image_size == 12


@pytest.mark.slow
def test_folders_that_have_changed_are_noticed(describe, pets, tmp_path, monkeypatch):
    describe(pets, "--name", "pets", "--image-size", 12)
    before = loaded(tmp_path, "pets")[1]
    gradient(200).save(pets / "train/cat/new.png")
    monkeypatch.setattr(sources, "_loaded", {})  # as in another process
    train, _, found = loaded(tmp_path, "pets")[1]
    assert len(train) == 25 and found != before[2]
    write(pets, "train/owl/1.png")
    monkeypatch.setattr(sources, "_loaded", {})
    with pytest.raises(
        sources.DataError, match=r"owl has pictures, but 'owl' is not in dataset.cl"
    ):
        loaded(tmp_path, "pets")


LAYOUTS = [  # the pictures, further options, what is said
    ([], [], "is not a folder: give the folder of your pictures"),
    (["1.png", "2.png"], [], r"no pictures in folders \(2 pictures are in no folder\).*cat/1.jpg"),
    (["a/1.png", "a/2.png"], [], "has one class, a, but a classifier needs two"),
    (["a/1.png", "b/1.png"], [], "has one picture of each class: none can be taken for testing"),
    (["train/a/1.png", "train/b/1.png", "test/c/1.png"], [], "test/c has pictures, but .*train/c"),
    (["train/a/1.png", "train/b/1.png", "test/a.png"], [], "test has no pictures: add some, or"),
    (["train/a/1.png", "train/b/1.png", "test/a/1.png"], ["--test-size", "0.5"], "leave --test-s"),
    (["a/1.png"], ["--test-size", "1"], "--test-size 1 is not allowed: give a share"),
    (["a/1.png"], ["--image-size", "0"], "--image-size 0 is not allowed"),
    (["a/1.png"], ["--name", "../x"], r"--name \.\./x is not allowed: use letters"),
    (["a/1.png", "${b}/1.png"], [], r"'\$\{b\}' has a name that YAML cannot hold"),
    (["a\n/1.png", "b/1.png"], [], "has a name that YAML cannot hold: rename it"),
]


@pytest.mark.parametrize(("names", "options", "said"), LAYOUTS, ids=str)
def test_other_layouts_and_options_are_refused(describe, tmp_path, names, options, said):
    write(tmp_path / "pictures", *names)
    with pytest.raises(Refusal, match=said):
        describe(tmp_path / "pictures", "--name", "pictures", *options)
    assert not (tmp_path / "data").exists()  # nothing was linked or decoded
    assert not (tmp_path / "config/dataset/pictures.yaml").exists()


def test_a_class_without_pictures_is_none(describe, tmp_path):
    write(tmp_path / "zoo", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    (tmp_path / "zoo/c").mkdir()
    describe(tmp_path / "zoo", "--name", "zoo", "--image-size", 8)
    assert list(loaded(tmp_path, "zoo", "val_size=0.5")[0].classes) == ["a", "b"]


def test_the_name_of_a_link_may_be_taken(describe, pets, tmp_path):
    write(tmp_path / "data/pets", "other.png")
    with pytest.raises(Refusal, match=r"data/pets exists, so no link .* choose another --name"):
        describe(pets, "--name", "pets")
    with pytest.raises(Refusal, match=r"data is the data folder itself"):
        write(tmp_path / "data", "a/1.png", "a/2.png", "b/1.png", "b/2.png")
        describe(tmp_path / "data", "--name", "whole")


@pytest.mark.slow
def test_the_command_and_a_run(tmp_path, pets):
    """The real commands, in a copy of the project, which the first writes to."""
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__", "*.png", ".git")
    project.mkdir()
    for name in ("lab", "sweeps", "hydra_plugins", "config"):
        shutil.copytree(PROJECT / name, project / name, ignore=ignored)
    for path in PROJECT.glob("*.py"):
        shutil.copy(path, project)

    def run(script: str, *arguments: str) -> str:
        command = [sys.executable, str(project / script), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("sources.py", str(pets), "--name", "pets", "--image-size", "12")
    options = said.strip().rpartition("script.py ")[2].replace("model=cnn", "model=linear").split()
    small = ("epochs=2", "batch_size=8", "hydra.run.dir=run")
    assert "24 training images, 1e3: 6, cat: 6, no: 6, ünï" in run("script.py", *options, *small)
    tested = run("evaluate.py", "run=run")
    assert "on 8 images\nthe run recorded" in tested
    picture = pets / "test/no/0.png"
    assert f"{picture}: " in run("evaluate.py", "run=run", f"images=[{picture}]")
