"""Other projects' beam searches, run from checkouts of theirs, in turns with ours on the same shapes.

Random weights hardly ever end a caption, so that every search goes to its last step.

Dimensions: B images, P grid cells, E encoder width.
"""

import argparse
import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import transforms

from imgcap.models.decoders.build import build_decoder
from imgcap.types import EOS, SOS
from tools.bench.checkouts import att2in_model, execute, imgcap_model, show_attend_tell_decoder
from tools.bench.decoder import CELLS, VOCABULARY, WIDTH, search_all
from tools.bench.peers import OURS, PEERS, WITHOUT_CHECKOUT, Step, beside_peers, gpt2

Searcher = Callable[[Path, Tensor, int, int], Step]  # checkout, features_BPE, beam, steps


class _Mend(ast.NodeTransformer):
    """Mending of the tutorial's search: indices divided as today's torch wants it, and `steps` steps, not 50."""

    def __init__(self, steps: int):
        self.steps = steps

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Div) and ast.unparse(node.right) == "vocab_size":
            node.op = ast.FloorDiv()
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if ast.unparse(node) == "step > 50":
            node.comparators = [ast.Constant(self.steps - 1)]
        return node


def show_attend_tell(checkout: Path, features_BPE: Tensor, beam: int, steps: int) -> Step:
    """sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning, image by image, without its encoder."""
    decoder, side = show_attend_tell_decoder(checkout, features_BPE.device).eval(), round(CELLS**0.5)
    names = {
        "np": np,
        "F": torch.nn.functional,
        "transforms": transforms,
        "device": features_BPE.device,
        "imread": lambda path: np.zeros((1, 1, 3)),
        "imresize": lambda image, size: image,
    }
    name = "caption_image_beam_search"
    search = execute(checkout / "caption.py", only=(name,), names=names, mend=_Mend(steps))[name]
    words = {"<start>": SOS, "<end>": EOS} | {f"word {n}": n for n in range(VOCABULARY - 2)}

    @torch.no_grad()
    def run() -> None:
        for features in features_BPE.view(-1, 1, side, side, WIDTH):
            try:  # with an encoder that has done its work already
                search(lambda image, encoded=features: encoded, decoder, "", words, beam)
            except ValueError as error:
                if "empty" not in str(error):  # where no caption has ended, its last line looks for the best of none
                    raise

    return run


def imgcap(checkout: Path, features_BPE: Tensor, beam: int, steps: int) -> Step:
    """Sh-31/ImgCap's attention model, image by image."""
    model, vocabulary = imgcap_model(checkout, features_BPE.device), {"<sos>": SOS, "<eos>": EOS}
    options = {"device": features_BPE.device, "beam_width": beam, "max_seq_length": steps}

    def run() -> None:
        for features_PE in features_BPE:
            model.beam_search_caption(features_PE[None], vocabulary, list, **options)

    return run


def att2in(checkout: Path, features_BPE: Tensor, beam: int, steps: int) -> Step:
    """ruotianluo/ImageCaptioning.pytorch's Att2in2, all images at once."""
    model, means_BE = att2in_model(checkout, steps, features_BPE.device).eval(), features_BPE.mean(1)

    @torch.no_grad()
    def run() -> None:
        model(means_BE, features_BPE, mode="sample", opt={"beam_size": beam, "sample_n": 1})

    return run


def hugging_face(_: Path, features_BPE: Tensor, beam: int, steps: int) -> Step:
    """transformers' generate: a GPT-2 of as many weights as ours, three blocks of width 512 with cross-attention."""
    decoder, project = gpt2(steps + 1, features_BPE.device)
    decoder, length = decoder.eval(), {"min_new_tokens": steps, "max_new_tokens": steps}
    first_B1 = torch.full((len(features_BPE), 1), SOS, device=features_BPE.device)

    @torch.no_grad()
    def run() -> None:
        features_BPD = project(features_BPE)  # it copies them for each beam itself
        decoder.generate(first_B1, encoder_hidden_states=features_BPD, num_beams=beam, do_sample=False, **length)

    return run


PEER_BEAMS: dict[str, Searcher] = {
    "show-attend-tell": show_attend_tell,
    "imgcap": imgcap,
    "att2in": att2in,
    "hugging-face": hugging_face,
}
OPTIONS = {"images": 64, "beam": 5, "steps": 20}


def arguments(parser: argparse.ArgumentParser) -> None:
    names = f"NAME: {', '.join(PEER_BEAMS)}{WITHOUT_CHECKOUT}"
    parser.add_argument("checkouts", nargs="+", metavar="NAME=DIR", help=names)


def bench_peer_beams(arguments: argparse.Namespace) -> dict[str, Any]:
    """Other projects' beam searches, of each checkout that is given, beside ours with a decoder of the same shape."""
    random = torch.Generator().manual_seed(0)
    features_BPE = torch.randn(arguments.images, CELLS, WIDTH, generator=random).relu().to(arguments.device)

    def runs(name: str, checkout: Path) -> dict[str, Step]:
        decoder = build_decoder(PEERS[name].ours, VOCABULARY, WIDTH).to(arguments.device).eval()

        def our_search(precision: str) -> None:  # the last of the steps is <eos>
            search_all(decoder, features_BPE, precision, arguments.beam, arguments.steps - 1)

        theirs = PEER_BEAMS[name](checkout, features_BPE, arguments.beam, arguments.steps)
        return {"theirs": theirs} | {f"ours, {name}": partial(our_search, name) for name in OURS}

    return beside_peers(arguments, tuple(PEER_BEAMS), runs, arguments.images)
