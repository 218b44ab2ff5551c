"""Which words a trained model goes on with: kept, extended or replaced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.text.adaptation import adapted
from imgcap.text.vocabulary import Vocabulary

COUNTS = {"dog": 9, "crimson": 4, "a": 30, "disc": 2}
TRAINED = Vocabulary.build({"a": 5, "dog": 3, "red": 2})
words = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 50), min_size=1, max_size=12)


@given(words, words, st.sampled_from(["extend", "replace"]), st.sampled_from(["unk", "characters"]))
def test_trained_words_keep_their_places_and_no_word_of_the_data_is_lost(before, counts, how, oov):
    trained, own = Vocabulary.build(before, oov=oov), Vocabulary.build(counts, oov=oov)
    found = adapted(trained, own, counts, how)
    assert set(own.words) <= set(found.words)
    if how == "extend":
        assert found.words[: len(trained)] == trained.words
        assert set(found.words) == set(trained.words) | set(own.words)
    assert adapted(found, own, counts, how) == found, "adapting again changes nothing"
    assert adapted(found, own, counts, "keep") == found


def test_keep_refuses_words_that_it_cannot_hold_by_count_and_example():
    own = Vocabulary.build(COUNTS)
    with pytest.raises(UserError, match=r"can't hold 2 of the data's 8 entries, 13\.3% .*'crimson' 4 times, 'disc' 2"):
        adapted(TRAINED, own, COUNTS, "keep")
    rarer = Vocabulary.build(COUNTS, min_count=5)
    assert adapted(TRAINED, rarer, COUNTS, "keep") is TRAINED, "words below min_count are <unk>'s"


def test_a_vocabulary_that_spells_can_hold_every_word_of_letters():
    trained = Vocabulary.build({"a": 5}, oov="characters")
    assert adapted(trained, Vocabulary.build(COUNTS, oov="characters"), COUNTS, "keep") is trained
    for count, told in ((3, "'7' 3 times"), (1, r"'7' 1 time\)")):
        with pytest.raises(UserError, match=told):
            adapted(trained, Vocabulary.build({"7": count}, oov="characters"), {"7": count}, "keep")


@pytest.mark.parametrize("how", ["keep", "extend"])
def test_the_rule_for_unknown_words_cannot_change(how):
    with pytest.raises(UserError, match=r"set vocab\.oov=unk, or vocab\.adapt=replace"):
        adapted(TRAINED, Vocabulary.build(COUNTS, oov="characters"), COUNTS, how)
