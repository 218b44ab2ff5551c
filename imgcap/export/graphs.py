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
from typing import NamedTuple

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from imgcap.errors import UserError
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.state import Cells, DecoderState, Memory
from imgcap.models.trained import LoadedCaptioner
from imgcap.types import SOS

RUNNER = Path(__file__).with_name("onnx_runner.py")


class Graph(NamedTuple):
    """A program with a name for each tensor that goes in or out."""

    name: str
    program: ExportedProgram
    inputs: list[str]
    outputs: list[str]


class _Look(nn.Module):
    """Images to the decoder's first state and, for one that attends, the images' cells."""

    def __init__(self, captioner: Captioner):
        super().__init__()
        self.captioner = captioner

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = self.captioner.decoder.init(self.captioner.encoder(images_BCHW), 1)
        return state.hidden_LBKH, state.cell_LBKH, *(state.memory.image or ())


class _Step(nn.Module):
    """A word of each beam to the log probabilities of the next, the new state and the attention."""

    def __init__(self, captioner: Captioner, memory: Memory):
        super().__init__()
        self.decoder = captioner.decoder
        self.memory = memory._replace(image=None)  # the weights that `init` lays side by side

    def forward(
        self, token_BW: torch.Tensor, hidden_LBWH: torch.Tensor, cell_LBWH: torch.Tensor, *cells: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        memory = self.memory._replace(image=Cells(*cells) if cells else None)
        logits_BWV, state, attention_BWP = self.decoder.step(DecoderState(hidden_LBWH, cell_LBWH, memory), token_BW)
        seen = () if attention_BWP is None else (attention_BWP,)
        return logits_BWV.log_softmax(-1), state.hidden_LBKH, state.cell_LBKH, *seen


@torch.no_grad()
def trace(loaded: LoadedCaptioner) -> list[Graph]:
    """The encoder's and the decoder's graph, on the CPU. Raises `UserError` for a decoder of another sort of state."""
    captioner, size = loaded.model, loaded.config.data.image_size
    # Two images and three beams: torch takes a dimension of 1 for a constant.
    images_BCHW = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    state = captioner.decoder.init(captioner.encoder(images_BCHW), 3)
    if not isinstance(state, DecoderState):
        raise UserError(f"no graphs of model.decoder.type={loaded.config.model.decoder.type} can be written yet")
    cells = tuple(state.memory.image or ())
    images, beams = Dim("images"), Dim("beams")
    look = torch.export.export(_Look(captioner), (images_BCHW,), dynamic_shapes=({0: images},))
    token_BW = torch.full((2, 3), SOS)
    states = (state.hidden_LBKH.contiguous(), state.cell_LBKH.contiguous())
    of_states = {1: images, 2: beams}
    of_cells = [tuple({0: images} for _ in cells)] if cells else []
    step = torch.export.export(
        _Step(captioner, state.memory),
        (token_BW, *states, *cells),
        dynamic_shapes=({0: images, 1: beams}, of_states, of_states, *of_cells),
    )
    carried, shown = ["features", "projected"] if cells else [], ["attention"] if cells else []
    return [
        Graph("encoder", look, ["images"], ["hidden", "cell", *carried]),
        Graph(
            "decoder_step",
            step,
            ["tokens", "hidden", "cell", *carried],
            ["log_probs", "next_hidden", "next_cell", *shown],
        ),
    ]


def write_onnx(graphs: Iterable[Graph], folder: Path) -> None:
    """Write encoder.onnx and decoder_step.onnx, and the program that captions with them alone."""
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError:
        raise UserError("--onnx needs onnx and onnxscript; pip install 'imgcap[onnx]'") from None
    folder.mkdir()
    for graph in graphs:
        with _quiet():
            onnx = torch.onnx.export(
                graph.program,
                input_names=graph.inputs,
                output_names=graph.outputs,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        assert onnx is not None, "dynamo=True returns a program"
        onnx.save(folder / f"{graph.name}.onnx")
    shutil.copyfile(RUNNER, folder / "caption.py")


def write_programs(graphs: Iterable[Graph], folder: Path) -> None:
    """Write encoder.pt2 and decoder_step.pt2, for torch.export.load."""
    folder.mkdir()
    for graph in graphs:
        with _quiet():
            torch.export.save(graph.program, folder / f"{graph.name}.pt2")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes on what has nothing to do with this model."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
