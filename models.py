"""Image classifiers: Linear, MLP, FCNN, ViT, and those of torchvision and timm.

Each is a plain `nn.Module` that maps normalised images `(B, C, H, W)` to logits `(B, num_classes)`.
Its constructor takes three facts of the dataset by keyword: `in_channels`, `image_size` (pixels;
images are square) and `num_classes`. Its other arguments are set in `config/model/`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab import check
from lab.convolution import Conv2d
from lab.networks import from_timm as from_timm
from lab.networks import from_torchvision as from_torchvision


class Linear(nn.Module):
    """Multinomial logistic regression on the pixels. `(B, C, H, W) → (B, num_classes)`."""

    def __init__(self, *, in_channels: int, image_size: int, num_classes: int):
        super().__init__()
        self.head = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


class MLP(nn.Module):
    """Fully connected layers with ReLU and dropout. `(B, C, H, W) → (B, num_classes)`.

    Raises ValueError for a width that is not positive or a dropout outside [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        hidden_sizes: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        check.positive(hidden_sizes=hidden_sizes)
        check.dropout(dropout)
        sizes = [in_channels * image_size**2, *hidden_sizes]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(images.flatten(1)))


class FCNN(nn.Module):
    """Fully convolutional network. `(B, C, H, W) → (B, num_classes)` for any H and W.

    Stage i is `depths[i]` blocks of convolution, batch norm and ReLU with `widths[i]` channels. Its
    first block, with a kernel of `kernel_sizes[i]`, halves the image by a stride of 2 instead of
    pooling (Springenberg et al. 2015, https://arxiv.org/abs/1412.6806); the others, with a kernel
    of 3, are residual (He et al. 2015, https://arxiv.org/abs/1512.03385). Global pooling and a
    linear classifier follow, so the number of weights does not depend on `image_size`. `pooling` is
    "mean", over the pixels, or "mean_max", their mean and their maximum side by side.

    With `padding="same"` the first blocks pad with zeros: an odd kernel accepts an image of any
    size, an even one needs 2 pixels. With "valid" the image must be as large as the kernel.

    Raises ValueError for a size that is not positive, lists of different lengths, an unknown
    padding or pooling, or an `image_size` too small for one of the kernels.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        widths: Sequence[int],
        depths: Sequence[int],
        kernel_sizes: Sequence[int],
        padding: str = "same",
        pooling: str = "mean",
    ):
        super().__init__()
        check.positive(widths=widths, depths=depths, kernel_sizes=kernel_sizes)
        check.one_per_stage(widths=widths, depths=depths, kernel_sizes=kernel_sizes)
        check.one_of("same", "valid", padding=padding)
        check.one_of("mean", "mean_max", pooling=pooling)
        paddings = [(size - 1) // 2 if padding == "same" else 0 for size in kernel_sizes]
        check.kernels_fit(image_size, kernel_sizes, paddings)
        blocks: list[nn.Module] = []
        channels = in_channels
        for width, depth, size, pad in zip(widths, depths, kernel_sizes, paddings, strict=True):
            blocks.append(ConvBlock(channels, width, size, stride=2, padding=pad))
            blocks += [ConvBlock(width, width) for _ in range(depth - 1)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.takes_max = pooling == "mean_max"
        self.head = nn.Linear(widths[-1] * (1 + self.takes_max), num_classes)

    def forward(self, images: Tensor) -> Tensor:
        # Channels last, so that the gradient of the mean has the convolutions' memory layout.
        pixels = self.blocks(images).permute(0, 2, 3, 1)
        pooled = pixels.mean(dim=(1, 2))
        if self.takes_max:
            pooled = torch.cat([pooled, pixels.amax(dim=(1, 2))], dim=1)
        return self.head(pooled)


class ConvBlock(nn.Module):
    """Convolution, batch norm and ReLU; residual where input and output have the same shape."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size=3, stride=1, padding=1):
        super().__init__()
        # No bias: the batch norm that follows would subtract it.
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, images: Tensor) -> Tensor:
        change = F.relu(self.norm(self.conv(images)), inplace=True)
        return images + change if self.residual else change


class ViT(nn.Module):
    """Vision transformer. `(B, C, H, W) → (B, num_classes)`.

    Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929: pre-norm blocks and learned position
    embeddings. `pooling` is "mean", over the patches, or "cls", a class token. Raises ValueError if
    `patch_size` does not divide `image_size`, if `num_heads` does not divide `dim`, for a size that
    is not positive, an unknown pooling, or a dropout outside [0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        patch_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        pooling: str,
        dropout: float,
    ):
        super().__init__()
        check.positive(
            patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio
        )
        check.dropout(dropout)
        check.divides(patch_size=patch_size, image_size=image_size)
        check.divides(num_heads=num_heads, dim=dim)
        check.one_of("mean", "cls", pooling=pooling)
        self.patch_size = patch_size
        self.embed = nn.Linear(in_channels * patch_size**2, dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if pooling == "cls" else None
        num_tokens = (image_size // patch_size) ** 2 + (pooling == "cls")
        self.position = nn.Parameter(torch.randn(1, num_tokens, dim) * 0.02)
        self.blocks = nn.Sequential(
            *(TransformerBlock(dim, num_heads, mlp_ratio, dropout) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(self._patches(images))
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.norm(self.blocks(tokens + self.position))
        return self.head(tokens.mean(dim=1) if self.class_token is None else tokens[:, 0])

    def _patches(self, images: Tensor) -> Tensor:
        """Cut images into patches: `(B, C, H, W) → (B, patches, C · patch_size²)`."""
        b, c, h, w = images.shape
        p = self.patch_size
        grid = images.reshape(b, c, h // p, p, w // p, p)
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // p) * (w // p), c * p * p)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP, both residual. `(B, tokens, dim) → (B, tokens, dim)`."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self._attend(self.norm1(tokens)))
        return tokens + self.dropout(self.mlp(self.norm2(tokens)))

    def _attend(self, tokens: Tensor) -> Tensor:
        b, t, dim = tokens.shape
        qkv = self.qkv(tokens).view(b, t, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, dim per head)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(b, t, dim))
