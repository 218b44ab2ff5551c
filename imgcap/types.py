"""The types that every package of imgcap shares: special tokens, samples and batches.

Dimensions, in every file: B images, K captions an image, T tokens, V vocabulary, P grid cells,
E encoder width, H hidden width, A attention width, W beams, L layers, C colour channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch  # building shards doesn't wait for it

PAD, SOS, EOS, UNK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<sos>", "<eos>", "<unk>")


class Stored(Protocol):
    """Where the bytes of an image lie: a file (a `Path` is one), or a row of a table."""

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Record:
    """An image and its captions as a dataset publishes them, before they are in a shard."""

    image_id: int
    file_name: str
    path: Path
    captions: tuple[str, ...]
    inside: Stored | None = None  # where its bytes lie in the file `path`, if they aren't all of it

    def read(self) -> bytes:
        """Read the bytes of the image; OSError where they can't be had."""
        return (self.inside or self.path).read_bytes()


class Sample(NamedTuple):
    """An image of a shard set: its JPEG bytes and what `KEY.json` says of it."""

    image_id: int
    file_name: str
    captions: list[str]
    tokens: list[list[str]]
    jpeg: bytes


class Batch(NamedTuple):
    """A batch of a training step. Images that don't count, as `image_ids` says, have no captions."""

    images_BCHW: "torch.Tensor"  # uint8, as decoded; the model normalises. Or cached features_BPE, float16
    tokens_BKT: "torch.Tensor"  # int64: <sos> words <eos> <pad> ...; all <pad> where there is no caption
    image_ids: "torch.Tensor"  # int64, shape (B,); or `imgcap.data.batch.PADDING`, NO_IMAGE


class Sampled(NamedTuple):
    """A batch of captions that the model has drawn itself, with what each is worth; behind them true ones, if any.

    Without those, T is one less than in `Batch`: the <eos> that ends the longest captions is not drawn.
    """

    images_BCHW: "torch.Tensor"  # as in `Batch`; features_BPE of an encoder that doesn't train
    tokens_BKT: "torch.Tensor"  # int64: <sos> words <eos> <pad> ...; all <pad> where an image doesn't count
    weights_BK: "torch.Tensor"  # float32: factor on -log P of each caption


class Forcing(NamedTuple):
    """Scheduled sampling (Bengio et al. 2015): which words the decoder reads as given and which of its own.

    Token t + 1 is read as given where coins_BKT[..., t] is below the ratio, and as the model's likeliest elsewhere.
    """

    ratio: "torch.Tensor"  # 0-D: compiled code sees its value change
    coins_BKT: "torch.Tensor"  # uniform in [0, 1)
    two_pass: bool = False  # guess all words from the true ones before (Duckworth et al. 2019), not each in its turn


class StepInputs(NamedTuple):
    """The inputs of a step's objective beside its batch. Numbers that change are 0-D tensors on the device."""

    forcing: Forcing | None = None  # none: every word that the decoder reads is the true one
    count_correct: bool = False  # also count the tokens that were the likeliest, for the log
