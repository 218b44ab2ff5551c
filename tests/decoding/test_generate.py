"""What holds for every method: independence of the batch, attention, ensembles; and which options are refused."""

import math

import pytest
import torch
from naive_search import (
    DECODERS,
    IMAGES,
    MAX_LENGTH,
    assert_attention_of_the_best,
    assert_same,
    found,
    log_probabilities,
    naive_beam,
    named,
    tiny,
)
from naive_search import NAMES as DECODER_NAMES

from imgcap.config.decoding import DecodeOptions
from imgcap.config.evaluation import EvalConfig
from imgcap.decoding import search
from imgcap.decoding.generate import generate
from imgcap.decoding.search import beam_search
from imgcap.errors import UserError
from imgcap.types import PAD, SOS, UNK

METHODS = [
    DecodeOptions(beam=3, best=2),
    DecodeOptions(method="greedy"),
    DecodeOptions(beam=2, best=2, min_length=3, no_repeat_ngram=2),
    DecodeOptions(beam=2, best=2, required=("w05", "w04")),
    DecodeOptions(method="diverse", beam=4, best=4, groups=2),
    DecodeOptions(method="sample", samples=3, top_p=0.9, seed=2),
]
NAMES = ["beam", "greedy", "n-gram", "required", "diverse", "sample"]


@pytest.mark.parametrize("options", METHODS, ids=NAMES)
def test_captions_do_not_depend_on_the_batch_nor_on_who_leaves_it(
    options: DecodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, config in enumerate(DECODERS):
        decoder, features_BPE = tiny(config, seed=number)
        keys = torch.arange(IMAGES)
        results = []
        for shrink in (0.0, 1.0):
            monkeypatch.setattr(search, "SHRINK", shrink)
            arguments = ([decoder], [features_BPE], options, named(), 9)
            results.append(generate(*arguments, attention=True, image_keys=keys))
        for name in ("tokens_BWL", "lengths_BW", "scores_BW", "attention_BLP"):
            torch.testing.assert_close(*(getattr(result, name) for result in results))
        for image in range(IMAGES):
            one = slice(image, image + 1)
            alone = generate([decoder], [features_BPE[one]], options, named(), 9, image_keys=keys[one])
            assert_same(found(alone, 0), found(results[0], image))


@pytest.mark.parametrize("options", METHODS, ids=NAMES)
def test_attention_is_that_of_the_words_of_the_best_caption(options: DecodeOptions) -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=4)
    hypotheses = generate([decoder], [features_BPE], options, named(), MAX_LENGTH, attention=True)
    assert_attention_of_the_best(decoder, features_BPE, hypotheses)


@pytest.mark.parametrize("options", METHODS, ids=NAMES)
def test_an_ensemble_of_a_model_with_itself_is_the_model(options: DecodeOptions) -> None:
    for number, config in enumerate(DECODERS):
        decoder, features_BPE = tiny(config, seed=number)
        alone = generate([decoder], [features_BPE], options, named(), MAX_LENGTH)
        thrice = generate([decoder] * 3, [features_BPE] * 3, options, named(), MAX_LENGTH)
        assert (thrice.tokens_BWL == alone.tokens_BWL).all()
        torch.testing.assert_close(thrice.scores_BW, alone.scores_BW)


@pytest.mark.parametrize("other", ["lstm", "transformer"])
def test_an_ensemble_searches_the_mean_of_the_probabilities(other: str) -> None:
    """Of decoders of different kinds, with features of different width."""
    one, one_BPE = tiny(DECODERS[1], seed=1, sharp=8)
    two, two_BPE = tiny(DECODERS[DECODER_NAMES.index(other)], seed=2, encoder_width=7, sharp=8)
    hypotheses = generate([one, two], [one_BPE, two_BPE], DecodeOptions(beam=3, best=3, unk=True), named(), MAX_LENGTH)
    for image in range(IMAGES):
        after = [log_probabilities(one, one_BPE[image]), log_probabilities(two, two_BPE[image])]

        def mean(words: tuple[int, ...], after=after) -> list[float]:
            return [math.log((math.exp(a) + math.exp(b)) / 2) for a, b in zip(*(f(words) for f in after), strict=True)]

        assert_same(found(hypotheses, image), naive_beam(mean, 3, 1.0))
        assert found(hypotheses, image) != naive_beam(after[0], 3, 1.0)


