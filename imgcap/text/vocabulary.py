"""The vocabulary: words to indices and back, as a pure function of the train split's token counts.

With `oov="characters"` a word outside the vocabulary is spelled: a space token opens it, its letters
follow, a space token closes it. Outside these borders "a" is the article, inside them the letter.
"""

import json
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from imgcap.errors import UserError, reason_of
from imgcap.files.durable import write_whole
from imgcap.types import EOS, SOS, SPECIAL_TOKENS, UNK

OutOfVocabulary = Literal["unk", "characters"]
BORDER = " "
CHARACTERS = (BORDER, *string.ascii_lowercase)
_FORMAT = "imgcap vocabulary 1"


class Vocabulary:
    """A list of words, of which the first four are the special tokens; a word's place is its index."""

    def __init__(self, words: list[str], oov: OutOfVocabulary = "unk") -> None:
        fault = _fault(words, oov)
        assert fault is None, fault
        self.words = list(words)
        self.oov = oov
        # A caption that holds "<eos>" as text must not end there, so no text maps to a special token.
        self._index = {word: index for index, word in enumerate(words) if index >= len(SPECIAL_TOKENS)}

    @classmethod
    def build(
        cls, counts: Mapping[str, int], size: int | None = None, min_count: int = 1, oov: OutOfVocabulary = "unk"
    ) -> "Vocabulary":
        """Build a vocabulary of the most frequent words; equal counts go by the alphabet.

        `size` bounds all entries, special tokens and characters among them. `UserError` where nothing fits.
        """
        fixed = [*SPECIAL_TOKENS, *(CHARACTERS if oov == "characters" else ())]
        taken = set(fixed)
        ranked = sorted((word for word in counts if word not in taken), key=lambda word: (-counts[word], word))
        frequent = [word for word in ranked if counts[word] >= min_count]
        room = len(frequent) if size is None else size - len(fixed)
        kept = frequent[: max(room, 0)]
        if room < 0 or (oov == "unk" and not kept):
            raise UserError(
                f"no word of the train split's {len(ranked)} fits in the vocabulary: vocab.size is {size}, of which "
                f"{len(fixed)} are fixed entries, and vocab.min_count is {min_count}; raise the one or lower the other"
            )
        return cls(fixed + kept, oov)

    def __len__(self) -> int:
        return len(self.words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self.words, self.oov) == (other.words, other.oov)

    def unknown_share(self, counts: Mapping[str, int]) -> float:
        """Compute which share of counted words are no entries: each is <unk>, or spelled."""
        unknown = sum(count for word, count in counts.items() if word not in self._index)
        return unknown / max(sum(counts.values()), 1)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Turn words into indices, without <sos> and <eos>; unknown words become <unk> or are spelled."""
        if self.oov == "unk":
            return [self._index.get(token, UNK) for token in tokens]
        ids: list[int] = []
        for token in tokens:
            known = self._index.get(token)
            if known is not None and token != BORDER:
                ids.append(known)
            else:
                ids.extend(self._spelled(token))
        return ids

    def row(self, tokens: Iterable[str], length: int) -> list[int]:
        """Encode a caption as <sos> words <eos>, of at most `length` indices; words too many are cut."""
        assert length >= 2, "a row has room for <sos> and <eos>"
        return [SOS, *self.encode(tokens)[: length - 2], EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn indices into words joined by spaces, as scores count them; `imgcap.text.written` is for people."""
        return " ".join(self.words_of(ids))

    def words_of(self, ids: Iterable[int]) -> list[str]:
        """Turn indices into words, up to <eos>; other special tokens are left out.

        Spelled words are whole again. A word met inside a spelled one closes it, as the end does.
        """
        words: list[str] = []
        letters: list[str] | None = None  # of the spelled word that is open
        for index in ids:
            if index == EOS:
                break
            if index < len(SPECIAL_TOKENS):
                continue
            word = self.words[index]
            if self.oov == "characters" and word == BORDER:
                words.extend(_whole(letters))
                letters = [] if letters is None else None
            elif letters is not None and len(word) == 1:
                letters.append(word)
            else:
                words.extend([*_whole(letters), word])
                letters = None
        return [*words, *_whole(letters)]

    def save(self, path: Path | str) -> None:
        """Write the vocabulary as JSON, whole or not at all."""
        content = {"format": _FORMAT, "oov": self.oov, "words": self.words}
        write_whole(Path(path), json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> "Vocabulary":
        """Read what `save` wrote; `UserError` for a missing, damaged or foreign file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            reason = f"({error.strerror}); name a folder that holds one"
            raise UserError(f"{path}: cannot read the vocabulary {reason}") from error
        except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 alike
            told = f"not a vocabulary ({reason_of(error)}); restore the file from its run or artefact"
            raise UserError(f"{path}: {told}") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            mend = "use the vocab.json of an imgcap run"
            raise UserError(f"{path}: not a vocabulary: its format is not {_FORMAT!r}; {mend}")
        words: Any = content.get("words")
        oov: Any = content.get("oov")
        fault = _fault(words, oov)
        if fault:
            raise UserError(f"{path}: a damaged vocabulary: {fault}; restore the file from its run or artefact")
        return cls(words, oov)

    def _spelled(self, token: str) -> list[int]:
        letters = [self._index.get(letter, UNK) for letter in token if letter != BORDER]
        if all(letter == UNK for letter in letters):
            return [UNK]
        border = self._index[BORDER]
        return [border, *letters, border]


def _whole(letters: list[str] | None) -> list[str]:
    return ["".join(letters)] if letters else []


def _fault(words: Any, oov: Any) -> str | None:
    """Say what is wrong with the content of a vocabulary; None where nothing is."""
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        return "its words are not a list of texts"
    if tuple(words[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        return f"it does not open with {' '.join(SPECIAL_TOKENS)}"
    if len(set(words)) != len(words):
        return "it holds a word twice"
    if oov not in get_args(OutOfVocabulary):
        return f"its rule for unknown words is {oov!r}"
    if oov == "characters" and not set(CHARACTERS) <= set(words):
        return "it lacks characters to spell with"
    return None
