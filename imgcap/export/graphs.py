"""A captioner as two graphs that need none of this code: what looks at images, and one step of the decoder.

They are written as ONNX, for any runtime, and as torch.export programs, for torch on this sort of device. The numbers
of images and of beams may vary from call to call.

Dimensions: L layers, B images, W beams, V vocabulary, P grid cells, E encoder width, H hidden width, A attention width.
"""

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from imgcap.models.captioner import Captioner
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.state import DecoderState
from imgcap.models.trained import LoadedCaptioner
from imgcap.pictures import opening
from imgcap.text import written
from imgcap.types import SOS

RUNNER = Path(__file__).with_name("onnx_runner.py")


class Graph(NamedTuple):
    """A program with a name for each tensor that goes in or out."""

    name: str
    program: ExportedProgram
    inputs: list[str]
    outputs: list[str]


class _Look(nn.Module):
    """Module from images to the tensors of the decoder's first state."""

    def __init__(self, captioner: Captioner, length: int):
        super().__init__()
        self.captioner, self.length = captioner, length

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        state = self.captioner.decoder.init(self.captioner.encode(images_BCHW), 1, self.length)
        return tuple(state.tensors().values())


class _Step(nn.Module):
    """Module from a word of each beam to the log probabilities of the next, the rows' new state and the attention."""

    def __init__(self, decoder: Decoder, state: DecoderState):
        super().__init__()
        self.decoder, self.state = decoder, state  # of which only the prepared weights become part of the graph

    def forward(self, token_BW: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = self.state.with_tensors(dict(zip(self.state.tensors(), tensors, strict=True)))
        logits_BWV, state, attention_BWP = self.decoder.step(state, token_BW)
        seen = () if attention_BWP is None else (attention_BWP,)
        return logits_BWV.log_softmax(-1), *_of_rows(state).values(), *seen


def _of_rows(state: DecoderState) -> dict[str, Tensor]:
    """Tensors of a state that a step changes, by name."""
    return {name: tensor for name, tensor in state.tensors().items() if state.axes[name].row is not None}


@torch.no_grad()
def trace(loaded: LoadedCaptioner) -> list[Graph]:
    """Trace the encoder's and the decoder's graph, on the CPU."""
    captioner, data = loaded.model, loaded.config.data
    # Two images and three beams: torch takes a dimension of 1 for a constant.
    images_BCHW = torch.zeros(2, 3, data.image_size, data.image_size, dtype=torch.uint8)
    state = captioner.decoder.init(captioner.encode(images_BCHW), 3, data.max_tokens + 1)
    images, beams = Dim("images"), Dim("beams")
    look = torch.export.export(_Look(captioner, data.max_tokens + 1), (images_BCHW,), dynamic_shapes=({0: images},))
    tensors = tuple(tensor.contiguous() for tensor in state.tensors().values())
    axes = (state.axes[name] for name in state.tensors())
    dynamic = tuple({of.image: images} if of.row is None else {of.image: images, of.row: beams} for of in axes)
    step = torch.export.export(
        _Step(captioner.decoder, state),
        (torch.full((2, 3), SOS), *tensors),
        dynamic_shapes=({0: images, 1: beams}, dynamic),
    )
    plain = {name: name.rpartition("_")[0] for name in state.tensors()}  # without the letters of its dimensions
    seen = ["attention"] if captioner.decoder.attends else []
    outputs = ["log_probs", *(f"next_{plain[name]}" for name in _of_rows(state)), *seen]
    return [
        Graph("encoder", look, ["images"], list(plain.values())),
        Graph("decoder_step", step, ["tokens", *plain.values()], outputs),
    ]


def write_onnx(graphs: Iterable[Graph], folder: Path) -> None:
    """Write encoder.onnx and decoder_step.onnx, and the program that captions with them alone."""
    folder.mkdir()
    for graph in graphs:
        with _quiet():
            names: dict[str, Any] = {"input_names": graph.inputs, "output_names": graph.outputs}
            onnx = torch.onnx.export(graph.program, **names, dynamo=True, external_data=False, verbose=False)
        assert onnx is not None, "dynamo=True returns a program"
        onnx.save(folder / f"{graph.name}.onnx")
    write_runner(folder)


def write_runner(folder: Path) -> None:
    """Write the program that captions with the graphs alone, and what it shares with imgcap, beside them."""
    for source, name in ((RUNNER, "caption.py"), (opening.__file__, "opening.py"), (written.__file__, "written.py")):
        shutil.copyfile(source, folder / name)


def write_programs(graphs: Iterable[Graph], folder: Path) -> None:
    """Write encoder.pt2 and decoder_step.pt2, for torch.export.load."""
    folder.mkdir()
    for graph in graphs:
        with _quiet():
            torch.export.save(graph.program, folder / f"{graph.name}.pt2")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' notes on what has nothing to do with this model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
