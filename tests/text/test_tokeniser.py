import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.text.tokeniser import Tokeniser

english = Tokeniser()


def test_words_and_punctuation_in_lower_case():
    assert english("A man's dog runs, quickly.") == ["a", "man", "'s", "dog", "runs", ",", "quickly", "."]


@given(st.text())
def test_nothing_but_white_space_is_lost(caption):
    tokens = english(caption)
    assert all(token.strip() for token in tokens)
    assert "".join("".join(tokens).split()) == "".join("".join(token.lower() for token in caption).split())


def test_line_separators_are_no_words():
    assert english("two \r\n dogs\u2028 run\x0b ") == ["two", "dogs", "run"]


def test_a_copy_in_another_process_splits_alike():
    english("a dog")
    copy = pickle.loads(pickle.dumps(english))
    assert copy("Don't stop") == english("Don't stop")
    assert copy.name == english.name


def test_the_name_tells_languages_apart():
    assert english.name != Tokeniser("de").name
    assert english.name.endswith("-blank-en lower")


def test_an_unknown_language_is_named():
    with pytest.raises(UserError, match="'qqq'"):
        Tokeniser("qqq")("a dog")
