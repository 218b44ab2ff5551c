"""Captions as people write them, made of the tokens that a model says.

A tokeniser cuts "the dog's t-shirt." into `the dog 's t - shirt .`, and scores count those. Here they grow together
again, so that the text, cut anew, gives the same tokens: nothing but spaces and, if asked for, one capital changes.
"""

import re
from collections.abc import Sequence

UNSPACED = ("zh", "ja", "th", "lo", "km", "my")  # written without spaces between words
_CLOSING = frozenset([*".,;:!?)]}%…”’»،؛؟۔।。，、！？：；", "..."])
_SPACED_IN_FRENCH = frozenset(";:!?%»")
_OPENING = frozenset("([{“‘¿¡$£€#")
_OF_NUMBERS = frozenset("%$£€#")  # 5%, but no dog%
_ABBREVIATED = ("a.m", "p.m", "e.g", "i.e", "vs", "v.s")  # that a full stop would belong to, as to a single letter
_SMILES = frozenset(":;=8")  # that a bracket would belong to
_NOT = ("n't", "n’t")
_CLITICS = tuple(mark + letters for mark in "'’" for letters in ("m", "re", "ve", "ll", "d"))
_MODAL = ("ca", "could", "dare", "may", "might", "must", "need", "ought", "sha", "should", "wo", "would")
_NEGATED = (*_MODAL, "ai", "are", "did", "do", "does", "had", "has", "have", "is", "was", "were")
_PRONOUNS = ("i", "you", "he", "she", "it", "we", "they", "who", "what", "when", "where", "why", "how", "there", "that")


def written(words: Sequence[str], language: str = "en", capital: bool = False) -> str:
    """Join the tokens of a caption to a text, with a capital at its beginning where one is asked for.

    `language` is a code of spaCy's. English contractions, possessives and compounds grow together too; Chinese and
    Japanese have no spaces between words, and French keeps them before `; : ! ?`.
    """
    quotes = _quotes(words)
    text = "".join(
        word if not place or _touches(words, place, language, quotes) else f" {word}"
        for place, word in enumerate(words)
    )
    return _capital(text) if capital else text


def spaces(text: str, words: Sequence[str]) -> list[str] | None:
    """What stands before each word in a written text, "" or a space; None where the text is not of these words."""
    found, place = [], 0
    for word in words:
        space = " " if text[place : place + 1] == " " and word[0] != " " else ""
        place += len(space)
        if text[place : place + len(word)].casefold() != word.casefold():
            return None
        found.append(space)
        place += len(word)
    return found if place == len(text) else None


def _capital(text: str) -> str:
    letter = re.match(r"\W*([^\W\d_])", text)  # none where a number comes first
    first = letter[1].upper() if letter else ""
    return f"{text[: letter.start(1)]}{first}{text[letter.end(1) :]}" if letter and len(first) == 1 else text


def _touches(words: Sequence[str], place: int, language: str, quotes: dict[int, bool]) -> bool:
    """Whether a word follows the one before it without a space. `quotes` says of each mark whether it opens."""
    before, word = words[place - 1], words[place]
    if language in UNSPACED:
        return not (before[-1:].isascii() and word[:1].isascii() and len(before) > 1 and before.isalnum())
    if before[-1] == word[0] == "'":  # two would be another mark
        return False
    if quotes.get(place - 1) is True or quotes.get(place) is False:
        return True
    if before in _OPENING:
        return before not in _OF_NUMBERS or word[0].isdigit()
    if word in _CLOSING:
        return _may_close(before, word, language)
    if len(before) > 1 and before[-1] in "'’" and before[:-1].isalpha():  # l'homme, y'all
        return word[0].isalpha()
    return language == "en" and _touches_in_english(words, place)


def _may_close(before: str, mark: str, language: str) -> bool:
    if language == "fr" and mark in _SPACED_IN_FRENCH:
        return False
    if mark in _OF_NUMBERS:
        return before[-1].isdigit()
    if mark == ")":
        return before not in _SMILES
    if mark == ".":
        ordinal = language != "en" and before.isdecimal()  # German's 3.
        single = len(before) == 1 and before.isalpha()
        return not (ordinal or single or before in _ABBREVIATED or before[-1] == ".")
    return before not in _CLOSING or mark not in ("…", "...")


def _touches_in_english(words: Sequence[str], place: int) -> bool:
    before, word = words[place - 1], words[place]
    if word in _NOT:
        return before in _NEGATED
    if word in ("'s", "’s"):
        return before[-1].isalnum()
    if word in _CLITICS:
        return before in _PRONOUNS or (before in _NEGATED and word[1:] == "ve")
    return (word == "-" and _compound(words, place)) or (before == "-" and _compound(words, place - 1))


def _compound(words: Sequence[str], hyphen: int) -> bool:
    """Whether a hyphen makes one of two words: t-shirt, 3-4, and no 3-year, which is a token as it is."""
    before, after, clitic = (words[place : place + 1] for place in (hyphen - 1, hyphen + 1, hyphen + 2))
    if not before or not after or (clitic and (clitic[0] in _CLITICS or clitic[0] in _NOT)):
        return False
    return (before[0].isalpha() and after[0].isalpha()) or (before[0].isdecimal() and after[0].isdecimal())


def _quotes(words: Sequence[str]) -> dict[int, bool]:
    """Of each quotation mark that has a partner, whether it opens. One that stands alone keeps its spaces.

    A single one after an s is an apostrophe, which closes: the dogs' ball.
    """
    found: dict[int, bool] = {}
    for mark in ('"', "'"):
        places = [place for place, word in enumerate(words) if word == mark]
        if mark == "'":
            owners = [place for place in places if place and words[place - 1][-1] == "s" and len(words[place - 1]) > 1]
            if len(places) % 2 or not set(places) - set(owners):
                found |= dict.fromkeys(owners, False)
                places = [place for place in places if place not in owners]
        for opening, closing in zip(places[::2], places[1::2], strict=False):
            if closing > opening + 1:
                found |= {opening: True, closing: False}
    return found
