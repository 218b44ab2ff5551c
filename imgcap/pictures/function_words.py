"""Words that hold a sentence together and show nothing: articles, prepositions, conjunctions, auxiliaries, pronouns.

Short lists, of what stands in captions. Numbers, colours and places ("left", "top") are no function words here, as they
are in the stop words of spaCy: a caption speaks of them. A language that is missing has none.
"""

import unicodedata

_WORDS = {
    "en": """
        a an the of in on at to by for from with and or as is are was were be being been has have had its his
        her their it that this there while who which into onto over under up out off
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und oder in im an am auf aus bei mit nach von
        vom zu zum zur für über unter durch um ist sind wird werden hat haben sein seine seinen seinem seiner
        ihr ihre ihren ihrem ihrer sich es er sie als während
    """,
    "fr": """
        un une des le la les l' d' de du en dans sur sous à au aux avec et ou par pour est sont a ont qui que
        son sa ses leur leurs se s' il elle ils elles ce cette
    """,
    "es": """
        un una unos unas el la los las de del en a al con y e o por para sobre bajo entre es son está están que
        se su sus lo
    """,
    "it": """
        un una uno un' il lo la i gli le l' di del della dello dei degli delle dell' in nel nella nello nei
        nelle a al alla allo ai alle con e o da dal dalla per su sul sulla sulle sui è sono ha che si suo sua
        suoi sue
    """,
    "pt": """
        um uma uns umas o a os as de do da dos das em no na nos nas num numa com e ou por pelo pela para sobre
        sob é são está estão que se seu sua seus suas ao à
    """,
    "nl": """
        een de het van in op aan bij met en of uit naar door voor over onder te is zijn wordt worden heeft
        hebben die dat er zich haar hun
    """,
    "ar": """
        في من على إلى عن مع و أو أن هو هي هذا هذه التي الذي
    """,
}
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}


def is_function_word(word: str, language: str) -> bool:
    """Whether a token is a function word of a language (a code such as `en`), or no word at all but punctuation."""
    if all(unicodedata.category(character)[0] in "PS" for character in word):
        return True
    return word.casefold() in FUNCTION_WORDS.get(language.partition("-")[0], frozenset())
