"""Searches under constraints equal naive ones and exhaustive ones, and no caption breaks a rule."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_search import (
    DECODERS,
    IMAGES,
    MAX_LENGTH,
    WORDS,
    Rules,
    Scored,
    assert_same,
    exhaustive,
    found,
    log_probabilities,
    naive_beam,
    naive_grid,
    named,
    tiny,
)

from imgcap.config.decoding import DecodeOptions
from imgcap.decoding.generate import generate
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.errors import UserError
from imgcap.models.decoders.base import Decoder
from imgcap.types import EOS, UNK

VOCABULARY = named()
RULES = [
    Rules(min_length=3),
    Rules(ngram=1),
    Rules(ngram=2),
    Rules(banned=(UNK, 5)),
    Rules(banned=(4,), min_length=2, ngram=2),
]
REQUIRED = [
    Rules(required=(5,)),
    Rules(required=(6, 4)),
    Rules(required=(4, 5, 6)),
    Rules(required=(5,), min_length=3, ngram=1, banned=(UNK,)),
    Rules(required=(6, 5), min_length=4, ngram=2),
]


def constrained(
    decoder: Decoder, features_BPE: torch.Tensor, rules: Rules, max_length: int = MAX_LENGTH, **options: object
) -> Hypotheses:
    words = {name: tuple(VOCABULARY.words[token] for token in getattr(rules, name)) for name in ("banned", "required")}
    every = {"min_length": rules.min_length, "no_repeat_ngram": rules.ngram, **words, **options}
    every["unk"] = UNK not in rules.banned
    return generate([decoder], [features_BPE], DecodeOptions(**every), VOCABULARY, max_length)


def assert_equal_to(naive: Callable[..., Scored], rules: Rules, beam: int) -> None:
    for config in DECODERS:
        decoder, features_BPE = tiny(config, seed=beam)
        hypotheses = constrained(decoder, features_BPE, rules, beam=beam, best=beam, length_penalty=0.7)
        for image in range(IMAGES):
            after = log_probabilities(decoder, features_BPE[image])
            assert_same(found(hypotheses, image), naive(after, beam, 0.7, MAX_LENGTH, rules))


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_equals_the_naive_search(rules: Rules, beam: int) -> None:
    assert_equal_to(naive_beam, rules, beam)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("rules", REQUIRED, ids=str)
def test_required_words_equal_the_naive_grid(rules: Rules, beam: int) -> None:
    assert_equal_to(naive_grid, rules, beam)


@pytest.mark.parametrize("rules", [*RULES[:3], Rules(banned=(5,), min_length=2, ngram=2), *REQUIRED[:4]], ids=str)
def test_a_beam_as_wide_as_the_tree_finds_every_sentence_that_is_allowed(rules: Rules) -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=0)
    hypotheses = constrained(decoder, features_BPE, rules, max_length=3, beam=90, best=90)
    for image in range(IMAGES):
        every = exhaustive(log_probabilities(decoder, features_BPE[image]), 1.0, 3, rules)
        assert_same(found(hypotheses, image), every)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_caption_breaks_a_rule(data: st.DataObject) -> None:
    """Whatever the rules, the beam and the decoder; and each image has a caption."""
    max_length = data.draw(st.integers(3, 8), "max_length")
    required = data.draw(st.lists(st.sampled_from(WORDS[1:]), unique=True, max_size=3), "required")
    banned = data.draw(st.lists(st.sampled_from(WORDS), unique=True, max_size=2), "banned")
    banned = [token for token in banned if token not in required]
    ngram = data.draw(st.integers(0, 3), "ngram")
    longest = len(WORDS) - len(banned) if ngram else max_length  # so many words there are without a repetition
    rules = Rules(banned, required, data.draw(st.integers(0, min(longest, max_length)), "min_length"), ngram)
    beam = data.draw(st.integers(1, 4), "beam")
    config = data.draw(st.sampled_from(DECODERS), "decoder")
    decoder, features_BPE = tiny(config, data.draw(st.integers(0, 1000), "seed"))
    hypotheses = constrained(decoder, features_BPE, rules, max_length, beam=beam, best=beam)
    for image in range(IMAGES):
        captions = found(hypotheses, image)
        assert captions and len(set(captions)) == len(captions)
        for score, (*words, end) in captions:
            assert end == EOS and rules.allow(tuple(words)) and score > -float("inf")


def test_a_required_word_that_the_model_would_say_costs_nothing() -> None:
    """A bank search whose words are in the plain best caption finds it, or a better one."""
    decoder, features_BPE = tiny(DECODERS[1], seed=7)
    plain = constrained(decoder, features_BPE, Rules(), beam=4)
    for image in range(IMAGES):
        score, words = found(plain, image)[0]
        required = tuple(sorted(set(words) - {EOS, UNK}))
        again = constrained(decoder, features_BPE[image : image + 1], Rules(required=required), beam=40)
        assert found(again, 0)[0][0] >= score - 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"required": ["w99"]}, r"no word 'w99'; the nearest is 'w0\d'"),
        ({"banned": ["W05"]}, "no word 'W05'; the nearest is 'w05'"),
        ({"required": ["<unk>"]}, "no word '<unk>'"),
        ({"min_length": 5}, r"^min_length=5 asks for at least 5 words .* at most 4 \(data.max_tokens\); lower it"),
        ({"required": ["w04", "w05", "w06"], "beam": 2}, None),
        ({"min_length": 4, "no_repeat_ngram": 1, "banned": ["w05"]}, "min_length=4 needs more words than the 2"),
        ({"min_length": 1, "banned": ["w04", "w05", "w06", "<unk>"]}, "needs more words than the 0"),
    ],
)
def test_words_and_lengths_that_cannot_be_are_refused(options: dict, message: str | None) -> None:
    decoder, features_BPE = tiny(DECODERS[0], seed=0)
    arguments = ([decoder], [features_BPE], DecodeOptions(**options), VOCABULARY, MAX_LENGTH)
    if message is None:
        generate(*arguments)
    else:
        with pytest.raises(UserError, match=message):
            generate(*arguments)


def test_more_required_words_than_fit_are_refused() -> None:
    decoder, features_BPE = tiny(DECODERS[0], seed=0)
    options = DecodeOptions(required=("w04", "w05", "w06"))
    with pytest.raises(
        UserError, match=r"^required=.* at least 3 words .* at most 2 \(data.max_tokens\); require fewer"
    ):
        generate([decoder], [features_BPE], options, VOCABULARY, 2)


def test_letters_that_spell_are_no_words() -> None:
    decoder, features_BPE = tiny(DECODERS[0], seed=0, vocabulary=32)
    spelling = VOCABULARY.build({"cat": 1}, oov="characters")
    assert len(spelling) == 32
    for word in ("a", " "):
        with pytest.raises(UserError, match="also spells words"):
            generate([decoder], [features_BPE], DecodeOptions(banned=(word,)), spelling, MAX_LENGTH)
