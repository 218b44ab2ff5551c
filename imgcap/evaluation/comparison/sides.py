"""The two sides of a comparison: captions of runs or files, scored against the same references by the same rules."""

import json
from dataclasses import dataclass
from pathlib import Path

from imgcap.config.load import load_config
from imgcap.data.dataset import place_of
from imgcap.errors import UserError
from imgcap.evaluation.coco_files import (
    captions_of,
    file_names,
    names_of,
    read_references,
    read_results,
    split_of_shards,
)
from imgcap.evaluation.comparison.bootstrap import Difference, differences
from imgcap.evaluation.metrics.scorers import Scored, score_images
from imgcap.evaluation.signature import parts_of
from imgcap.shards.identity import SetIdentity
from imgcap.shards.reader import ShardReader

MUST_AGREE = ("shards", "split", "images", "references", "skipped", "results", "protocol", "tokeniser")
METRICS = ("BLEU", "ROUGE-L", "CIDEr")
BY_PROGRAMS = ("METEOR", "SPICE")  # scored by Java, and not again here: taken from what an evaluation left


@dataclass(frozen=True)
class Side:
    """One side of a comparison: captions by image, and what an evaluation left of them, if there was one.

    `signature` has the parts of the signature that they were scored under, `evaluated` the scores by Java's programs.
    """

    name: str
    captions: dict[int, str]
    signature: dict[str, str]
    evaluated: dict[str, float]
    names: dict[int, str]  # of the images' files, where the side knows them


@dataclass(frozen=True)
class Comparison:
    """Two sides with their scores and the differences. `reader` has the pictures, where there are some."""

    a: Side
    b: Side
    references: dict[int, list[str]]
    scored_a: Scored
    scored_b: Scored
    differences: dict[str, Difference]
    reader: ShardReader | None
    names: dict[int, str]  # of the images' files, where they are known

    @property
    def by_programs(self) -> dict[str, tuple[float, float]]:
        """Scores of A and B by each program that both were evaluated with."""
        sides = self.a.evaluated, self.b.evaluated
        return {name: (sides[0][name], sides[1][name]) for name in BY_PROGRAMS if all(name in side for side in sides)}

    @property
    def not_computed(self) -> dict[str, list[str]]:
        """METEOR, and what else one side was evaluated with: the names of the sides that have no such score."""
        sides = {"A": self.a.evaluated, "B": self.b.evaluated}
        absent = {name: [side for side, scores in sides.items() if name not in scores] for name in BY_PROGRAMS}
        return {name: where for name, where in absent.items() if len(where) == 1 or (where and name == "METEOR")}

    def most_changed(self, count: int) -> tuple[list[int], list[int]]:
        """Images in which B is better by the most CIDEr, and those in which A is, the most changed first."""
        change = {
            image_id: self.scored_b.images[image_id]["CIDEr"] - own["CIDEr"]
            for image_id, own in self.scored_a.images.items()
        }
        ranked = sorted((image_id for image_id in change if change[image_id]), key=lambda image_id: change[image_id])
        better = [image_id for image_id in ranked[::-1][:count] if change[image_id] > 0]
        return better, [image_id for image_id in ranked[:count] if change[image_id] < 0]


def load_sides(a: str, b: str, split: str) -> tuple[Side, Side]:
    """Load both sides: runs, whose captions of the split are meant, or files of captions in COCO's result format.

    Raises UserError where their signatures or their images show that their scores can't be compared.
    """
    first, second = _load(a, split), _load(b, split)
    if first.signature and second.signature:
        for part in MUST_AGREE:
            mine, theirs = first.signature.get(part), second.signature.get(part)
            if mine != theirs:
                raise UserError(
                    f"{a} and {b} can't be compared: the signature of one says {part}:{mine or 'none'}, of the other "
                    f"{part}:{theirs or 'none'}; evaluate both alike"
                )
    alone = first.captions.keys() ^ second.captions.keys()
    if alone:
        raise UserError(
            f"{a} and {b} can't be compared: {len(alone)} images have a caption in one of them only, for example "
            f"{(first.names | second.names).get(min(alone), min(alone))}; evaluate both on the same images"
        )
    return first, second


def compare(
    first: Side, second: Side, references: str | None, split: str, language: str | None, resamples: int, seed: int
) -> Comparison:
    """Score both sides and resample. `references` is a file or `shards/NAME:SPLIT`; none: the split of a run."""
    reader = split_of_shards(references) if references else _reader_of_run(first, second, split)
    captions = captions_of(reader) if reader is not None else read_references(str(references))
    language = language or (reader.manifest.settings.language if reader is not None else "en")
    captions = {image_id: group for image_id, group in captions.items() if image_id in first.captions}
    a, b = (score_images(side.captions, captions, METRICS, language) for side in (first, second))
    names = first.names | second.names | (names_of(reader) if reader is not None else file_names(str(references)))
    return Comparison(first, second, captions, a, b, differences(a, b, resamples, seed), reader, names)


def _load(where: str, split: str) -> Side:
    path = Path(where)
    if path.is_dir():
        path = path / "results" / f"{split}-captions.json"
        if not path.exists():
            raise UserError(f"{where} has no {path.relative_to(where)}; run imgcap evaluate {where} --split {split}")
    scores = path.with_name(path.name.replace("-captions.json", "-scores.json"))
    signature, evaluated = "", {}
    if scores != path and scores.exists():
        try:
            content = json.loads(scores.read_text(encoding="utf-8"))
            signature = content["signature"]
            evaluated = {name: float(content[name]) for name in BY_PROGRAMS if name in content}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{scores} is no file of scores; evaluate again, or remove it") from None
    captions = read_results(str(path))
    return Side(where.rstrip("/"), captions, parts_of(signature), evaluated, file_names(str(path)))


def _reader_of_run(first: Side, second: Side, split: str) -> ShardReader:
    """The split that the captions are of, from the configuration of a side that is a run."""
    side = next((side for side in (first, second) if (Path(side.name) / "config.yaml").exists()), None)
    if side is None:
        raise UserError("neither side is a run; name the captions that people wrote with --references")
    of = side.signature.get("split", split)  # the label of files says more: test-first-100
    try:
        reader = ShardReader(place_of(load_config(Path(side.name) / "config.yaml").data), of)
    except UserError as reason:
        raise UserError(f"{reason}; or name the set with --references shards/NAME:{of}") from None
    here = str(SetIdentity.of(reader))
    if side.signature.get("shards", here) != here:
        raise UserError(
            f"{side.name} was scored on {side.signature['shards']}, and {reader.place} is {here}; evaluate again, or "
            "name the set with --references shards/NAME:SPLIT"
        )
    return reader
