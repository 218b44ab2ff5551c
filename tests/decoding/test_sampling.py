"""Samples follow the model's distribution, stay in the set that is asked for, and depend on seed and image alone."""

from collections import Counter

import pytest
import torch
from naive_search import (
    DECODERS,
    IMAGES,
    MAX_LENGTH,
    WORDS,
    Rules,
    found,
    log_probabilities,
    named,
    tiny,
)

from imgcap.config.decoding import DecodeOptions
from imgcap.decoding.frontier import Samples
from imgcap.decoding.generate import generate
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.models.decoders.base import Decoder
from imgcap.types import EOS

DRAWN = 4000


def sampled(
    decoder: Decoder,
    features_BPE: torch.Tensor,
    keys: torch.Tensor | None = None,
    length: int = MAX_LENGTH,
    **options: object,
) -> Hypotheses:
    chosen = DecodeOptions(method="sample", unk=True, **options)
    return generate([decoder], [features_BPE], chosen, named(), length, image_keys=keys)


def cut(log_probs: dict[int, float], temperature: float, top_k: int | None, top_p: float) -> dict[int, float]:
    """What is drawn from, and with which probability, step by step as the papers say."""
    ranked = sorted(log_probs, key=lambda token: -log_probs[token])[:top_k]
    weights = torch.tensor([log_probs[token] for token in ranked], dtype=torch.float64).div(temperature).softmax(0)
    kept = next(n for n in range(1, len(ranked) + 1) if weights[:n].sum() >= top_p - 1e-9)
    return dict(zip(ranked, (weights[:kept] / weights[:kept].sum()).tolist(), strict=False))


def p_value(counts: Counter, expected: dict[object, float]) -> float:
    """Of Pearson's chi-square; categories of few are taken together."""
    rare = {category for category, count in expected.items() if count < 5}
    groups = [{category} for category in expected if category not in rare] + ([rare] if rare else [])
    totals = [(sum(counts[c] for c in group), sum(expected[c] for c in group)) for group in groups]
    statistic = sum((seen - count) ** 2 / count for seen, count in totals)
    return float(torch.special.gammaincc(torch.tensor((len(groups) - 1) / 2), torch.tensor(statistic / 2)))


CUTS = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 3},
    {"top_p": 0.7},
    {"temperature": 1.3, "top_k": 4, "top_p": 0.9},
]


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_whole_captions_occur_as_often_as_they_should(options: dict) -> None:
    """All captions of at most two words, by their exact probabilities. None occurs that can't."""
    decoder, features_BPE = tiny(DECODERS[1], seed=2, sharp=4)
    drawn = sampled(decoder, features_BPE[:2], length=2, samples=DRAWN, seed=5, **options)
    settings = {"temperature": 1.0, "top_k": None, "top_p": 1.0, **options}
    for image in range(2):
        after = log_probabilities(decoder, features_BPE[image])

        def follow(*words: int, after=after) -> dict[int, float]:
            return cut({token: after(words)[token] for token in (EOS, *WORDS)}, **settings)

        expected: dict[object, float] = {}
        for first, p in follow().items():
            if first == EOS:
                expected[EOS,] = DRAWN * p
                continue
            for second, q in follow(first).items():
                expected[(first, EOS) if second == EOS else (first, second, EOS)] = DRAWN * p * q
        counts = Counter(words for _, words in found(drawn, image))
        assert set(counts) <= set(expected)
        assert p_value(counts, expected) > 1e-3
        wrong = {words: expected[other] for words, other in zip(expected, reversed(expected), strict=True)}
        assert p_value(counts, wrong) < 1e-6, "the test sees no difference"


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("top_p", [0.3, 0.8, 1.0])
def test_no_word_is_drawn_from_outside_the_set(top_k: int, top_p: float) -> None:
    for number, config in enumerate(DECODERS):
        decoder, features_BPE = tiny(config, seed=number, sharp=10)
        drawn = sampled(decoder, features_BPE, samples=50, top_k=top_k, top_p=top_p)
        for image in range(IMAGES):
            after = log_probabilities(decoder, features_BPE[image])
            for words in {words for _, words in found(drawn, image)}:
                for t, word in enumerate(words[:MAX_LENGTH]):
                    log_probs = {token: after(words[:t])[token] for token in (EOS, *WORDS)}
                    assert word in cut(log_probs, 1.0, top_k, top_p)


def test_the_likeliest_word_alone_is_greedy() -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=1)
    greedy = generate([decoder], [features_BPE], DecodeOptions(method="greedy", unk=True), named(), MAX_LENGTH)
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        drawn = sampled(decoder, features_BPE, samples=3, **options)
        assert (drawn.tokens_BWL == greedy.tokens_BWL).all()


def test_edges_of_the_coin_draw_words_of_positive_weight() -> None:
    weight_W = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0])
    log_probs_RWV = weight_W.log().expand(1, 2, -1)
    coins_BWT = torch.tensor([0.0, 1 - 2**-24]).view(1, 2, 1)
    for options in ({}, {"top_k": 4}, {"top_p": 0.99}):
        frontier = Samples(coins_BWT, **options)
        tokens = frontier._draw(log_probs_RWV, coins_BWT[..., 0])[0].tolist()
        assert tokens == ([1, 3] if not options else [3, 1])  # sorted, the likeliest is first


def test_a_seed_draws_the_same_whatever_the_batch() -> None:
    for number, config in enumerate(DECODERS):
        decoder, features_BPE = tiny(config, seed=number, sharp=1)
        keys = torch.tensor([11, 2**40 + 3, 5, 2**62, 0, 7])
        together = sampled(decoder, features_BPE, keys, length=9, samples=4, seed=3)
        order = [4, 0, 5, 2]
        mixed = sampled(decoder, features_BPE[order], keys[order], length=9, samples=4, seed=3)
        for place, image in enumerate(order):
            assert (mixed.tokens_BWL[place] == together.tokens_BWL[image]).all()
            torch.testing.assert_close(mixed.scores_BW[place], together.scores_BW[image])
        alone = sampled(decoder, features_BPE[3:4], keys[3:4], length=9, samples=4, seed=3)
        assert (alone.tokens_BWL[0] == together.tokens_BWL[3]).all()
        assert not (
            sampled(decoder, features_BPE, keys, length=9, samples=4, seed=4).tokens_BWL == together.tokens_BWL
        ).all()


def test_more_samples_begin_with_the_fewer() -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=8, sharp=6)
    few, many = (sampled(decoder, features_BPE, samples=count, seed=1) for count in (3, 12))
    for image in range(IMAGES):
        assert not Counter(words for _, words in found(few, image)) - Counter(words for _, words in found(many, image))


def test_samples_obey_the_rules_and_scores_are_the_models_own() -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=9, sharp=6)
    options = {"min_length": 3, "no_repeat_ngram": 1, "banned": ("w05",), "temperature": 2.0, "length_penalty": 0.5}
    drawn = sampled(decoder, features_BPE, samples=20, **options)
    rules = Rules(banned=(5,), min_length=3, ngram=1)
    for image in range(IMAGES):
        after = log_probabilities(decoder, features_BPE[image])
        captions = found(drawn, image)
        assert captions == sorted(captions, key=lambda caption: -caption[0]) and len(captions) == 20
        for score, words in captions:
            assert rules.allow(words[:-1])
            log_prob = sum(after(words[:t])[token] for t, token in enumerate(words))
            assert score == pytest.approx(log_prob / len(words) ** 0.5, abs=1e-4)
