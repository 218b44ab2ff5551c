"""Diverse beam search equals one over Python lists, and says different things."""

import pytest
from naive_search import (
    DECODERS,
    IMAGES,
    MAX_LENGTH,
    Rules,
    assert_same,
    found,
    log_probabilities,
    naive_beam,
    naive_diverse,
    named,
    tiny,
)

from imgcap.config.decoding import DecodeOptions
from imgcap.decoding.generate import generate
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.decoding.hypotheses import Hypotheses as Found


def diverse(decoder, features_BPE, groups: int, width: int, diversity: float, **more: object) -> Hypotheses:
    beam = groups * width
    options = DecodeOptions(
        method="diverse", beam=beam, best=beam, groups=groups, diversity=diversity, unk=True, **more
    )
    return generate([decoder], [features_BPE], options, named(), MAX_LENGTH)


@pytest.mark.parametrize(("groups", "width"), [(1, 3), (2, 1), (2, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("diversity", [0.0, 0.5, 3.0])
def test_equals_the_naive_search(groups: int, width: int, diversity: float) -> None:
    for number, config in enumerate(DECODERS):
        decoder, features_BPE = tiny(config, seed=10 * groups + number, sharp=8)
        hypotheses = diverse(decoder, features_BPE, groups, width, diversity, length_penalty=0.7)
        for image in range(IMAGES):
            after = log_probabilities(decoder, features_BPE[image])
            assert_same(found(hypotheses, image), naive_diverse(after, groups, width, diversity, 0.7))


def test_equals_the_naive_search_under_constraints() -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=3, sharp=8)
    hypotheses = diverse(decoder, features_BPE, 2, 2, 0.8, min_length=2, no_repeat_ngram=1, banned=("w05",))
    rules = Rules(banned=(5,), min_length=2, ngram=1)
    for image in range(IMAGES):
        after = log_probabilities(decoder, features_BPE[image])
        assert_same(found(hypotheses, image), naive_diverse(after, 2, 2, 0.8, 1.0, rules))


def test_one_group_is_plain_beam_search_and_groups_of_no_diversity_are_one() -> None:
    decoder, features_BPE = tiny(DECODERS[1], seed=4)
    one, same = diverse(decoder, features_BPE, 1, 3, 2.0), diverse(decoder, features_BPE, 3, 3, 0.0)
    for image in range(IMAGES):
        plain = naive_beam(log_probabilities(decoder, features_BPE[image]), 3, 1.0)
        assert_same(found(one, image), plain)
        assert_same(found(same, image), plain)  # each caption once, though three groups found it


def test_diversity_makes_first_words_differ() -> None:
    """Of groups of one beam under a high price, no two begin alike while there are other words."""
    decoder, features_BPE = tiny(DECODERS[1], seed=5)
    first = diverse(decoder, features_BPE, 4, 1, 1000.0, min_length=1).tokens_BWL[..., 0]
    assert all(len(set(words)) == 4 for words in first.tolist())
    unpriced: Found = diverse(decoder, features_BPE, 4, 1, 0.0, min_length=1)
    assert (unpriced.lengths_BW[:, 1:] == 0).all()
