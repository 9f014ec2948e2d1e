"""Image classifiers: Linear, MLP, FCNN, ViT.

Every model is a plain `nn.Module` whose constructor takes the same three facts of the data, by
keyword: `in_channels`, `image_size` (pixels, images are square) and `num_classes`. Everything else
is its own and stands in `config/model/`. All map images `(B, C, H, W)` to `(B, num_classes)`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """Multinomial logistic regression on the pixels. `(B, C, H, W) → (B, num_classes)`."""

    def __init__(self, *, in_channels: int, image_size: int, num_classes: int):
        super().__init__()
        self.head = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


class MLP(nn.Module):
    """Fully-connected layers with ReLU and dropout. `(B, C, H, W) → (B, num_classes)`.

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
        _check_positive(hidden_sizes=hidden_sizes)
        _check_dropout(dropout)
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

    Stage i is `depths[i]` blocks of convolution, batch norm and ReLU with `widths[i]` channels.
    The first block, with a kernel of `kernel_sizes[i]`, halves the image by a stride of 2, which
    learns what pooling would fix (Springenberg et al. 2015, https://arxiv.org/abs/1412.6806); the
    others, with a kernel of 3, are added to their input (He et al. 2015,
    https://arxiv.org/abs/1512.03385). Global average pooling and one linear classifier follow, so
    the number of weights does not depend on `image_size`.

    `padding` is what the first blocks do at the border: "same" adds zeros, for any H and W where
    the kernel is odd; an even one halves downwards, from 2 on. "valid" adds none, and each stage
    sees a smaller image, down to the size of its kernel.

    Raises ValueError for a size that is not positive, lists of different length, an unknown
    padding, or an `image_size` of which a stage finds nothing left.
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
    ):
        super().__init__()
        _check_positive(widths=widths, depths=depths, kernel_sizes=kernel_sizes)
        if not len(widths) == len(depths) == len(kernel_sizes) > 0:
            raise ValueError(
                f"widths={widths}, depths={depths} and kernel_sizes={kernel_sizes} "
                "must have one entry per stage."
            )
        if padding not in ("same", "valid"):
            raise ValueError(f"padding={padding!r} is unknown: use 'same' or 'valid'.")
        borders = [(size - 1) // 2 if padding == "same" else 0 for size in kernel_sizes]
        _check_large_enough(image_size, kernel_sizes, borders)
        blocks: list[nn.Module] = []
        channels = in_channels
        stages = zip(widths, depths, kernel_sizes, borders, strict=True)
        for width, depth, kernel_size, border in stages:
            blocks.append(ConvBlock(channels, width, kernel_size, stride=2, padding=border))
            blocks += [ConvBlock(width, width) for _ in range(depth - 1)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        # Channels last before the mean, so that its gradient comes in the convolutions' own order.
        return self.head(self.blocks(images).permute(0, 2, 3, 1).mean(dim=(1, 2)))


class ConvBlock(nn.Module):
    """Convolution, batch norm and ReLU, added to the input where the shape stays the same."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
    ):
        super().__init__()
        # The norm that follows would subtract a bias again.
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, images: Tensor) -> Tensor:
        change = F.relu(self.norm(self.conv(images)), inplace=True)
        return images + change if self.residual else change


class ViT(nn.Module):
    """Vision transformer. `(B, C, H, W) → (B, num_classes)`.

    "An Image is Worth 16x16 Words", Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929:
    pre-norm blocks, learned positions, and as `pooling` the mean over patches or a class token.

    Raises ValueError, with the values, for a patch that does not divide the image, heads that do
    not divide `dim`, a size that is not positive, an unknown pooling or a dropout outside [0, 1).
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
        _check_positive(
            patch_size=patch_size, dim=dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio
        )
        _check_dropout(dropout)
        if image_size % patch_size:
            raise ValueError(
                f"patch_size={patch_size} does not divide image_size={image_size}: "
                f"use one of {[p for p in range(1, image_size + 1) if image_size % p == 0]}."
            )
        if dim % num_heads:
            raise ValueError(
                f"num_heads={num_heads} does not divide dim={dim}: "
                f"use one of {[h for h in range(1, dim + 1) if dim % h == 0]}."
            )
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling={pooling!r} is unknown: use 'mean' or 'cls'.")
        self.patch_size = patch_size
        self.embed = nn.Linear(in_channels * patch_size**2, dim)
        num_patches = (image_size // patch_size) ** 2
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if pooling == "cls" else None
        num_tokens = num_patches + (pooling == "cls")
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
        """`(B, C, H, W) → (B, patches, C · patch_size²)`."""
        b, c, h, w = images.shape
        p = self.patch_size
        grid = images.reshape(b, c, h // p, p, w // p, p)
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // p) * (w // p), c * p * p)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP, each added to its input `(B, tokens, dim)`."""

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


def _check_positive(**sizes: int | Sequence[int]) -> None:
    for name, value in sizes.items():
        values = list(value) if isinstance(value, Sequence) else [value]
        if not all(isinstance(size, int) and size >= 1 for size in values):
            raise ValueError(f"{name}={value}: every size must be a whole number of at least 1.")


def _check_large_enough(
    image_size: int, kernel_sizes: Sequence[int], borders: Sequence[int]
) -> None:
    size = image_size
    for kernel_size, border in zip(kernel_sizes, borders, strict=True):
        if size + 2 * border < kernel_size:
            raise ValueError(
                f"kernel_sizes={list(kernel_sizes)} leaves {size} × {size} of image_size="
                f"{image_size} to a kernel of {kernel_size}: use fewer stages, smaller kernels, or "
                "odd ones with padding='same'."
            )
        size = (size + 2 * border - kernel_size) // 2 + 1


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} is not allowed: it must be at least 0 and below 1.")
