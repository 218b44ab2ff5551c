"""Captions as people write them: cut anew they give the tokens that they were made of."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgcap.text.tokeniser import Tokeniser
from imgcap.text.written import spaces, written

TOKENISERS = {language: Tokeniser(language) for language in ("en", "de", "fr", "es", "it", "nl", "xx", "zh")}
WORDS = "a man dogs child's don't she's they're can't t-shirt three-way 3-4 5% $20 #2 u.s. x 8 i i'm would've men's"
PHRASES = [
    *WORDS.split(),
    '"i love beer"',
    "'plane'",
    "(two dogs)",
    "the dogs' ball",
    "'50s",
    "2,000 men",
    "y'all",
    "the street",
]
MARKS = [".", ",", ";", ":", "!", "?", "...", " .", " ,", " - ", ")", "(", '"', "'", ""]
captions = st.lists(st.tuples(st.sampled_from(PHRASES), st.sampled_from([*MARKS, *[""] * 10])), max_size=9).map(
    lambda pieces: " ".join(phrase + mark for phrase, mark in pieces)
)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("a dog runs , and a cat sits .", "a dog runs, and a cat sits."),
        ("he does n't see the dog 's t - shirt .", "he doesn't see the dog's t-shirt."),
        ('a sign says " stop " ( in red ) !', 'a sign says "stop" (in red)!'),
        ("the dogs ' ball costs $ 5 , 10 % less", "the dogs' ball costs $5, 10% less"),
        ("a man in a ' plane ' pose", "a man in a 'plane' pose"),
        ('a 6 " board', 'a 6 " board'),
        ("the letter a .", "the letter a ."),
        ("", ""),
    ],
)
def test_english(tokens: str, text: str) -> None:
    assert written(tokens.split()) == text
    assert written(tokens.split(), capital=True) == text[:1].upper() + text[1:]


@pytest.mark.parametrize(
    ("language", "tokens", "text"),
    [
        ("fr", "l' homme voit un chien , et sourit !", "l'homme voit un chien, et sourit !"),
        ("it", "l' uomo vede il cane .", "l'uomo vede il cane."),
        ("es", "¿ dónde está el perro ?", "¿dónde está el perro?"),
        ("de", "der hund läuft .", "der hund läuft."),
        ("ar", "كلب يجري ، وقطة .", "كلب يجري، وقطة."),
        ("zh", "一 只 狗 在 跑 。", "一只狗在跑。"),
        ("ja", "tv game を する 犬 。", "tv gameをする犬。"),
    ],
)
def test_other_languages(language: str, tokens: str, text: str) -> None:
    assert written(tokens.split(), language) == text
    if language in TOKENISERS:
        assert TOKENISERS[language](text) == tokens.split()


@settings(deadline=None, max_examples=300)
@given(captions, st.sampled_from(["en", "de", "fr", "es", "it", "nl", "xx"]), st.booleans())
def test_cut_anew_it_gives_the_same_tokens(caption: str, language: str, capital: bool) -> None:
    cut = TOKENISERS[language]
    tokens = cut(caption)
    if cut(" ".join(tokens)) == tokens:  # "Mr." and "U.S." are tokens by their capitals, which are gone
        assert cut(written(tokens, language, capital)) == tokens


@given(
    st.lists(st.text(min_size=1).filter(lambda word: not re.search(r"\s", word))), st.sampled_from(["en", "fr", "ja"])
)
def test_nothing_but_spaces_and_a_capital_changes(words: list[str], language: str) -> None:
    text = written(words, language)
    assert text.replace(" ", "") == "".join(words)
    between = spaces(text, words)
    assert between is not None
    assert "".join(space + word for space, word in zip(between, words, strict=True)) == text
    assert written(words, language, capital=True).casefold() == text.casefold()


def test_a_text_of_other_words_has_no_spaces_to_give() -> None:
    assert spaces("a cat.", ["a", "dog", "."]) is None
    assert spaces("a cat", ["a"]) is None
    assert spaces("A cat.", ["a", "cat", "."]) == ["", " ", ""]


def test_captions_of_people_come_back(real_data: Path) -> None:
    lines = (real_data / "flickr8k" / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()[::10]
    cut, lost = TOKENISERS["en"], []
    for tokens in (cut(line.split("\t")[1]) for line in lines):
        text = written(tokens)
        assert not re.search(r"\w [.,](\s|$)", text) or re.search(r"\b\w [.,]", text), text
        if cut(text) != tokens and cut(" ".join(tokens)) == tokens:
            lost.append(text)
    assert not lost
