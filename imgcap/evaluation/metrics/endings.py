"""Captions that end badly, in the middle of a phrase: `a man with a`. Who trains for CIDEr may teach that."""

from collections.abc import Sequence

from imgcap.evaluation.metrics.languages import without_punctuation
from imgcap.pictures.function_words import FUNCTION_WORDS, is_function_word

# Words of these lists that also end whole captions: `a boy looks up`, `a dog with its tongue out`.
_MAY_END = {"en": frozenset(("up", "out", "off", "over", "under", "on", "by", "it", "her", "there"))}


def knows_endings(language: str) -> bool:
    """Whether there is a list of a language's function words, by which a bad ending is known."""
    return language.partition("-")[0] in FUNCTION_WORDS


def ends_badly(words: Sequence[str], language: str) -> bool:
    """Whether a caption, without <eos>, has no word or ends with one that needs another behind it."""
    worded = without_punctuation(words)
    return not worded or cannot_end(worded[-1], language)


def cannot_end(word: str, language: str) -> bool:
    """Whether a word, which is no punctuation, can't be the last of a caption."""
    if word.casefold() in _MAY_END.get(language.partition("-")[0], ()):
        return False
    return is_function_word(word, language)
