"""The search equals naive searches, on tiny real decoders whose choices are sharp."""

import pytest
import torch
from naive_search import (
    DECODERS,
    IMAGES,
    MAX_LENGTH,
    NAMES,
    WORDS,
    assert_attention_of_the_best,
    assert_same,
    exhaustive,
    found,
    log_probabilities,
    naive_beam,
    tiny,
)
from untrained import predict

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig
from imgcap.decoding import search
from imgcap.decoding.search import beam_search
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.state import DecoderState
from imgcap.types import EOS, PAD, SOS


@pytest.mark.parametrize("beam", [1, 2, 3, 4])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("config", DECODERS, ids=NAMES)
def test_equals_the_naive_search(config: DecoderConfig, beam: int, penalty: float) -> None:
    decoder, features_BPE = tiny(config, seed=beam)
    hypotheses = beam_search(decoder, features_BPE, beam, MAX_LENGTH, penalty)
    for image in range(IMAGES):
        after = log_probabilities(decoder, features_BPE[image])
        assert_same(found(hypotheses, image), naive_beam(after, beam, penalty))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("config", DECODERS, ids=NAMES)
def test_a_beam_as_wide_as_the_tree_finds_every_sentence(config: DecoderConfig, penalty: float) -> None:
    """W > V, and more beams than sentences: the rest is marked as not there."""
    decoder, features_BPE = tiny(config, seed=0)
    sentences = sum(len(WORDS) ** n for n in range(4))
    hypotheses = beam_search(decoder, features_BPE, sentences + 5, 3, penalty)
    for image in range(IMAGES):
        assert_same(found(hypotheses, image), exhaustive(log_probabilities(decoder, features_BPE[image]), penalty, 3))
    assert (hypotheses.lengths_BW[:, sentences:] == 0).all()
    assert (hypotheses.tokens_BWL[:, sentences:] == PAD).all()


@pytest.mark.parametrize("seed", range(8))
def test_one_beam_is_the_argmax_loop(seed: int) -> None:
    decoder, features_BPE = tiny(AttentionLSTMConfig(), seed)
    tokens_BL = beam_search(decoder, features_BPE, 1, MAX_LENGTH).tokens_BL
    for image in range(IMAGES):
        after = log_probabilities(decoder, features_BPE[image])
        words: tuple[int, ...] = ()
        while EOS not in words:
            choices = (EOS,) if len(words) == MAX_LENGTH else (EOS, *WORDS)
            words += (max(choices, key=after(words).__getitem__),)
        assert tuple(tokens_BL[image].tolist()) == words + (PAD,) * (MAX_LENGTH + 1 - len(words))


@pytest.mark.parametrize("config", DECODERS, ids=NAMES)
def test_a_batch_of_64_equals_one_image_at_a_time(config: DecoderConfig) -> None:
    decoder, _ = tiny(config, seed=5)
    features_BPE = torch.randn(64, 4, 10)
    together = beam_search(decoder, features_BPE, 3, 12, attention=True)
    for image in range(len(features_BPE)):
        alone = beam_search(decoder, features_BPE[image : image + 1], 3, 12, attention=True)
        assert_same(found(together, image), found(alone, 0))
        if together.attention_BLP is not None and alone.attention_BLP is not None:
            torch.testing.assert_close(together.attention_BLP[image], alone.attention_BLP[0])


def test_the_early_exit_is_taken_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, features_BPE = tiny(AttentionLSTMConfig(), seed=1)
    with torch.no_grad():
        decoder.output.bias[EOS] += 12.0  # captions end soon
    steps = 0
    step = decoder.step

    def counted(*arguments):
        nonlocal steps
        steps += 1
        return step(*arguments)

    monkeypatch.setattr(decoder, "step", counted)
    hypotheses = beam_search(decoder, features_BPE, 2, 30, 1.0)
    assert steps < 31
    monkeypatch.undo()
    for image in range(IMAGES):
        after = log_probabilities(decoder, features_BPE[image])
        assert_same(found(hypotheses, image), naive_beam(after, 2, 1.0, 30))


