"""Choosing the vocabulary that a trained model goes on with when the data changes: a pure function of two.

`keep`: the trained one as it is. `extend`: its words at their places, then the data's words that it lacks.
`replace`: the data's.
"""

from collections.abc import Mapping
from typing import Literal

from imgcap.errors import UserError
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import UNK

EXAMPLES = 5


def adapted(
    trained: Vocabulary, own: Vocabulary, counts: Mapping[str, int], how: Literal["keep", "extend", "replace"]
) -> Vocabulary:
    """Adapt a trained vocabulary to new data; `own` is what the data's `counts` and the `vocab` section give alone.

    Words that `own` leaves to <unk> (below `vocab.min_count`, beyond `vocab.size`) are so for every `how`. `UserError`
    where `keep` would lose a word that `own` has, and where the two differ in what they do with unknown words.
    """
    if how == "replace":
        return own
    if own.oov != trained.oov:
        raise UserError(
            f"vocab.oov={own.oov}, and the trained model's vocabulary has {trained.oov}; set vocab.oov={trained.oov}, "
            "or vocab.adapt=replace"
        )
    known = set(trained.words)
    new = [word for word in own.words if word not in known]
    if how == "extend":
        return Vocabulary(trained.words + new, trained.oov)
    lost = [word for word in new if UNK in trained.encode([word])]
    if lost:
        often = {word: f"{counts[word]:,} time{'s' if counts[word] > 1 else ''}" for word in lost[:EXAMPLES]}
        examples = ", ".join(f"{word!r} {times}" for word, times in often.items())
        more = " ..." if len(lost) > EXAMPLES else ""
        share = sum(counts[word] for word in lost) / sum(counts.values())
        raise UserError(
            f"vocab.adapt=keep: the trained model's vocabulary can't hold {len(lost):,} of the data's {len(own):,} "
            f"entries, {share:.1%} of all words in its captions ({examples}{more}); set vocab.adapt=extend or replace, "
            "or leave rarer words to <unk> by vocab.min_count"
        )
    return trained
