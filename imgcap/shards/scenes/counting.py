"""Counting how many captions of a model are wholly true, and in what the others err."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imgcap.shards.scenes.facts import KINDS, claims
from imgcap.shards.scenes.scene import SEED, scene_at


@dataclass(frozen=True)
class FactCount:
    """Counts of true and false claims over a set of captions; `claims` and `false` by the kind of claim."""

    captions: int
    wholly_true: int
    claims: dict[str, int]
    false: dict[str, int]

    @property
    def wholly_true_share(self) -> float:
        return self.wholly_true / self.captions if self.captions else 0.0


def count_facts(results: Iterable[Mapping[str, Any]], seed: int = SEED) -> FactCount:
    """Judge results in COCO's format, of which each `image_id` is a scene's index.

    Raises `UserError` where an image_id is no scene of the demo data.
    """
    captions = wholly_true = 0
    made: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for result in results:
        judged = claims(result["caption"], scene_at(int(result["image_id"]), seed))
        captions += 1
        wholly_true += all(claim.true for claim in judged)
        made.update(claim.kind for claim in judged)
        false.update(claim.kind for claim in judged if not claim.true)
    return FactCount(captions, wholly_true, {kind: made[kind] for kind in KINDS}, {kind: false[kind] for kind in KINDS})
