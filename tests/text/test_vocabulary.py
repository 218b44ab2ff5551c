import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.text.vocabulary import CHARACTERS, Vocabulary
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS, UNK

words = st.text(alphabet="abcdefghij", min_size=1, max_size=6)
known = st.lists(words, min_size=1, max_size=20)
rules = st.sampled_from(["unk", "characters"])


@given(known, rules, st.data())
def test_known_words_come_back(train, oov, data):
    vocabulary = Vocabulary.build(Counter(train), oov=oov)
    caption = data.draw(st.lists(st.sampled_from(train)))
    assert vocabulary.decode([SOS, *vocabulary.encode(caption), EOS, PAD]) == " ".join(caption)
    assert len(vocabulary.encode(caption)) == len(caption)


@given(known, st.lists(words))
def test_with_characters_every_word_comes_back(train, caption):
    vocabulary = Vocabulary.build(Counter(train), oov="characters")
    assert vocabulary.decode(vocabulary.encode(caption)) == " ".join(caption)


def test_letters_that_are_words_keep_apart_from_spelling():
    vocabulary = Vocabulary.build({"a": 5, "dog": 2}, oov="characters")
    caption = ["a", "cat", "ibex", "a", "dog", "i", "a"]
    assert vocabulary.decode(vocabulary.encode(caption)) == "a cat ibex a dog i a"


@given(st.lists(st.integers(0, 40)))
def test_any_output_of_a_model_decodes(ids):
    vocabulary = Vocabulary.build({f"word{number}": 1 for number in range(10)}, oov="characters")
    text = vocabulary.decode(ids)
    assert text == " ".join(text.split())
    assert not set(text.split()) & set(SPECIAL_TOKENS)


def test_a_spelled_word_ends_at_the_next_word_and_at_the_end():
    vocabulary = Vocabulary.build({"dog": 1}, oov="characters")
    space, c, a, dog = (vocabulary.words.index(word) for word in (" ", "c", "a", "dog"))
    assert vocabulary.decode([space, c, a, dog, c]) == "ca dog c"
    assert vocabulary.decode([dog, space, c, a]) == "dog ca"
    assert vocabulary.decode([space, space, dog]) == "dog"


def test_characters_that_cannot_be_spelled():
    vocabulary = Vocabulary.build({"dog": 1}, oov="characters")
    assert vocabulary.encode(["42", "dog"]) == [UNK, len(vocabulary) - 1]
    assert vocabulary.decode(vocabulary.encode(["café"])) == "caf"


def test_unknown_words_and_texts_of_special_tokens_are_unk():
    vocabulary = Vocabulary.build({"dog": 2, "<eos>": 9})
    assert vocabulary.words == [*SPECIAL_TOKENS, "dog"]
    assert vocabulary.encode(["cat", "dog", "<eos>", "<pad>"]) == [UNK, 4, UNK, UNK]


def test_decode_stops_at_eos_and_skips_specials():
    vocabulary = Vocabulary.build({"a": 3, "dog": 2, "cat": 1})
    assert vocabulary.decode(np.array([SOS, 4, UNK, PAD, 5, EOS, 6])) == "a dog"


def test_ties_go_by_the_alphabet_and_not_by_the_order_of_counting():
    counts = {"pear": 2, "fig": 2, "apple": 2, "zebra": 3}
    built = Vocabulary.build(counts)
    assert built.words[4:] == ["zebra", "apple", "fig", "pear"]
    assert built == Vocabulary.build(dict(reversed(counts.items())))


@given(st.dictionaries(words, st.integers(1, 9), min_size=1), st.integers(5, 40), st.integers(1, 9), rules)
def test_size_bounds_all_entries_and_keeps_the_most_frequent(counts, size, min_count, oov):
    fixed = len(SPECIAL_TOKENS) + (len(CHARACTERS) if oov == "characters" else 0)
    try:
        vocabulary = Vocabulary.build(counts, size, min_count, oov)
    except UserError:
        assert size < fixed or (oov == "unk" and (size == fixed or max(counts.values()) < min_count))
        return
    kept = vocabulary.words[fixed:]
    left = [word for word in counts if word not in vocabulary.words]
    assert len(vocabulary) <= size
    assert all(counts[word] >= min_count for word in kept)
    if len(vocabulary) < size:
        assert all(counts[word] < min_count for word in left)
    assert min((counts[word] for word in kept), default=9) >= max((counts[word] for word in left), default=0)


@given(known, st.lists(words), st.integers(2, 12), rules)
def test_a_row_is_sos_words_eos(train, caption, length, oov):
    vocabulary = Vocabulary.build(Counter(train), oov="unk")
    assert vocabulary.row(caption, length) == [SOS, *vocabulary.encode(caption)[: length - 2], EOS]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 9), min_size=1), rules)
def test_save_and_load(tmp_path_factory, counts, oov):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    counts = {word: count for word, count in counts.items() if word.isprintable()} | {"dog": 1}
    vocabulary = Vocabulary.build(counts, oov=oov)
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    assert [file.name for file in path.parent.iterdir()] == ["vocab.json"]


def _with(**changes: object) -> str:
    good = {"format": "imgcap vocabulary 1", "oov": "unk", "words": [*SPECIAL_TOKENS, "dog"]}
    return json.dumps({**good, **changes})


DAMAGED = {
    "cut": _with()[:-5],
    "empty": "",
    "pickle": "\x80\x04\x95",
    "list": "[1, 2]",
    "foreign": '{"word2idx": {"dog": 0}}',
    "shuffled": _with(words=["dog", *SPECIAL_TOKENS]),
    "numbers": _with(words=[*SPECIAL_TOKENS, 7]),
    "no words": _with(words=None),
    "twice": _with(words=[*SPECIAL_TOKENS, "dog", "dog"]),
    "rule": _with(oov="guess"),
    "no letters": _with(oov="characters"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, content: str):
    path = tmp_path / "vocab.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"vocab\.json"):
        Vocabulary.load(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere"):
        Vocabulary.load(tmp_path / "nowhere" / "vocab.json")
