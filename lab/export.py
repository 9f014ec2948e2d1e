"""Export a trained model for other programs, as torch.export's or as ONNX's file."""

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from lab import files
from lab.augmentation import Augmentation
from lab.cause import described
from lab.errors import Refusal


class FromPixels(nn.Module):
    """A model with what a run does around it: uint8 images `(B, C, H, W)` are normalised, and the
    logits `(B, num_classes)` averaged over the views that `augmentation` gives."""

    def __init__(self, model: nn.Module, cfg: DictConfig):
        super().__init__()
        self.model, self.augmentation = model, Augmentation(**cfg.augmentation)
        mean, std = (torch.tensor(list(cfg.dataset[key])).view(-1, 1, 1) for key in ("mean", "std"))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        images = images * self.scale + self.offset
        return torch.stack([self.model(v) for v in self.augmentation.views(images)]).mean(0)


def export(model: nn.Module, cfg: DictConfig, path: Path) -> str:
    """Write `model`, on the CPU and in fp32, to `path`. Returns a sentence on what the file takes
    and gives.

    What is written was loaded again, and gives the same logits on other images, in a batch of
    another size. Raises Refusal if it does not, or if the model cannot be exported.
    """
    wrapped, facts = FromPixels(model.eval(), cfg).eval(), cfg.dataset
    shape = facts.in_channels, facts.image_size, facts.image_size
    generator = torch.Generator().manual_seed(0)
    example, images = (
        torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        for count in (3, 8)
    )
    write = _torch_export if path.suffix == ".pt2" else _onnx
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within torch's own exporters
        expected = wrapped(images)
        try:
            content, loaded = write(wrapped, example)
            found = loaded(images)
        except Exception as error:  # whatever an exporter raises
            raise Refusal(
                f"export={path} is not possible for {cfg.model._target_}: {described(error)}."
            ) from error
    difference = (found - expected).abs().max().item()
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise Refusal(
            f"export={path} was not written: loaded again, its logits differ by {difference:.2g} "
            "from those of the run."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        file.write(content)
    return (
        f"{path}: uint8 images {('B', *shape)} to logits ('B', {facts.num_classes}). Loaded again, "
        f"its logits differ by at most {difference:.1g} from those of the run."
    ).replace("'", "")


def _torch_export(model: nn.Module, example: Tensor) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """The content of the file, and the model that was loaded from it."""
    dynamic = {"images": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(model, (example,), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _onnx(model: nn.Module, example: Tensor) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """The content of the file, and a function that runs what was loaded from it."""
    import onnxruntime  # optional

    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    dynamic = {"images": {0: torch.export.Dim.DYNAMIC}}
    names = {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(
        model, (example,), dynamo=True, dynamic_shapes=dynamic, verbose=False, **names
    )
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: torch.from_numpy(
        session.run(["logits"], {"images": images.numpy()})[0]
    )
