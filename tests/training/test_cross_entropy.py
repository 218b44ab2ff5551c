"""No option of training is silently ignored: each changes the gradient, whatever the decoder."""

import pytest
import torch

from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import TrainConfig
from imgcap.data.keyed_random import coins
from imgcap.models.captioner import Captioner
from imgcap.training.objectives.cross_entropy import CrossEntropy
from imgcap.types import SOS, Batch, Forcing, StepInputs

B, K, T, WORDS = 3, 2, 7, 20
DECODERS = {
    "attention_lstm": {"embed_dim": 16, "hidden_dim": 24, "attention_dim": 16, "dropout": 0.0},
    "transformer": {"type": "transformer", "width": 16, "heads": 2, "layers": 2, "feedforward": 24, "dropout": 0.0},
}


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_option_changes_the_gradient(decoder: str) -> None:
    torch.manual_seed(0)
    encoder = EncoderConfig(name="resnet18", weights=None)
    captioner = Captioner(ModelConfig.model_validate({"encoder": encoder, "decoder": DECODERS[decoder]}), WORDS).train()
    images_BCHW = torch.randint(0, 256, (B, 3, 64, 64), dtype=torch.uint8)
    tokens_BKT = torch.randint(4, WORDS, (B, K, T))
    tokens_BKT[..., 0] = SOS
    batch = Batch(images_BCHW, tokens_BKT, torch.arange(B))
    coins_BKT = coins(0, torch.tensor(3), batch.image_ids, K, T)

    def gradient(forcing: Forcing | None = None, **train: float) -> torch.Tensor:
        captioner.zero_grad()
        objective = CrossEntropy(captioner, TrainConfig(**train))
        objective(batch, StepInputs(forcing, False)).total.backward()
        return torch.cat([p.grad.flatten() for p in captioner.decoder.parameters() if p.grad is not None])

    ways = [gradient(), gradient(label_smoothing=0.1), gradient(attention_penalty=1.0)]
    ways += [gradient(Forcing(torch.tensor(0.3), coins_BKT, two_pass)) for two_pass in (False, True)]
    assert torch.equal(ways[0], gradient())
    for number, one in enumerate(ways):
        assert all(not torch.allclose(one, other, rtol=1e-3) for other in ways[:number])
