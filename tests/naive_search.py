"""What decoding is tested against: searches of one image over Python lists, on tiny random decoders.

Dimensions: B images, P grid cells, E encoder width, V vocabulary, W captions of an image.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from untrained import predict

from imgcap.config.model import AttentionLSTMConfig, DecoderConfig, LSTMConfig, TransformerConfig
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.state import DecoderState
from imgcap.text.vocabulary import Vocabulary
from imgcap.types import EOS, PAD, SOS

VOCABULARY = 7  # four special tokens and three words
WORDS = [token for token in range(VOCABULARY) if token not in (PAD, SOS, EOS)]
MAX_LENGTH = 4
IMAGES = 6
DECODERS = [
    LSTMConfig(),
    AttentionLSTMConfig(),
    AttentionLSTMConfig(layers=2, output="deep", init_state="zeros"),
    AttentionLSTMConfig(query="after", attention="dot"),
    TransformerConfig(layers=2, width=8, heads=2, feedforward=12),
]
NAMES = ["lstm", "attention", "deep", "after", "transformer"]
Words = tuple[int, ...]
Scored = list[tuple[float, Words]]
After = Callable[[Words], list[float]]


def tiny(
    config: DecoderConfig, seed: int, vocabulary: int = VOCABULARY, encoder_width: int = 10, sharp: float = 30
) -> tuple[Decoder, torch.Tensor]:
    """A random decoder and features_BPE; the weights are scaled up so that captions end early or late."""
    torch.manual_seed(seed)
    sizes = {"embed_dim": 6, "hidden_dim": 8, "attention_dim": 5}
    small = config.model_copy(update={key: size for key, size in sizes.items() if key in type(config).model_fields})
    decoder = build_decoder(small, vocabulary, encoder_width).eval()
    with torch.no_grad():
        if isinstance(config, TransformerConfig):  # fresh, it hardly looks at words and cells
            for parameter in decoder.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            sharp = min(sharp, 4)
        decoder.output.weight.mul_(sharp)
    return decoder, torch.randn(IMAGES, 4, encoder_width)


def named(vocabulary: int = VOCABULARY) -> Vocabulary:
    """A vocabulary of so many entries, of which token 4 is `w04` and so on; token 3 is <unk>."""
    return Vocabulary.build({f"w{token:02}": 1 for token in range(4, vocabulary)})


def log_probabilities(decoder: Decoder, features_PE: torch.Tensor) -> After:
    """log P of every next token after some words, by feeding the words one by one, one image and one row at a time."""

    @functools.cache
    def read(words: Words) -> tuple[list[float], DecoderState]:
        state = deepcopy(read(words[:-1])[1]) if words else decoder.init(features_PE[None], 1, 99)
        logits_11V, state, _ = decoder.step(state, torch.tensor([[words[-1] if words else SOS]]))
        return logits_11V[0, 0].log_softmax(-1).tolist(), state

    @torch.no_grad()
    def after(words: Words) -> list[float]:
        return read(words)[0]

    return after


@dataclass(frozen=True)
class Rules:
    """What a caption must hold and must not, asked of its words."""

    banned: Sequence[int] = ()
    required: Sequence[int] = ()
    min_length: int = 0
    ngram: int = 0

    def may_follow(self, words: Words) -> list[int]:
        """The tokens that are allowed after some words, were there no required ones."""
        follow = [token for token in WORDS if token not in self.banned and not self.repeats((*words, token))]
        return follow if len(words) < self.min_length else [EOS, *follow]

    def repeats(self, words: Words) -> bool:
        grams = [words[start : start + self.ngram] for start in range(len(words) - self.ngram + 1)]
        return self.ngram > 0 and len(set(grams)) < len(grams)

    def allow(self, words: Words) -> bool:
        """Of a whole caption, without its <eos>."""
        unsaid = set(self.required) - set(words)
        return not (unsaid or set(words) & set(self.banned) or len(words) < self.min_length or self.repeats(words))

    def held(self, words: Words) -> int:
        return len(set(words) & set(self.required))


FREE = Rules()


def naive_beam(after: After, beam: int, penalty: float, max_length: int = MAX_LENGTH, rules: Rules = FREE) -> Scored:
    """The textbook's loop over lists, for one image, without any early exit."""
    live: Scored = [(0.0, ())]
    finished: Scored = []
    for _ in range(max_length):
        candidates = [
            (score + after(words)[token], (*words, token)) for score, words in live for token in rules.may_follow(words)
        ]
        best = sorted(candidates, reverse=True)[:beam]
        finished += [candidate for candidate in best if candidate[1][-1] == EOS]
        live = [candidate for candidate in best if candidate[1][-1] != EOS]
    finished += ended(after, live)
    return normalised(finished, penalty)[:beam]


