"""From features to captions by `DecodeOptions`: the one entry to every search and to sampling.

Dimensions: B images, W captions of each, P grid cells, E encoder width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from imgcap.config.decoding import DecodeOptions, OptionMistake, Setting
from imgcap.data.keyed_random import coins
from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Banks, Frontier, Groups, Likeliest, Samples
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.decoding.search import search
from imgcap.errors import UserError, nearest
from imgcap.models.decoders.base import Decoder
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS, UNK


def generate(
    decoders: Sequence[Decoder],
    features_BPE: Sequence[Tensor],
    options: DecodeOptions,
    vocabulary: Vocabulary,
    max_length: int,
    attention: bool = False,
    image_keys: Tensor | None = None,
) -> Hypotheses:
    """Caption B images in at most `max_length` words, by one decoder or the mean of several.

    Each decoder has features of its own. Samples are a function of the seed and the image's key (shape (B,), int64;
    none: its place here), whatever else is in the batch. Raises `UserError` for words that the vocabulary lacks, and
    where the options leave no caption.
    """
    images, device = len(features_BPE[0]), features_BPE[0].device
    check_room(options, vocabulary, max_length)
    never, required = _never(options, vocabulary), [_token(word, vocabulary) for word in options.required]
    constraints = Constraints(torch.tensor(sorted(never), device=device), options.min_length, options.no_repeat_ngram)
    frontier: Frontier
    if options.method == "sample":
        keys = torch.arange(images) if image_keys is None else image_keys
        coins_BWT = coins(options.seed, 0, keys.to(device), options.samples, max_length)
        frontier = Samples(coins_BWT, options.temperature, options.top_k, options.top_p)
    elif options.method == "diverse":
        frontier = Groups(options.group_count, options.width // options.group_count, options.diversity)
    elif required:
        frontier = Banks(options.width, torch.tensor(required, device=device), max_length)
    else:
        frontier = Likeliest(options.width)
    ensemble = Ensemble(decoders)
    found = search(ensemble, features_BPE, frontier, constraints, max_length, options.length_penalty, attention)
    if options.method == "diverse":
        found = found.distinct()  # groups may meet
    return found.first(options.captions)


def check_room(options: DecodeOptions, vocabulary: Vocabulary, max_length: int) -> None:
    """Raise `UserError` for words that the vocabulary lacks, and where the options leave no caption.

    With as many words as a caption must have at least, no n-gram block can leave it without a next one.
    """
    words = len(vocabulary) - len(_never(options, vocabulary) | {EOS})
    required = [_token(word, vocabulary) for word in options.required]
    needed, asked = options.min_length, Setting("min_length", options.min_length)
    lengths = (asked, needed, "lower it"), (Setting("required", options.required), len(required), "require fewer")
    for setting, least, mend in lengths:
        if least > max_length:
            told = f" asks for at least {least} words and the model's captions have at most {max_length}"
            raise OptionMistake(setting, f"{told} (data.max_tokens); {mend}")
    if words < (needed if options.no_repeat_ngram else min(needed, 1)):
        raise OptionMistake(asked, f" needs more words than the {words} that are not banned; lower it or ban fewer")


def _never(options: DecodeOptions, vocabulary: Vocabulary) -> set[int]:
    """The tokens that never occur."""
    banned = [UNK if word == SPECIAL_TOKENS[UNK] else _token(word, vocabulary) for word in options.banned]
    return {PAD, SOS, *banned} if options.unk else {PAD, SOS, UNK, *banned}


def _token(word: str, vocabulary: Vocabulary) -> int:
    tokens = vocabulary.encode([word])
    if vocabulary.oov == "characters" and len(word) == 1:
        raise UserError(f"{word!r} also spells words that the vocabulary lacks, so it can't be banned or required")
    if len(tokens) != 1 or tokens[0] == UNK:
        words = [other for other in vocabulary.words if other not in SPECIAL_TOKENS]
        raise UserError(f"the vocabulary has no word {word!r}; the nearest is {nearest(word.lower(), words)!r}")
    return tokens[0]
