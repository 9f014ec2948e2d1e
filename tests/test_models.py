import pytest
import torch

import models

FACTS = {"in_channels": 3, "image_size": 12, "num_classes": 7}
FCNN = {"widths": [4, 8], "depths": [1, 2], "kernel_sizes": [5, 3], "padding": "same"}
VIT = {
    "patch_size": 4,
    "dim": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 2,
    "pooling": "mean",
    "dropout": 0.0,
}


def all_models():
    return [
        models.Linear(**FACTS),
        models.MLP(**FACTS, hidden_sizes=[8, 9], dropout=0.1),
        models.FCNN(**FACTS, **FCNN),
        models.FCNN(**FACTS, **FCNN | {"padding": "valid"}),
        models.FCNN(**FACTS, **FCNN | {"pooling": "mean_max"}),
        models.ViT(**FACTS, **VIT),
        models.ViT(**FACTS, **VIT | {"pooling": "cls"}),
    ]


@pytest.mark.parametrize("model", all_models(), ids=lambda model: type(model).__name__)
def test_logits_have_one_column_per_class_and_every_weight_gets_a_gradient(model):
    logits = model(torch.randn(5, 3, 12, 12))
    assert logits.shape == (5, 7)
    logits.square().sum().backward()
    assert all(weights.grad is not None for weights in model.parameters())


@pytest.mark.parametrize("size", [1, 5, 8, 28, 33])
def test_fcnn_accepts_any_image_size(size):
    model = models.FCNN(**FACTS, **FCNN).eval()
    assert model(torch.randn(2, 3, size, size + 1)).shape == (2, 7)


@pytest.mark.parametrize("kernel_sizes", [[5, 3], [4, 2]])
def test_a_stage_halves_the_image_for_any_kernel_size(kernel_sizes):
    model = models.FCNN(**FACTS, **FCNN | {"kernel_sizes": kernel_sizes}).eval()
    assert model.blocks(torch.randn(2, 3, 12, 12)).shape == (2, 8, 3, 3)


def test_fcnn_without_padding_refuses_images_smaller_than_its_kernels():
    valid = {"padding": "valid", "depths": [1, 1]}
    model = models.FCNN(**FACTS | {"image_size": 9}, **FCNN | valid).eval()
    assert model.blocks(torch.randn(2, 3, 9, 9)).shape == (2, 8, 1, 1)
    message = r"kernel_sizes=\[5, 3\] leaves 2 × 2 of image_size=8 to a kernel of 3: use fewer"
    with pytest.raises(ValueError, match=message):
        models.FCNN(**FACTS | {"image_size": 8}, **FCNN | valid)


def test_fcnn_with_an_even_kernel_refuses_images_that_are_too_small():
    even = {"kernel_sizes": [5, 2]}
    model = models.FCNN(**FACTS | {"image_size": 3}, **FCNN | even).eval()
    assert model.blocks(torch.randn(2, 3, 3, 3)).shape == (2, 8, 1, 1)
    message = r"kernel_sizes=\[5, 2\] leaves 1 × 1 of image_size=2 to a kernel of 2: use fewer"
    with pytest.raises(ValueError, match=message):
        models.FCNN(**FACTS | {"image_size": 2}, **FCNN | even)


@pytest.mark.parametrize("size", [12, 15])
def test_fcnn_may_classify_by_the_mean_and_the_maximum_of_each_channel(size):
    model = models.FCNN(**FACTS, **FCNN | {"pooling": "mean_max"}).eval()
    images = torch.randn(5, 3, size, size)
    pixels = model.blocks(images).flatten(2)
    assert torch.allclose(
        model(images), model.head(torch.cat([pixels.mean(2), pixels.max(2).values], 1)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": "full"}, "padding='full' is unknown: use 'same' or 'valid'"),
        ({"pooling": "max"}, "pooling='max' is unknown: use 'mean' or 'mean_max'"),
    ],
)
def test_fcnn_refuses_an_unknown_padding_or_pooling(change, message):
    with pytest.raises(ValueError, match=message):
        models.FCNN(**FACTS, **FCNN | change)


def test_fcnn_has_no_pooling_layer_and_no_hidden_linear_layer():
    layers = list(models.FCNN(**FACTS, **FCNN).modules())
    assert not [layer for layer in layers if "Pool" in type(layer).__name__]
    assert sum(isinstance(layer, torch.nn.Linear) for layer in layers) == 1


def test_vit_splits_the_image_into_patches():
    model = models.ViT(**FACTS, **VIT)
    images = torch.randn(2, 3, 12, 12)
    patches = model._patches(images)
    assert patches.shape == (2, 9, 48)
    # The sixth patch: second row, third column.
    assert torch.equal(patches[:, 5], images[:, :, 4:8, 8:12].flatten(1))


def test_vit_depends_on_the_positions_of_patches():
    model = models.ViT(**FACTS, **VIT).eval()
    images = torch.randn(1, 3, 12, 12)
    assert not torch.allclose(model(images), model(images.flip(2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 5}, "patch_size=5 does not divide image_size=12: use one of .*4, 6, 12"),
        ({"num_heads": 3}, "num_heads=3 does not divide dim=16: use one of .*2, 4, 8"),
        ({"dim": 0}, "dim=0"),
        ({"depth": -1}, "depth=-1"),
        ({"pooling": "max"}, "pooling='max' is unknown: use 'mean' or 'cls'"),
        ({"dropout": 1.5}, "dropout=1.5"),
    ],
)
def test_vit_refuses_invalid_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        models.ViT(**FACTS, **VIT | change)


@pytest.mark.parametrize("widths", [[0, 8], [8, -1], [1.5]])
def test_fcnn_and_mlp_refuse_invalid_widths(widths):
    with pytest.raises(ValueError, match="at least 1"):
        models.FCNN(**FACTS, **FCNN | {"widths": widths})
    with pytest.raises(ValueError, match="at least 1"):
        models.MLP(**FACTS, hidden_sizes=widths, dropout=0.0)


@pytest.mark.parametrize("change", [{"widths": [4]}, {"depths": [2]}, {"kernel_sizes": [3, 3, 3]}])
def test_fcnn_requires_one_entry_per_stage(change):
    with pytest.raises(ValueError, match="one entry per stage"):
        models.FCNN(**FACTS, **FCNN | change)