@pytest.mark.parametrize("config", [DECODERS[1], DECODERS[3]], ids=["attention", "after"])
def test_images_that_are_done_leave_the_search_and_nothing_changes(
    config: DecoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: dict[float, int] = {}  # images, over all steps
    for seed in range(6):
        decoder, features_BPE = tiny(config, seed)
        counting, found = Counting(decoder), []
        for shrink in (0.0, 0.75, 1.0):
            monkeypatch.setattr(search, "SHRINK", shrink)
            counting.images = 0
            found.append(beam_search(counting, features_BPE, 2, 12, length_penalty=0.3, attention=True))  # type: ignore[arg-type]
            searched[shrink] = searched.get(shrink, 0) + counting.images
        for other in found[1:]:
            for name in ("tokens_BWL", "lengths_BW", "scores_BW", "attention_BLP"):
                torch.testing.assert_close(getattr(other, name), getattr(found[0], name))
    assert searched[1.0] <= searched[0.75] < searched[0.0]


class Counting:
    """A decoder that counts the images of its steps."""

    def __init__(self, decoder: Decoder):
        self.init, self.attends, self.decoder, self.images = decoder.init, decoder.attends, decoder, 0

    def eager(self, state: DecoderState, attention: bool) -> DecoderState:
        return self.decoder.eager(state, attention)

    def step(self, state: DecoderState, token_BK: torch.Tensor) -> tuple:
        self.images += len(token_BK)
        return self.decoder.step(state, token_BK)


@pytest.mark.parametrize("beam", [1, 3])
def test_answers_even_when_nothing_wants_to_end(beam: int) -> None:
    decoder, features_BPE = tiny(AttentionLSTMConfig(), seed=2)
    with torch.no_grad():
        decoder.output.bias[EOS] -= 1000.0
    hypotheses = beam_search(decoder, features_BPE, beam, MAX_LENGTH)
    assert (hypotheses.lengths_BW == MAX_LENGTH + 1).all()
    assert (hypotheses.tokens_BWL[..., MAX_LENGTH] == EOS).all()


def test_forbidden_tokens_never_appear() -> None:
    decoder, features_BPE = tiny(AttentionLSTMConfig(), seed=3)
    with torch.no_grad():
        decoder.output.bias[[PAD, SOS, 3]] += 50.0  # the model would say nothing else
    tokens_BWL = beam_search(decoder, features_BPE, 4, MAX_LENGTH, forbidden=(PAD, SOS, 3)).tokens_BWL
    after_end = (tokens_BWL == EOS).cumsum(-1) > 0
    assert not torch.isin(tokens_BWL[~after_end], torch.tensor([PAD, SOS, 3])).any()
    assert not (tokens_BWL == 3).any()


def test_attention_is_that_of_the_words_of_the_best_caption() -> None:
    decoder, features_BPE = tiny(AttentionLSTMConfig(), seed=4)
    hypotheses = beam_search(decoder, features_BPE, 3, MAX_LENGTH, attention=True)
    assert_attention_of_the_best(decoder, features_BPE, hypotheses)


def test_scores_are_the_probabilities_of_the_tokens() -> None:
    decoder, features_BPE = tiny(AttentionLSTMConfig(), seed=6)
    hypotheses = beam_search(decoder, features_BPE, 4, MAX_LENGTH, 0.5)
    tokens_BWT = torch.cat([torch.full((IMAGES, 4, 1), SOS), hypotheses.tokens_BWL], dim=2)
    with torch.no_grad():
        logits_BWTV, _ = predict(decoder, features_BPE, tokens_BWT)
    chosen_BWL = logits_BWTV.log_softmax(-1).gather(-1, hypotheses.tokens_BWL[..., None]).squeeze(-1)
    total_BW = (chosen_BWL * (hypotheses.tokens_BWL != PAD)).sum(-1)
    torch.testing.assert_close(hypotheses.scores_BW, total_BW / hypotheses.lengths_BW**0.5)
