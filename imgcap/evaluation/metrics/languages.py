"""What the language of the captions decides about scoring: how they are cut into words, and which metrics fit."""

import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from imgcap.config.evaluation import BY_CLIP
from imgcap.errors import is_main_process
from imgcap.evaluation.metrics.ptb import PTB, tokenise
from imgcap.text.tokeniser import Tokeniser
from imgcap.text.written import written

ENGLISH = "en"
ENGLISH_ONLY = {
    "METEOR": "its stems, synonyms and paraphrases are those of English",
    "SPICE": "its parser and its WordNet are those of English",
    **dict.fromkeys(BY_CLIP, "CLIP reads English"),
}


def tokeniser_name(language: str) -> str:
    """Name of a language's tokeniser in a signature: PTB for English, spaCy's for any other."""
    return PTB if language == ENGLISH else f"{Tokeniser(language).name} settled no-punctuation"


def as_scored(words: Sequence[str], language: str) -> str:
    """Join the tokens of a caption to the text that is scored.

    In English that is the tokens with spaces between them, which PTB takes. spaCy would cut these once more (`l'` has
    two tokens where no word follows), so that other languages have the text as people write it.
    """
    return " ".join(words) if language == ENGLISH else written(words, language)


def tokenise_in(language: str, captions: dict[int, list[str]]) -> dict[int, list[str]]:
    """Cut the captions of each image into lower-case words without punctuation, joined by spaces.

    UserError for a language that spaCy has no tokeniser for.
    """
    if language == ENGLISH:
        return tokenise(captions)
    cut = Tokeniser(language)
    return {
        image_id: [" ".join(without_punctuation(_settled(cut(caption), cut))) for caption in group]
        for image_id, group in captions.items()
    }


def _settled(tokens: list[str], cut: Tokeniser) -> list[str]:
    """Write tokens and cut them anew until that changes nothing: equal tokens, written, then give equal words.

    "Dr." is a token by its capital, "dr." is two. Where cutting goes in a circle, the least of it is taken.
    """
    seen: list[list[str]] = []
    while tokens not in seen:
        seen.append(tokens)
        tokens = cut(written(tokens, cut.language))
    return min(seen[seen.index(tokens) :])


def without_punctuation(tokens: Iterable[str]) -> list[str]:
    """Leave out the tokens that hold nothing but Unicode's punctuation."""
    return [token for token in tokens if not all(unicodedata.category(letter)[0] == "P" for letter in token)]


def fitting(metrics: Collection[str], language: str) -> tuple[str, ...]:
    """The metrics that can score this language; a line on stderr, from rank 0, names each one that can't."""
    unfit = [name for name in metrics if language != ENGLISH and name in ENGLISH_ONLY]
    for name in unfit if is_main_process() else ():
        print(f"{name} is left out for language {language!r}: {ENGLISH_ONLY[name]}", file=sys.stderr, flush=True)
    return tuple(name for name in metrics if name not in unfit)
