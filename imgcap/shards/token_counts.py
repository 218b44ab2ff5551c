"""`token_counts.json`: how often each token and each caption length occurs in the train split."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.errors import UserError, reason_of
from imgcap.files.durable import write_hashed
from imgcap.shards.manifest import TOKEN_COUNTS_NAME, BuildSettings
from imgcap.shards.place import Place


@dataclass
class TokenCounts:
    """Counts of tokens and of caption lengths, of which alone a run's `vocab` section makes its vocabulary."""

    counts: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # tokens of a caption -> captions

    def add(self, captions: Iterable[list[str]]) -> None:
        """Count the tokens of captions."""
        for tokens in captions:
            self.counts.update(tokens)
            self.lengths[len(tokens)] += 1

    def update(self, other: "TokenCounts") -> None:
        """Add the counts of another part of the split."""
        self.counts.update(other.counts)
        self.lengths.update(other.lengths)

    def longer_than(self, tokens: int) -> int:
        """Count the captions that have more than `tokens` tokens."""
        return sum(captions for length, captions in self.lengths.items() if length > tokens)

    def as_json(self) -> dict[str, dict[str, int]]:
        """The counts as JSON holds them: the most frequent token first, equal ones by alphabet; short lengths first."""
        ranked = dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0])))
        return {"counts": ranked, "lengths": {str(length): self.lengths[length] for length in sorted(self.lengths)}}

    @classmethod
    def from_json(cls, content: dict[str, dict[str, int]]) -> "TokenCounts":
        """Read what `as_json` gave; KeyError, TypeError, ValueError or AttributeError for anything else."""
        lengths = {int(length): captions for length, captions in content.get("lengths", {}).items()}
        return cls(Counter(content["counts"]), Counter(lengths))

    def save(self, folder: Path, settings: BuildSettings) -> str:
        """Write the counts beside the shards of the train split; return the file's sha256, for the manifest."""
        content = {"tokeniser": settings.tokeniser, "language": settings.language} | self.as_json()
        return write_hashed(folder / TOKEN_COUNTS_NAME, (json.dumps(content, indent=0) + "\n").encode())

    @classmethod
    def load(cls, where: Place | Path | str) -> "TokenCounts":
        """Read a shard set's counts; `UserError` where there are none, or none that can be read."""
        place = Place.of(where)
        path = place / TOKEN_COUNTS_NAME
        try:
            return cls.from_json(json.loads(place.read(TOKEN_COUNTS_NAME)))
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path}, which the vocabulary is made from, can't be read ({reason_of(error)}); build the set "
                "again with imgcap build --force"
            ) from None