def naive_grid(after: After, beam: int, penalty: float, max_length: int, rules: Rules) -> Scored:
    """Grid beam search (Hokamp & Liu 2017), its required words single: a beam for each number of them that is held."""
    live: Scored = [(0.0, ())]
    finished: Scored = []
    every = len(rules.required)
    for step in range(max_length):
        banks: list[Scored] = [[] for _ in range(every + 1)]
        for score, words in live:
            for token in rules.may_follow(words):
                if token != EOS or rules.held(words) == every:
                    banks[rules.held((*words, token))].append((score + after(words)[token], (*words, token)))
        room = max_length - step - 1
        kept = [candidate for held, bank in enumerate(banks) for candidate in sorted(bank, reverse=True)[:beam]
                if every - held <= room]  # fmt: skip
        finished += [candidate for candidate in kept if candidate[1][-1] == EOS]
        live = [candidate for candidate in kept if candidate[1][-1] != EOS]
    finished += ended(after, live)
    return normalised(finished, penalty)[:beam]


def naive_diverse(
    after: After, groups: int, width: int, diversity: float, penalty: float, rules: Rules = FREE
) -> Scored:
    """Diverse beam search as Vijayakumar et al. (2018) give it: at each step group after group."""
    live: list[Scored] = [[(0.0, ())] for _ in range(groups)]
    finished: list[Scored] = [[] for _ in range(groups)]
    for _ in range(MAX_LENGTH):
        said: list[int] = []
        for group in range(groups):
            candidates = []
            for score, words in live[group]:
                for token in rules.may_follow(words):
                    true = score + after(words)[token]
                    candidates.append((true - diversity * said.count(token), true, (*words, token)))
            best = [(true, words) for _, true, words in sorted(candidates, reverse=True)[:width]]
            said += [words[-1] for _, words in best]
            finished[group] += [candidate for candidate in best if candidate[1][-1] == EOS]
            live[group] = [candidate for candidate in best if candidate[1][-1] != EOS]
    pools = [
        normalised(of_group + ended(after, rest), penalty)[:width]
        for of_group, rest in zip(finished, live, strict=True)
    ]
    merged = {words: score for pool in pools for score, words in pool}  # a caption that two groups found counts once
    return sorted(((score, words) for words, score in merged.items()), reverse=True)


def ended(after: After, live: Scored) -> Scored:
    return [(score + after(words)[EOS], (*words, EOS)) for score, words in live]


def exhaustive(after: After, penalty: float, max_length: int, rules: Rules = FREE) -> Scored:
    """Every sentence that there is, of those that the rules allow."""
    sentences: Scored = []
    for length in range(max_length + 1):
        for words in itertools.product(WORDS, repeat=length):
            if rules.allow(words):
                steps = [after(words[:t])[token] for t, token in enumerate((*words, EOS))]
                sentences.append((sum(steps), (*words, EOS)))
    return normalised(sentences, penalty)


def normalised(captions: Scored, penalty: float) -> Scored:
    return sorted(((score / len(words) ** penalty, words) for score, words in captions), reverse=True)


def found(hypotheses, image: int) -> Scored:
    rows = zip(hypotheses.scores_BW[image], hypotheses.tokens_BWL[image], hypotheses.lengths_BW[image], strict=True)
    return [(score.item(), tuple(tokens[:length].tolist())) for score, tokens, length in rows if length]


def assert_attention_of_the_best(decoder: Decoder, features_BPE: torch.Tensor, hypotheses: Hypotheses) -> None:
    """The attention is that of reading the best captions' words, and zero after their end."""
    tokens_B1T = torch.cat([torch.full((IMAGES, 1), SOS), hypotheses.tokens_BL], dim=1)[:, None]
    with torch.no_grad():
        _, attention_B1TP = predict(decoder, features_BPE, tokens_B1T)
    for image, length in enumerate(hypotheses.lengths_B.tolist()):
        torch.testing.assert_close(hypotheses.attention_BLP[image, :length], attention_B1TP[image, 0, :length])
        assert (hypotheses.attention_BLP[image, length:] == 0).all()


def assert_same(ours: Scored, naive: Scored) -> None:
    assert [words for _, words in ours] == [words for _, words in naive]
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in naive], abs=1e-4)
