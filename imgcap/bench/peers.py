"""Other projects' decoders, run from checkouts of theirs, in turns with ours on the same shapes.

Nothing of theirs is in this repository. What today's libraries refuse in their files is replaced as they are read.

Dimensions: B images, K captions an image, N = BK, T tokens, V vocabulary, P grid cells, E encoder width.
"""

import argparse
import ast
import importlib
import pickle
import statistics
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from imgcap.bench.decoder import CELLS, VOCABULARY, WIDTH, training_step
from imgcap.bench.timing import alternate, row, timed
from imgcap.config.schema import DecoderConfig
from imgcap.errors import UserError
from imgcap.types import SOS, SPECIAL_TOKENS

Step = Callable[[], None]


@dataclass
class Inputs:
    """A training batch as the peers want it: every caption with its own copy of the image's features."""

    images: int
    captions: int
    tokens: int

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.features_BPE = torch.randn(self.images, CELLS, WIDTH, generator=random).relu()
        self.features_NPE = self.features_BPE.repeat_interleave(self.captions, 0)
        shape = (len(self.features_NPE), self.tokens)
        self.tokens_NT = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, shape, generator=random)
        self.tokens_NT[:, 0] = SOS


def show_attend_tell(checkout: Path, inputs: Inputs) -> Step:
    """sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning, as its train.py takes a step without fine-tuning."""
    module = _execute(checkout / "models.py")
    decoder = module["DecoderWithAttention"](512, 512, 512, VOCABULARY, WIDTH)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=4e-4)
    side = round(CELLS**0.5)
    features = inputs.features_NPE.view(-1, side, side, WIDTH)
    lengths = torch.full((len(features), 1), inputs.tokens)

    def step() -> None:
        scores, captions, decoded, attention, _ = decoder(features, inputs.tokens_NT, lengths)
        packed = pack_padded_sequence(scores, decoded, batch_first=True).data
        targets = pack_padded_sequence(captions[:, 1:], decoded, batch_first=True).data
        loss = F.cross_entropy(packed, targets) + (1 - attention.sum(1)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(decoder.parameters(), 5.0)
        optimiser.step()

    return step


def imgcap_attention(checkout: Path, inputs: Inputs) -> Step:
    """Sh-31/ImgCap's attention model, as its trainer takes a step in float32, every token given."""
    path = checkout / "trainning" / "ImgCap-prototyping" / "ImgCapAttention_prototyping.py"
    classes = _execute(path, only=("Attention", "lstm"), names={"nn": torch.nn, "vocab": {"<sos>": SOS}})
    decoder = classes["lstm"](WIDTH, 1024, 2, 1024, VOCABULARY)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        outputs = decoder(inputs.features_NPE, inputs.tokens_NT, teacher_forcing_ratio=1.0)
        F.cross_entropy(outputs.flatten(0, 1), inputs.tokens_NT.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()

    return step


def att2in(checkout: Path, inputs: Inputs) -> Step:
    """ruotianluo/ImageCaptioning.pytorch's Att2in2, which copies the features itself and only after embedding them."""
    model = _att2in_model(checkout, inputs.tokens - 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-4)
    captions = inputs.tokens_NT.view(inputs.images, inputs.captions, inputs.tokens)
    means = inputs.features_BPE.mean(1)

    def step() -> None:
        optimiser.zero_grad()
        log_probs = model(means, inputs.features_BPE, captions[..., :-1])
        loss = -log_probs.gather(2, captions[..., 1:].flatten(0, 1)[..., None]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.1)
        optimiser.step()

    return step


def _att2in_model(checkout: Path, length: int) -> torch.nn.Module:
    # Its packages import every model it has, and what those need; only the one module is wanted.
    for package in ("captioning", "captioning.models", "captioning.utils"):
        module = types.ModuleType(package)
        module.__path__ = [str(checkout / package.replace(".", "/"))]
        sys.modules[package] = module
    moves = types.SimpleNamespace(cPickle=pickle)  # of `six`, which it imports and does not need for this
    for name, content in (("six", {"moves": moves}), ("six.moves", vars(moves))):
        sys.modules.setdefault(name, types.ModuleType(name)).__dict__.update(content)
    options = types.SimpleNamespace(
        vocab_size=VOCABULARY - 1,  # it adds one
        input_encoding_size=512,
        rnn_size=512,
        num_layers=1,
        drop_prob_lm=0.5,
        max_length=length,
        fc_feat_size=WIDTH,
        att_feat_size=WIDTH,
        att_hid_size=512,
        vocab={},
    )
    try:
        model: torch.nn.Module = importlib.import_module("captioning.models.AttModel").Att2in2Model(options)
    except ImportError as error:
        raise UserError(f"{checkout} can't be imported from ({error}); is this a checkout of that peer?") from None
    return model


@dataclass(frozen=True)
class Peer:
    step: Callable[[Path, Inputs], Step]
    ours: DecoderConfig


_512 = {"embed_dim": 512, "hidden_dim": 512, "attention_dim": 512}
_1024 = {"embed_dim": 1024, "hidden_dim": 1024, "attention_dim": 1024}
PEERS = {
    "show-attend-tell": Peer(show_attend_tell, DecoderConfig(**_512)),
    "imgcap": Peer(imgcap_attention, DecoderConfig(**_1024, layers=2, init_state="zeros", gate=False)),
    "att2in": Peer(att2in, DecoderConfig(**_512, feature_dim=512, init_state="zeros", gate=False)),
}


def bench_peers(arguments: argparse.Namespace) -> dict[str, Any]:
    """A training step of each peer's decoder whose checkout is given, and of ours in the same shape."""
    device, inputs = torch.device("cpu"), Inputs(arguments.images, arguments.captions, arguments.tokens)
    rows = []
    for given in arguments.checkouts:
        name, separator, checkout = given.partition("=")
        if not separator:
            raise UserError(f"{given!r} does not say which peer's checkout it is; give NAME=DIR")
        if name not in PEERS:
            raise UserError(f"there is no peer {name!r}; those known are {', '.join(PEERS)}")
        peer = PEERS[name]
        runs = {f"{name}, theirs": timed(peer.step(Path(checkout), inputs), device)}
        for precision in ("fp32", "bf16"):
            step = training_step(peer.ours, inputs.features_BPE, inputs.captions, inputs.tokens, precision)
            runs[f"{name}, ours, {precision}"] = timed(step, device)
        seconds = alternate(runs, arguments.repeats)
        theirs = statistics.median(next(iter(seconds.values())))
        for label, values in seconds.items():
            ratio = round(theirs / statistics.median(values), 2)
            rows.append(row(label, values, len(inputs.tokens_NT), "captions") | {"ratio": ratio})
    return {"rows": rows}


def _execute(path: Path, only: tuple[str, ...] = (), names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a file of a checkout, or only some of its classes, and return its names."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); is this a checkout of that peer?") from None
    if only:
        tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in only]
    module = {"__name__": path.stem, "torch": torch} | (names or {})
    exec(compile(tree, str(path), "exec"), module)
    return module
