"""Words of other languages than English: cut by their own rules, and scored by the metrics that fit them."""

import pytest

from imgcap.errors import UserError
from imgcap.evaluation.metrics.languages import fitting, tokenise_in, tokeniser_name, without_punctuation
from imgcap.evaluation.metrics.scorers import score

FAST = ("BLEU", "ROUGE-L", "CIDEr")
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
    assert tokeniser_name("ar").endswith("blank-ar lower no-punctuation")


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
