"""The search of two images that docs/decoding.md follows, row by row."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Chosen, Likeliest, Prefixes
from imgcap.decoding.search import search
from imgcap.types import EOS, PAD, SOS, SPECIAL_TOKENS

WORDS = [*SPECIAL_TOKENS, "a", "cat", "dog"]
FOLLOWS = [  # of each image, the probability of a word after another
    {"<sos>": {"cat": 0.6, "a": 0.3, "<eos>": 0.1}, "a": {"cat": 0.9, "<eos>": 0.1}, "cat": {"<eos>": 0.9, "a": 0.1}},
    {
        "<sos>": {"a": 0.6, "dog": 0.3, "<eos>": 0.1},
        "a": {"dog": 0.6, "cat": 0.3, "<eos>": 0.1},
        "dog": {"<eos>": 0.8, "a": 0.2},
        "cat": {"<eos>": 0.5, "a": 0.5},
    },
]
MAX_LENGTH = 3
DOCUMENT = Path(__file__).parents[2] / "docs" / "decoding.md"


class Images(NamedTuple):
    """What the table's decoder remembers: which image each row is of."""

    number_B: torch.Tensor

    def select(self, images_S: torch.Tensor) -> "Images":
        return Images(self.number_B[images_S])

    def reorder(self, beams_BW: torch.Tensor) -> "Images":
        return self


class Table:
    """A decoder that looks the next word up."""

    def __init__(self) -> None:
        self.images: list[int] = []  # of each step
        self.probability_BVV = torch.full((len(FOLLOWS), len(WORDS), len(WORDS)), 1 / len(WORDS))
        for image, follows in enumerate(FOLLOWS):
            for word, after in follows.items():
                self.probability_BVV[image, WORDS.index(word)] = 0.0
                for following, probability in after.items():
                    self.probability_BVV[image, WORDS.index(word), WORDS.index(following)] = probability

    def init(self, features_BPE: torch.Tensor, rows: int, length: int) -> Images:
        return Images(torch.arange(len(features_BPE)))

    def eager(self, state: Images, attention: bool) -> Images:
        return state

    def step(self, state: Images, token_BK: torch.Tensor) -> tuple[torch.Tensor, Images, None]:
        self.images.append(len(token_BK))
        return self.probability_BVV[state.number_B[:, None], token_BK].log(), state, None


class Told(Likeliest):
    """Plain beam search that tells what it chooses, as lines of a table."""

    def __init__(self, beam: int):
        super().__init__(beam)
        self.lines: list[str] = []
        self.images = list(range(len(FOLLOWS)))

    def select(self, images_S: torch.Tensor) -> "Told":
        self.images = [self.images[place] for place in images_S.tolist()]
        return self

    def extend_(self, prefixes: Prefixes, log_probs_RWV: torch.Tensor) -> Chosen:
        chosen = super().extend_(prefixes, log_probs_RWV)
        step = int(prefixes.step)
        for row, image in enumerate(self.images):
            told, reach = [], -torch.inf
            for log_prob, parent, token in zip(*(values_RW[row].tolist() for values_RW in chosen), strict=True):
                words = [*prefixes.words_RWL[row, parent, :step].tolist(), token]
                told.append(f"{' '.join(WORDS[word] for word in words)} {log_prob:.2f}")
                if token == EOS:
                    told[-1] += f" → {log_prob / len(words):.2f}"
                else:
                    reach = max(reach, log_prob / (MAX_LENGTH + 1))
            self.lines.append(f"| {step} | {image} | {' | '.join(told)} | {reach:.2f} |".replace("<eos>", "∎"))
        return chosen


def worked() -> Iterator[str]:
    frontier, decoder = Told(beam=2), Table()
    ensemble, constraints = Ensemble([decoder]), Constraints(torch.tensor([PAD, SOS]))  # type: ignore[list-item]
    found = search(ensemble, [torch.zeros(len(FOLLOWS), 1, 1)], frontier, constraints, MAX_LENGTH, 1.0, False)
    assert decoder.images == [2, 2, 2, 1], "image 0 is done and leaves"
    yield "\n".join(frontier.lines)
    for tokens_WL, scores_W in zip(found.tokens_BWL.tolist(), found.scores_BW.tolist(), strict=True):
        captions = (" ".join(WORDS[token] for token in tokens_L if token not in (EOS, PAD)) for tokens_L in tokens_WL)
        yield ", ".join(f"“{caption}” {score:.2f}" for caption, score in zip(captions, scores_W, strict=True))


def test_the_worked_search_is_what_happens() -> None:
    document = DOCUMENT.read_text()
    for told in worked():
        assert told in document
