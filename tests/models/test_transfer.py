"""Weights carried into another vocabulary: what is known stays, what is new is no loud word."""

from pathlib import Path

import pytest
import torch
from untrained import predict

from imgcap.config.load import load_config
from imgcap.models.captioner import Captioner
from imgcap.models.trained import LoadedCaptioner
from imgcap.models.transfer import transferred
from imgcap.text.vocabulary import Vocabulary

TRAINED = Vocabulary.build({"a": 5, "dog": 3, "red": 2, "cat": 1})
OTHER = Vocabulary.build({"crimson": 9, "dog": 8, "a": 7})
DECODERS = [
    "{type: attention_lstm, embed_dim: 8, hidden_dim: 12, attention_dim: 6}",
    "{type: lstm, embed_dim: 8, hidden_dim: 12}",
    "{type: transformer, width: 8, heads: 2}",
    "{type: transformer, width: 8, heads: 2, tie_embeddings: false}",
]
ROWS = ("decoder.embedding.weight", "decoder.output.weight", "decoder.output.bias")


@pytest.fixture(params=DECODERS)
def source(request: pytest.FixtureRequest) -> LoadedCaptioner:
    torch.manual_seed(0)
    overrides = ["model.encoder={name: resnet18, weights: none}", f"model.decoder={request.param}"]
    config = load_config(None, overrides)
    model = Captioner(config.model, len(TRAINED)).eval()
    torch.nn.init.normal_(model.decoder.output.bias)
    return LoadedCaptioner(model, TRAINED, config, Path("nowhere"), None)


@torch.no_grad()
def test_each_word_that_both_know_keeps_its_rows_and_all_else_its_weights(source: LoadedCaptioner) -> None:
    found = transferred(source, source.config.model, OTHER).state_dict()
    weights = source.model.state_dict()
    for name, weight in weights.items():
        if name not in ROWS:
            assert torch.equal(found[name], weight), name
    for name in ROWS:
        assert len(found[name]) == len(OTHER)
        for word in ("<pad>", "<sos>", "<eos>", "<unk>", "a", "dog"):
            assert torch.equal(found[name][OTHER.words.index(word)], weights[name][TRAINED.words.index(word)])


@torch.no_grad()
def test_with_the_same_vocabulary_it_is_the_same_model(source: LoadedCaptioner) -> None:
    model = transferred(source, source.config.model, TRAINED).eval()
    images_BCHW, tokens_BKT = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), torch.randint(4, 8, (2, 2, 5))
    assert torch.equal(model(images_BCHW, tokens_BKT)[0], source.model(images_BCHW, tokens_BKT)[0])


@torch.no_grad()
def test_a_new_word_has_the_mean_logit_of_the_trained_ones(source: LoadedCaptioner) -> None:
    extended = Vocabulary([*TRAINED.words, "crimson", "disc"])
    model = transferred(source, source.config.model, extended).eval()
    features_BPE = torch.randn(2, 4, 512)
    tokens_BKT = torch.randint(4, 8, (2, 2, 5))
    logits_BKTV, _ = predict(model.decoder, features_BPE, tokens_BKT)
    before_BKTV, _ = predict(source.model.decoder, features_BPE, tokens_BKT)
    mean_BKT1 = before_BKTV[..., 4:].mean(-1, keepdim=True)
    torch.testing.assert_close(logits_BKTV, torch.cat([before_BKTV, mean_BKT1, mean_BKT1], -1))
    embedded_ND = model.decoder.embedding.weight[len(TRAINED) :]
    tied = model.decoder.output.weight is model.decoder.embedding.weight
    assert torch.equal(embedded_ND[0], embedded_ND[1]) == tied
