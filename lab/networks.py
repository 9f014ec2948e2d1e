"""Networks of torchvision and timm, for images of any number of channels."""

from torch import nn

from lab import check


def from_torchvision(*, name: str, in_channels: int, num_classes: int, **options) -> nn.Module:
    """A classifier of torchvision; its first convolution is replaced if it takes other channels."""
    import torchvision  # takes seconds

    model = torchvision.models.get_model(name, num_classes=num_classes, **options)
    place, old = next(part for part in model.named_modules() if isinstance(part[1], nn.Conv2d))
    if old.in_channels != in_channels:
        sizes = old.out_channels, old.kernel_size, old.stride, old.padding
        new = nn.Conv2d(in_channels, *sizes, bias=old.bias is not None)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        model.set_submodule(place, new)
    return model


def from_timm(*, name: str, in_channels: int, num_classes: int, **options) -> nn.Module:
    """A network of timm; with `pretrained=True`, its weights are adapted to the channels."""
    import timm  # optional

    check.is_a_name(name=name)
    return timm.create_model(name, in_chans=in_channels, num_classes=num_classes, **options)
