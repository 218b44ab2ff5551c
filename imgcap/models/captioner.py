"""The whole model, an encoder and a decoder: from images and tokens to what the output layer reads.

Dimensions: B images, C colour channels, H W pixels, K captions an image, T tokens, V vocabulary,
P grid cells, E encoder width.
"""

from torch import Tensor, nn

from imgcap.config.model import ModelConfig
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.encoders.base import Encoder
from imgcap.models.encoders.weights import load_pretrained
from imgcap.types import Forcing


class Captioner(nn.Module):
    """A captioning model: an encoder, which runs once an image whatever the number of captions, and a decoder.

    The constructor gives random weights everywhere: what a checkpoint or an artefact is loaded into.
    """

    def __init__(self, model: ModelConfig, vocabulary_size: int):
        super().__init__()
        self.encoder = Encoder(model.encoder)
        self.decoder = build_decoder(model.decoder, vocabulary_size, self.encoder.width)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Encode uint8 images to features_BPE; features that were cached come in their place and stay as they are."""
        cached = images_BCHW.ndim == 3
        return images_BCHW.to(self.encoder.compute_dtype) if cached else self.encoder(images_BCHW)

    def forward(
        self, images_BCHW: Tensor, tokens_BKT: Tensor, forcing: Forcing | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict each caption's tokens from those before; see `imgcap.models.decoders.forcing.unroll`."""
        return unroll(self.decoder, self.encode(images_BCHW), tokens_BKT, forcing)


def build_captioner(model: ModelConfig, vocabulary_size: int) -> Captioner:
    """Build a captioner to be trained, with the encoder's pretrained weights where they are asked for."""
    captioner = Captioner(model, vocabulary_size)
    load_pretrained(captioner.encoder, model.encoder.weights)
    return captioner
