"""The pictures of a report: the worst mistakes, and the confusion matrix of many classes."""

import base64
import io

import numpy
from PIL import Image
from torch import Tensor

from lab.images import ImageSet, OnDisk
from lab.page import Markup, element, figure, join
from lab.predictions import Predictions

MISTAKES = 48
MOST_PIXELS = 160  # the side of a picture in the page
SIDE = 600  # pixels of the matrix
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # visible on white and on black


def mistakes(predictions: Predictions, image_set: ImageSet) -> Markup:
    """The wrong images to whose true class the model gives the lowest probability."""
    wrong = (predictions.predicted != predictions.labels).nonzero().squeeze(1)
    if not len(wrong):
        return element("p", "There are none: every prediction is right.")
    own = predictions.probabilities[wrong, predictions.labels[wrong]]
    worst = wrong[own.argsort(stable=True)[:MISTAKES]]
    images = image_set.images[worst]
    images = images.read() if isinstance(images, OnDisk) else images
    which = f"The {len(worst)} of {len(wrong)}" if len(worst) < len(wrong) else f"The {len(wrong)}"
    said = (
        f"{which} wrong images to whose true class the model gives the lowest probability, the "
        "lowest first. In colour: the prediction and its probability."
    )
    cards = [
        _card(image, predictions, index)
        for image, index in zip(images.cpu().numpy(), worst.tolist(), strict=True)
    ]
    return join(element("p", said), element("div", *cards, class_="gallery"))


def _card(image: numpy.ndarray, predictions: Predictions, index: int) -> Markup:
    label, answer = predictions.labels[index].item(), predictions.predicted[index].item()
    true, said = predictions.classes[label], predictions.classes[answer]
    probabilities, name = predictions.probabilities[index].tolist(), predictions.names[index]
    picture = element(
        "img", src=_picture(image), alt=f"{true} taken for {said}",
        class_="pixels" if image.shape[-1] <= MOST_PIXELS / 2 else None,
    )  # fmt: skip
    caption = element(
        "figcaption",
        element("b", said, class_="bad"), f" {percent(probabilities[answer])}", element("br"),
        f"true: {true} {percent(probabilities[label])}", element("br"),
        element("span", name if isinstance(name, str) else f"image {name}", class_="faint"),
    )  # fmt: skip
    return element("figure", picture, caption)


def percent(share: float) -> str:
    """A probability in %: 100.0% is only what is 1."""
    if 0.9995 <= share < 1:
        return ">99.9%"
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


def matrix(confusion: Tensor) -> Markup:
    """A pixel per cell, transparent where nothing is, so that it is seen on white and on black."""
    counts = confusion.numpy()
    size = len(counts)
    shares = counts / numpy.maximum(counts.sum(1, keepdims=True), 1)
    pixels = numpy.zeros((size, size, 4), dtype=numpy.uint8)
    pixels[..., :3] = ORANGE
    pixels[numpy.arange(size), numpy.arange(size), :3] = BLUE
    alpha = numpy.where(counts > 0, 0.25 + 0.75 * numpy.sqrt(shares), 0)
    pixels[..., 3] = (255 * alpha).round()
    scale = max(1, SIDE // size)
    shown = element(
        "img", src=_png(Image.fromarray(pixels)), width=scale * size, height=scale * size,
        alt=f"confusion matrix of {size} classes",
        class_="matrix pixels" if scale > 1 else "matrix",  # averaged where it has to be smaller
    )  # fmt: skip
    caption = (
        f"{size} × {size} cells. Rows, from the top: the true class; columns: the predicted class. "
        "Blue is right, orange is wrong; the larger the share of its row, the stronger the colour."
    )
    return figure(shown, caption)


def _picture(image: numpy.ndarray) -> Markup:
    """An image uint8 `(C, H, W)`; of another number of channels than 1 or 3, the first."""
    shown = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    picture = Image.fromarray(numpy.ascontiguousarray(shown))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return _png(picture)


def _png(picture: Image.Image) -> Markup:
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return Markup(f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}")
