"""The ImgCap report's way of counting, by hand."""

import math

import pytest

from imgcap.errors import UserError
from imgcap.evaluation.metrics.report_protocol import score_as_imgcap
from imgcap.text.tokeniser import Tokeniser

words = Tokeniser("en")


def test_two_captions_counted_by_hand() -> None:
    """The cases are `<sos> a dog<eos>` for `<sos> a dog<eos>`, and `<sos> a cat<eos>` for `<sos> the cat<eos>`.

    Of their 3 + 3 words 3 + 2 are right, of their 2 + 2 pairs 2. In CIDEr the candidates weigh the words: "<sos>" and
    "a" stand in both and weigh nothing, all others ln 2. The first case is right in words, pairs and triples, and has
    no four words: 10 · 3/4. In the second the reference has two words of weight, the candidate one of these:
    10 · (1/√2)/4.
    """
    scores = score_as_imgcap({1: "A dog", 2: "a cat"}, {1: ["a dog"], 2: ["The cat"]}, words)
    assert scores["BLEU-1"] == pytest.approx(5 / 6)
    assert scores["BLEU-2"] == pytest.approx(math.sqrt(5 / 6 * 2 / 4))
    assert scores["CIDEr"] == pytest.approx((10 * 3 / 4 + 10 / math.sqrt(2) / 4) / 2)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr"]


def test_each_reference_is_a_case_and_punctuation_counts() -> None:
    """`<sos> a dog<eos>` has 2 of its 3 words in `<sos> a dog .<eos>` and 1 in `<sos> the cat<eos>`, which are 7."""
    scores = score_as_imgcap({1: "a dog"}, {1: ["a dog.", "the cat"]}, words)
    brevity = math.exp(1 - 7 / 6)
    assert scores["BLEU-1"] == pytest.approx(3 / 6 * brevity)
    assert scores["BLEU-2"] == pytest.approx(math.sqrt(3 / 6 * 1 / 4) * brevity)


def test_images_that_do_not_match_are_named() -> None:
    with pytest.raises(UserError, match="example 2"):
        score_as_imgcap({1: "a dog"}, {1: ["a dog"], 2: ["a cat"]}, words)
