"""Words that a mirrored picture would make untrue: left and right, clocks, and writing, which could not be read.

Short lists, of how such words begin; `*` before one stands for any beginning. A word that is in them by chance ("the
right moment") costs no more than the mirroring of its picture. A language that is missing is never mirrored.
"""

import re

_WORDS = {
    "en": """
        left right clock counterclock anticlock sign text letter word writ say reads spell number logo graffiti
    """,
    "de": """
        link recht uhr gegenuhr *schild text *schrift buchstab wort wörter schreib geschrieben *zahl *nummer logo
        graffiti
    """,
    "fr": """
        gauch droit horloge panneau pancarte écri texte inscri lettre mots numéro chiffre logo graffiti
    """,
    "es": """
        izquierd derech zurd diestr reloj señal letrero cartel escrit escrib texto letra palabra número logo grafiti
    """,
    "it": """
        sinistr destr mancin orolog cartell insegn segnal scritt scriv testo letter parol numer logo graffit
    """,
    "pt": """
        esquerd direit canhot destr relógio placa letreiro cartaz escrit escrev texto letra palavra número logo grafit
    """,
    "nl": """
        link recht *klok *bord tekst *schrift letter woord schrijf geschreven *nummer cijfer logo graffiti
    """,
    "ar": """
        *يسار *يمين *أيسر *أيمن *ايسر *ايمن *يسرى *يمنى *ساعة *لافتة *كتابة *مكتوب *حرف *حروف *كلمة *كلمات *رقم *شعار
    """,
}
MIRROR_WORDS = {language: tuple(words.split()) for language, words in _WORDS.items()}
_PATTERNS = {
    language: re.compile("|".join(word[1:] if word.startswith("*") else rf"\b{word}" for word in words))
    for language, words in MIRROR_WORDS.items()
}


def knows_directions(language: str) -> bool:
    """Whether there is a list for a language (a code such as `en`)."""
    return _code(language) in _PATTERNS


def may_be_mirrored(captions: list[list[str]], language: str) -> bool:
    """Whether captions, as lower-case tokens, are true of the mirrored picture too; False without a list."""
    pattern = _PATTERNS.get(_code(language))
    return pattern is not None and not any(pattern.search(" ".join(tokens)) for tokens in captions)


def _code(language: str) -> str:
    return language.partition("-")[0]
