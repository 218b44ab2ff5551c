"""What search, losses, scheduled sampling and graphs ask of a caption decoder: four things, whatever its kind.

Dimensions: B images, K captions or W beams an image, T tokens, V vocabulary, P grid cells, E encoder width,
R width of what the output layer reads.
"""

from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from imgcap.models.decoders.state import DecoderState

State = TypeVar("State", bound=DecoderState)


class Decoder(nn.Module, Generic[State]):
    """Captions from the features of images. The K captions (or beams) of an image share its features, never copied.

    `output` turns readouts into logits of the vocabulary: losses and guesses do that a block of rows at a time.
    """

    attends: ClassVar[bool]  # whether `step` and `read` say which cells each token looked at
    embedding: nn.Embedding
    output: nn.Linear

    def init(self, features_BPE: Tensor, rows: int, length: int) -> State:
        """Begin captions of B images, `rows` of each, of which `step` will read at most `length` tokens."""
        raise NotImplementedError

    def eager(self, state: State, attention: bool) -> State:
        """Ready a state that has read nothing for a search whose steps the host launches one by one.

        Its shapes need not stay, and its weights are nobody else's. Without `attention` the steps may give none.
        """
        return state

    def step(self, state: State, token_BK: Tensor) -> tuple[Tensor, State, Tensor | None]:
        """Read a token of each row; return logits_BKV of the next, the new state and attention_BKP (float32).

        Without gradients the new state may lie where the given one did, which is no more then.
        """
        raise NotImplementedError

    def read(self, state: State, tokens_BKT: Tensor, attention: bool = True) -> tuple[Tensor, Tensor | None]:
        """Read the first T - 1 tokens, all known; return readout_BKTR and attention_BKTP of these T - 1 steps.

        Attention is for those who ask for it: a decoder that has it at a price gives none to others.
        `output(readout)` are the logits that `step` would have given, token by token; in training only up to a
        caption's end, behind which both may be anything.
        """
        raise NotImplementedError
