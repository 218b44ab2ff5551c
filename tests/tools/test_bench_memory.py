"""The memory of a step, counted: every tensor while it lives, and a law that holds for other batches."""

import pytest
import torch

from imgcap.config.load import load_config
from imgcap.config.model import EncoderConfig
from imgcap.models.encoders.base import Encoder
from tools.bench import counting
from tools.bench.memory import GIB, LiveTensors, encoder_operations, memory_of, peaks_of_step

TINY = ["data.image_size=32", "data.max_tokens=6", "model.encoder.weights=none", "train.precision=fp32"]
SMALL = ["model.encoder.name=resnet18", "model.decoder.embed_dim=8", "model.decoder.attention_dim=8"]


def test_a_tensor_counts_while_it_lives_and_a_view_of_it_not_again() -> None:
    given = torch.zeros(100)
    with LiveTensors([given]) as tensors:
        assert tensors.live == 400
        more = given + 1
        view = more[:50]
        assert tensors.live == 800
        del more
        assert tensors.live == 800, "the view still holds it"
        del view
        assert tensors.live == 400
    assert tensors.turn() == 800 and tensors.turn() == 400


def test_what_autograd_keeps_counts() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with LiveTensors([weight]) as tensors:
        loss = weight.exp().sum()
        assert tensors.live == 8004, "the result of exp, which its gradient needs"
        loss.backward()
        del loss
        assert tensors.live == 8000, "weight and gradient"


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["none", "all"])
def test_the_law_of_few_images_holds_for_more(trained: str) -> None:
    config = load_config(None, [*TINY, *SMALL, f"model.encoder.train={trained}"])
    found = memory_of(config, 50, images=8)
    predicted = found["fixed_gib"] * GIB + 32 * found["mib_an_image"] * 2**20
    assert max(peaks_of_step(config, 50, 32)) == pytest.approx(predicted, rel=0.1)


@pytest.mark.slow
def test_what_trains_has_a_gradient_and_two_moments() -> None:
    frozen, trained = (
        memory_of(load_config(None, [*TINY, *SMALL, f"model.encoder.train={which}"]), 50, images=2)
        for which in ("none", "all")
    )
    assert trained["trainable"] - frozen["trainable"] == frozen["frozen"]
    # Three more of each weight, but none of the copy that frozen stages run as.
    assert (trained["fixed_gib"] - frozen["fixed_gib"]) * GIB >= 1.9 * 4 * frozen["frozen"]
    assert trained["mib_an_image"] > frozen["mib_an_image"]


def test_a_finer_grid_costs_an_encoder_more_and_the_usual_one_what_torchvision_s_does_but_for_its_classifier() -> None:
    with torch.device("meta"):
        usual, fine = (
            Encoder(EncoderConfig(name="resnet18", weights=None, output_stride=stride)) for stride in (32, 16)
        )
    assert encoder_operations(usual, 64) == counting.encoder_operations("resnet18", 64) - 2 * 512 * 1000
    assert encoder_operations(fine, 64) > 1.4 * encoder_operations(usual, 64)
