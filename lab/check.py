"""Checks of constructor arguments, as in `check.positive(width=width)`."""

from collections.abc import Sequence

from lab.errors import Refusal


def positive(**sizes: int | Sequence[int]) -> None:
    """Raises Refusal, a ValueError, for a size that is not a whole number of at least 1."""
    for name, value in sizes.items():
        values = list(value) if isinstance(value, Sequence) else [value]
        if not all(type(size) is int and size >= 1 for size in values):
            raise Refusal(f"{name}={value}: every size must be a whole number of at least 1.")


def divides(**pair: int) -> None:
    """`divides(patch_size=7, image_size=28)`: the first has to divide the second.

    Raises Refusal, listing the divisors, where it does not.
    """
    (name, value), (whole, total) = pair.items()
    if total % value:
        divisors = [number for number in range(1, total + 1) if total % number == 0]
        raise Refusal(f"{name}={value} does not divide {whole}={total}: use one of {divisors}.")


def one_of(*options: str, **argument: str) -> None:
    """Raises Refusal for a value that is not among `options`."""
    ((name, value),) = argument.items()
    if value not in options:
        raise Refusal(f"{name}={value!r} is unknown: use {' or '.join(map(repr, options))}.")


def one_per_stage(**lists: Sequence[int]) -> None:
    """Raises Refusal for lists that are empty or differ in length."""
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        said = ", ".join(f"{name}={list(values)}" for name, values in lists.items())
        raise Refusal(f"{said} must have one entry per stage.")


def dropout(dropout: float) -> None:
    """Raises Refusal for a dropout outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise Refusal(f"dropout={dropout} is not allowed: it must be at least 0 and below 1.")


def kernels_fit(image_size: int, kernel_sizes: Sequence[int], paddings: Sequence[int]) -> None:
    """Raises Refusal if a convolution of stride 2 would get an image smaller than its kernel."""
    size = image_size
    for kernel_size, padding in zip(kernel_sizes, paddings, strict=True):
        if size + 2 * padding < kernel_size:
            raise Refusal(
                f"kernel_sizes={list(kernel_sizes)} leaves {size} × {size} of image_size="
                f"{image_size} to a kernel of {kernel_size}: use fewer stages, smaller kernels, or "
                "odd ones with padding='same'."
            )
        size = (size + 2 * padding - kernel_size) // 2 + 1


def is_a_name(**argument: str) -> None:
    """Raises Refusal for an address, like hf-hub:owner/name, or a path instead of a name."""
    ((name, value),) = argument.items()
    if not str(value).replace(".", "_").isidentifier():
        raise Refusal(
            f"{name}={value!r} is not the name of a network: it is made of letters, digits and _."
        )
