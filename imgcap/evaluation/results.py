"""What an evaluation yields, and the files that keep it.

Dimensions: L words of a caption, P grid cells.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgcap.errors import UserError
from imgcap.files.durable import write_whole
from imgcap.files.text import read_json

STEPS = "steps.json"
_AGAIN = "evaluate again, or remove it"


@dataclass(frozen=True)
class Example:
    """An image with its caption as people write it, to look at. The attention has a row for each word."""

    image_id: int
    file: str
    image: Image.Image
    caption: str
    references: list[str]
    words: list[str]
    attention_LP: np.ndarray | None  # None for a decoder that doesn't attend
    grid: tuple[int, int]


@dataclass(frozen=True)
class Evaluation:
    """Scores and captions of a split: the same on every rank and for every number of ranks.

    `images` has each image's own scores, and `diversity` how varied the captions are. The loss is the cross-entropy a
    token in nats, of the true captions under teacher forcing. Examples are on rank 0 only.
    """

    split: str
    scores: dict[str, float]
    loss: float
    signature: str
    captions: list[dict[str, Any]]  # COCO result format: {"image_id", "image", "caption"}; "image" is the file's name
    images: list[dict[str, Any]]  # {"image_id", "image", "BLEU-4", "ROUGE-L", "CIDEr"}
    diversity: dict[str, float]
    examples: list[Example] = field(default_factory=list)
    trained_on: str | None = None  # the model's set, where another was scored; the signature names that

    def as_json(self) -> dict[str, Any]:
        told = {**self.scores, "loss": self.loss, "signature": self.signature, "diversity": self.diversity}
        return told | ({"trained_on": self.trained_on} if self.trained_on else {})


def write_results(run: Path, evaluation: Evaluation, step: int, label: str | None = None) -> None:
    """Write results/LABEL-captions.json, -scores.json and -images.json under `run`, each whole or not at all.

    The label is the split where none is given. results/steps.json says of which checkpoint each label's files are, and
    nothing of them while they are written: a run that is killed there has old scores of no checkpoint.
    """
    folder, label = run / "results", label or evaluation.split
    steps = folder / STEPS
    try:
        others = {other: known for other, known in _steps_of(folder).items() if other != label}
    except UserError:  # damaged: what was scored just now is worth more than it
        others = {}
    write_json(steps, others)
    write_json(folder / f"{label}-captions.json", evaluation.captions)
    write_json(folder / f"{label}-scores.json", evaluation.as_json())
    write_json(folder / f"{label}-images.json", evaluation.images)
    write_json(steps, {**others, label: step})


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole. Folders that are missing are made: scoring took too long to fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def scores_of(run: Path, step: int) -> tuple[dict[str, Any], list[str]]:
    """Read what results/ has of a step's checkpoint: scores by label, and the labels whose scores are of another."""
    folder = run / "results"
    steps = _steps_of(folder)
    written = {path.name.removesuffix("-scores.json"): path for path in sorted(folder.glob("*-scores.json"))}
    mine = {label: path for label, path in written.items() if steps.get(label) == step}
    scores = {label: read_json(path, _AGAIN) for label, path in mine.items()}
    return scores, [label for label in written if label not in mine]


def _steps_of(folder: Path) -> dict[str, int]:
    """The step that each label's files in results/ are of; `UserError` where the file that says so is damaged."""
    steps = read_json(folder / STEPS, _AGAIN) if (folder / STEPS).exists() else {}
    if not isinstance(steps, dict):
        raise UserError(f"{folder / STEPS} holds no steps by label; {_AGAIN}")
    return steps
