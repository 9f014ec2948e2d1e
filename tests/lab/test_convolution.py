import pytest
import torch
from torch import nn

from lab.convolution import Conv2d


def pair(**options) -> tuple[Conv2d, nn.Conv2d]:
    ours, torchs = (kind(4, 6, 5, **options) for kind in (Conv2d, nn.Conv2d))
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def answer_and_gradients(conv: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    images = images.clone().to(memory_format=torch.channels_last).requires_grad_()
    answer = conv(images)
    gradients = torch.autograd.grad(answer.square().sum(), [images, *conv.parameters()])
    return [answer, *gradients]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"stride": 2}])
def test_a_kernel_of_the_size_of_the_image_is_a_matrix_product_of_the_same_value(
    options, monkeypatch
):
    ours, torchs = pair(**options)
    images = torch.randn(3, 4, 5, 5)
    expected = answer_and_gradients(torchs, images)
    monkeypatch.setattr(nn.Conv2d, "forward", None)  # is not called
    for found, wanted in zip(answer_and_gradients(ours, images), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("size", "options"), [(6, {}), (5, {"padding": 1}), (7, {"stride": 2})])
def test_other_sizes_are_left_to_torch(size, options):
    ours, torchs = pair(**options)
    images = torch.randn(3, 4, size, size)
    for found, wanted in zip(
        answer_and_gradients(ours, images), answer_and_gradients(torchs, images), strict=True
    ):
        assert found.equal(wanted)
