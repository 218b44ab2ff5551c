"""The worked examples of docs/models.md do what the page says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from torch import Tensor, nn

from imgcap.config.decoding import DecodeOptions
from imgcap.config.model import EncoderConfig
from imgcap.decoding.generate import generate
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.state import Axes, DecoderState
from imgcap.models.encoders import torchvision_networks
from imgcap.models.encoders.base import Encoder
from imgcap.text.vocabulary import Vocabulary

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
FAMILY, DECODER = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_they_are_short() -> None:
    assert all(example.count("\n") < 60 for example in (FAMILY, DECODER))


@torch.no_grad()
def test_a_family_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_networks, "FAMILIES", dict(torchvision_networks.FAMILIES))
    exec(FAMILY, vars(torchvision_networks))
    monkeypatch.setattr(torchvision_networks, "PREFIXES", ("shufflenet",))
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name="shufflenet_v2_x0_5", weights=None)).eval()
    network = torchvision.models.shufflenet_v2_x0_5().eval()
    missing, surplus = network.load_state_dict(encoder.backbone.state_dict(), strict=False)
    assert not surplus and missing == ["fc.weight", "fc.bias"]
    images_BCHW = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    normalised = torchvision.transforms.Normalize(encoder.input.mean, encoder.input.std)(images_BCHW / 255)
    body = nn.Sequential(*list(network.children())[:-1])
    expected_BPE = body(normalised).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(images_BCHW), expected_BPE, atol=1e-5, rtol=1e-4)
    assert list(encoder.stages) == ["stem", "stage2", "stage3", "stage4"]


@torch.no_grad()
def test_a_decoder_searches_as_the_others_do() -> None:
    names: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor, "ClassVar": ClassVar, "Mapping": Mapping}
    names |= {"Axes": Axes, "Decoder": Decoder, "DecoderState": DecoderState, "dataclass": dataclass}
    names["__name__"] = __name__
    exec(DECODER, names)
    torch.manual_seed(0)
    vocabulary = Vocabulary.build(dict.fromkeys(("a", "dog", "runs", "sits", "here"), 1))
    decoder = names["GRUDecoder"](8, len(vocabulary), 6).eval()
    decoder.output.weight.mul_(8)
    features_BPE = torch.randn(3, 4, 6)
    tokens_BKT = torch.randint(4, len(vocabulary), (3, 2, 6))
    readout_BKTR, _ = decoder.read(decoder.init(features_BPE, 2, 6), tokens_BKT)
    state = decoder.init(features_BPE, 2, 6)
    for t in range(5):
        logits_BKV, state, _ = decoder.step(state, tokens_BKT[..., t])
        torch.testing.assert_close(logits_BKV, decoder.output(readout_BKTR[:, :, t]))
    options = DecodeOptions(beam=3)
    together = generate([decoder], [features_BPE], options, vocabulary, 5).tokens_BL
    for image in range(3):
        alone = generate([decoder], [features_BPE[image : image + 1]], options, vocabulary, 5).tokens_BL[0]
        assert alone.tolist() == together[image][: len(alone)].tolist()
