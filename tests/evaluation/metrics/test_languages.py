"""Words of other languages than English: cut by their own rules, and scored by the metrics that fit them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.evaluation.metrics.languages import as_scored, fitting, tokenise_in, tokeniser_name, without_punctuation
from imgcap.evaluation.metrics.scorers import score
from imgcap.text.tokeniser import Tokeniser

FAST = ("BLEU", "ROUGE-L", "CIDEr")
PEOPLE = {  # captions whose tokens are others where they stand alone, or without their capital
    "fr": ["L'homme d'affaires qu'il voit, c'est Mme. Dupont !", "Le Dr. Martin s'assoit près d'une rivière"],
    "it": ["L'uomo nell'acqua dell'isola guarda un'altra barca.", "Il Dr. Rossi, un po' stanco, siede all'ombra"],
    "ca": ["L'home d'una col·lecció agafa l'aigua que n'hi ha.", "El Sr. Puig s'asseu a l'ombra d'un arbre"],
    "de": ["Dr. Müller wirft z.B. einen Ball, und St. Martin sieht's.", "Hr. Klein sitzt am 3. Mai in der Burgstr. 5"],
    "es": ["¿El Sr. Pérez corre con su perro del parque? ¡Sí!", "La Sra. Gil y el Dr. Ruiz, de EE.UU., comen pan"],
}
CUT = {language: Tokeniser(language) for language in [*PEOPLE, "ar", "nl", "xx", "zh"]}
OTHERS = "U.S. end.The 's foto's كلب « » ».( ; 一只狗 tv 5% ( ) \" ' - ..."
PIECES = " ".join([OTHERS, *(caption for group in PEOPLE.values() for caption in group)]).split()
REFERENCES = {
    1: ["رجل يركب دراجة حمراء في الشارع.", "رجلٌ على دراجة"],
    2: ["كلب بني، يجري على العشب", "كلب في حديقة!"],
    3: ["طفلان يلعبان بالكرة؟", "أولاد « يلعبون »"],
}


def test_arabic_words_stay_whole_and_punctuation_goes() -> None:
    assert tokenise_in("ar", REFERENCES)[2] == ["كلب بني يجري على العشب", "كلب في حديقة"]
    assert tokenise_in("ar", REFERENCES)[3] == ["طفلان يلعبان بالكرة", "أولاد يلعبون"]
    assert tokenise_in("de", {1: ["Ein Hund – z.B. ein DACKEL!"]}) == {1: ["ein hund z.b. ein dackel"]}


def test_english_is_cut_by_ptb() -> None:
    assert tokenise_in("en", {1: ["A man's dog can't sit."]}) == {1: ["a man 's dog ca n't sit"]}
    assert tokeniser_name("en") == "ptb-3.4.1"
    assert tokeniser_name("ar").endswith("blank-ar lower settled no-punctuation")


@pytest.mark.parametrize("language", PEOPLE)
def test_captions_of_the_references_tokens_score_full_marks(language: str) -> None:
    references = {number: [caption] for number, caption in enumerate(PEOPLE[language])}
    tokens = {number: CUT[language](caption) for number, caption in enumerate(PEOPLE[language])}
    scores = score({number: as_scored(words, language) for number, words in tokens.items()}, references, FAST, language)
    assert scores.pop("CIDEr") == pytest.approx(10)
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join), min_size=9), st.sampled_from(sorted(CUT)))
def test_equal_tokens_are_equal_words(captions: list[str], language: str) -> None:
    said = [as_scored(CUT[language](caption), language) for caption in captions]
    words = tokenise_in(language, {1: captions, 2: said})
    assert words[2] == words[1]


def test_tokens_are_scored_as_text_but_in_english() -> None:
    assert as_scored(["the", "dog", "'s", "ball", "."], "en") == "the dog 's ball ."
    assert as_scored(["l'", "homme", ",", "d'", "ici", "."], "fr") == "l'homme, d'ici."


def test_a_token_with_a_letter_is_no_punctuation() -> None:
    assert without_punctuation(["a", ",", "...", "«", "،", "x.", "5", "+", "-"]) == ["a", "x.", "5", "+"]


def test_captions_with_other_punctuation_score_alike() -> None:
    plain = {1: "رجل يركب دراجة حمراء في الشارع", 2: "كلب بني على العشب", 3: "طفلان يلعبان"}
    scores = score(plain, REFERENCES, FAST, "ar")
    assert score({i: f"«{caption}» ؟!" for i, caption in plain.items()}, REFERENCES, FAST, "ar") == scores
    itself = score({i: group[0] for i, group in REFERENCES.items()}, REFERENCES, FAST, "ar")
    assert itself["BLEU-2"] == pytest.approx(1) and itself["ROUGE-L"] == 1
    assert itself["CIDEr"] > scores["CIDEr"] > 0


def test_metrics_that_know_english_only_are_left_out_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fitting(("BLEU", "METEOR", "SPICE", "CIDEr"), "ar") == ("BLEU", "CIDEr")
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(" for language 'ar'")[0] for line in lines) == ["METEOR is left out", "SPICE is left out"]
    assert fitting(("BLEU", "METEOR"), "en") == ("BLEU", "METEOR")
    assert capsys.readouterr().err == ""


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(UserError, match="'qqq'"):
        score({1: "a"}, {1: ["a"]}, FAST, "qqq")