def test_plain_beam_search_is_what_generate_does_unless_told_otherwise() -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=0)
    options = DecodeOptions(beam=4, best=4, length_penalty=0.3)
    ours = generate([decoder], [features_BPE], options, named(), MAX_LENGTH)
    plain = beam_search(decoder, features_BPE, 4, MAX_LENGTH, 0.3, forbidden=(PAD, SOS, UNK))
    assert (ours.tokens_BWL == plain.tokens_BWL).all() and (ours.scores_BW == plain.scores_BW).all()
    scored = generate([decoder], [features_BPE], options.model_copy(update={"unk": True}), named(), MAX_LENGTH)
    with_unk = beam_search(decoder, features_BPE, 4, MAX_LENGTH, 0.3, forbidden=(PAD, SOS))
    assert (scored.tokens_BWL == with_unk.tokens_BWL).all() and (scored.tokens_BWL != ours.tokens_BWL).any()
    greedy = generate([decoder], [features_BPE], DecodeOptions(method="greedy", unk=True), named(), MAX_LENGTH)
    assert (greedy.tokens_BL == beam_search(decoder, features_BPE, 1, MAX_LENGTH).tokens_BL).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nucleus"}, "no method 'nucleus'; choose one of beam, greedy, sample, diverse"),
        ({"beam": 0}, "beam=0 is too low; it is at least 1"),
        ({"min_length": -1}, "min_length=-1 is too low"),
        ({"length_penalty": float("nan")}, "length_penalty=nan must be a finite number, such as 1"),
        ({"best": 6}, "best=6 is more than the beam of 5; raise beam to 6"),
        ({"method": "greedy", "beam": 3}, "beam=3 is for method=beam or diverse; leave it out with method=greedy"),
        ({"method": "greedy", "best": 2}, "best=2 is for method=beam or diverse"),
        ({"method": "sample", "beam": 3}, "beam=3 is for method=beam or diverse"),
        ({"method": "sample", "best": 3}, "best=3 is for method=beam or diverse"),
        ({"method": "sample", "required": ("dog",)}, "required=.* is for method=beam or greedy"),
        ({"method": "diverse", "required": ("dog",)}, "required=.* is for method=beam or greedy"),
        ({"temperature": 0.5}, "temperature=0.5 is for method=sample; leave it out with method=beam"),
        ({"top_k": 5}, "top_k=5 is for method=sample"),
        ({"top_p": 0.5, "method": "diverse"}, "top_p=0.5 is for method=sample"),
        ({"samples": 2}, "samples=2 is for method=sample"),
        ({"seed": 2}, "seed=2 is for method=sample"),
        ({"groups": 5}, "groups=5 is for method=diverse"),
        ({"diversity": 1.0}, "diversity=1.0 is for method=diverse"),
        ({"method": "diverse", "groups": 3}, "groups=3 must divide the beam of 5"),
        ({"method": "sample", "temperature": 0.0}, "temperature=0.0 must be above 0; .* method=greedy"),
        ({"method": "sample", "top_p": 0.0}, "top_p=0.0 must be above 0"),
        ({"method": "sample", "top_p": 1.1}, "top_p=1.1 must be above 0 and at most 1"),
        ({"method": "sample", "seed": 2**32}, "is too large"),
        ({"banned": ("dog",), "required": ("dog", "cat")}, "'dog' is both banned and required; leave it out of"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DecodeOptions(**options)


def test_options_are_those_of_the_evaluation_but_for_what_is_given() -> None:
    config = EvalConfig(beam=4, length_penalty=0.6, min_length=2, no_repeat_ngram=3)
    shared = {"length_penalty": 0.6, "min_length": 2, "no_repeat_ngram": 3}
    assert DecodeOptions.like_evaluation(config) == DecodeOptions(beam=4, **shared)
    assert DecodeOptions.like_evaluation(config, beam=None, best=3, min_length=0) == DecodeOptions(
        beam=4, best=3, length_penalty=0.6, no_repeat_ngram=3
    )
    assert DecodeOptions.like_evaluation(config, method="greedy") == DecodeOptions(method="greedy", **shared)
    assert DecodeOptions.like_evaluation(config, method="sample", samples=2) == DecodeOptions(
        method="sample", samples=2, **shared
    )
    assert DecodeOptions.like_evaluation(EvalConfig()) == DecodeOptions(beam=EvalConfig().beam)
