"""Other projects' training steps, run from checkouts of theirs, in turns with ours on the same shapes.

Dimensions: B images, K captions an image, N = BK, T tokens, V vocabulary, P grid cells, E encoder width.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig, TransformerConfig
from imgcap.config.training import TrainConfig
from imgcap.errors import UserError
from imgcap.models.precision import set_float32_matmul
from imgcap.ranks.world import World, init_ranks
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS
from tools.bench.checkouts import att2in_model, imgcap_model, show_attend_tell_decoder
from tools.bench.decoder import CELLS, VOCABULARY, WIDTH, training_step
from tools.bench.timing import alternate, row, timed, warm_up

Step = Callable[[], None]
OURS = ("fp32", "bf16")


@dataclass
class Inputs:
    """A training batch as the peers want it: every caption with its own copy of the image's features."""

    images: int
    captions: int
    tokens: int
    device: torch.device

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.features_BPE = torch.randn(self.images, CELLS, WIDTH, generator=random).relu().to(self.device)
        self.features_NPE = self.features_BPE.repeat_interleave(self.captions, 0)
        shape = (len(self.features_NPE), self.tokens)
        self.tokens_NT = torch.randint(len(SPECIAL_TOKENS), VOCABULARY, shape, generator=random).to(self.device)
        self.tokens_NT[:, 0] = SOS


def show_attend_tell(checkout: Path, inputs: Inputs) -> Step:
    """sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning, as its train.py takes a step without fine-tuning."""
    decoder = show_attend_tell_decoder(checkout, inputs.device)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=4e-4)
    side = round(CELLS**0.5)
    features = inputs.features_NPE.view(-1, side, side, WIDTH)
    lengths = torch.full((len(features), 1), inputs.tokens, device=inputs.device)

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
    decoder = imgcap_model(checkout, inputs.device).lstm
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
    model = att2in_model(checkout, inputs.tokens - 2, inputs.device)
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


def hugging_face(_: Path, inputs: Inputs) -> Step:
    """transformers' GPT-2 with cross-attention, which makes its keys and values of each caption's own cells."""
    decoder, project = gpt2(inputs.tokens, inputs.device)
    weights = [*decoder.train().parameters(), *project.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=4e-4)

    def step() -> None:
        features_NPD = project(inputs.features_BPE).repeat_interleave(inputs.captions, 0)
        loss = decoder(inputs.tokens_NT, labels=inputs.tokens_NT, encoder_hidden_states=features_NPD).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()

    return step


def gpt2(tokens: int, device: torch.device) -> tuple[Any, torch.nn.Linear]:
    """Make a GPT-2 of as many weights as our Transformer, and what brings the cells to its width."""
    try:
        import transformers
    except ImportError:
        raise UserError("hugging-face needs transformers; install it with: pip install transformers") from None
    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 512, "n_layer": 3, "n_head": 8, "n_positions": tokens}
    special: dict[str, Any] = {"bos_token_id": SOS, "eos_token_id": EOS, "pad_token_id": PAD}
    config = transformers.GPT2Config(**shape, **special, add_cross_attention=True)
    decoder: Any = transformers.GPT2LMHeadModel(config)
    return decoder.to(device), torch.nn.Linear(WIDTH, 512).to(device)


@dataclass(frozen=True)
class Peer:
    step: Callable[[Path, Inputs], Step]
    ours: DecoderConfig
    attention_penalty: float = 1.0


_512 = {"embed_dim": 512, "hidden_dim": 512, "attention_dim": 512}
_1024 = {"embed_dim": 1024, "hidden_dim": 1024, "attention_dim": 1024}
PEERS = {
    "show-attend-tell": Peer(show_attend_tell, AttentionLSTMConfig(**_512)),
    "imgcap": Peer(imgcap_attention, AttentionLSTMConfig(**_1024, layers=2, init_state="zeros", gate=False)),
    "att2in": Peer(att2in, AttentionLSTMConfig(**_512, feature_dim=512, init_state="zeros", gate=False)),
    "hugging-face": Peer(hugging_face, TransformerConfig(), attention_penalty=0),
}
OPTIONS = {"images": 16, "captions": 5, "tokens": 22}
WITHOUT_CHECKOUT = "; hugging-face needs no DIR: hugging-face="


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkouts", nargs="+", metavar="NAME=DIR", help=f"NAME: {', '.join(PEERS)}{WITHOUT_CHECKOUT}")


def bench_peers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Other projects' training steps, of each checkout that is given, beside ours with a decoder of the same shape."""
    world = init_ranks(str(arguments.device))
    inputs = Inputs(arguments.images, arguments.captions, arguments.tokens, world.device)
    return beside_peers(
        arguments, tuple(PEERS), lambda name, checkout: steps(name, checkout, inputs, world), len(inputs.tokens_NT)
    )


def steps(name: str, checkout: Path, inputs: Inputs, world: World) -> dict[str, Step]:
    """Make a peer's step, `theirs`, and ours with a decoder of its shape, as a run on this device takes it."""
    theirs, sizes = PEERS[name].step(checkout, inputs), (inputs.features_BPE, inputs.captions, inputs.tokens)

    def in_full_float32() -> None:
        set_float32_matmul("fp32")
        theirs()

    peer = PEERS[name]
    trained = {p: TrainConfig(precision=p, attention_penalty=peer.attention_penalty) for p in OURS}
    ours = {f"ours, {p}": training_step(peer.ours, *sizes, train, world) for p, train in trained.items()}
    return {"theirs": in_full_float32} | ours


def beside_peers(
    arguments: argparse.Namespace, known: Sequence[str], runs: Callable[[str, Path], dict[str, Step]], captions: int
) -> dict[str, Any]:
    """Time the runs of each NAME=DIR of the arguments in turns, beside the one called `theirs`."""
    rows = []
    for given in arguments.checkouts:
        name, separator, checkout = given.partition("=")
        if not separator:
            raise UserError(f"{given!r} does not say which peer's checkout it is; give NAME=DIR")
        if name not in known:
            raise UserError(f"there is no peer {name!r} for this; those known are {', '.join(known)}")
        steps = runs(name, Path(checkout)).items()
        timers = {run: timed(step, arguments.device) for run, step in steps}
        seconds = alternate(timers, arguments.repeats, warm_up(arguments.device))
        for run, values in seconds.items():
            rows.append(row(f"{name}, {run}", values, captions, "captions", seconds["theirs"]))
    return {"rows": rows}
