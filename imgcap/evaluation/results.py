"""What an evaluation yields, and the files that keep it.

Dimensions: L words of a caption, P grid cells.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgcap.config.decoding import OPTIONS
from imgcap.errors import UserError
from imgcap.evaluation.signature import parts_of
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


def scores_of(run: Path, step: int, decided: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read what results/ has of a step's checkpoint: scores by label, and why those of other labels are left out.

    Scores that came about in another way than the run's configuration has (`decided`, by parts of a signature) aren't
    those that the checkpoint would get again.
    """
    folder = run / "results"
    steps = _steps_of(folder)
    scores, others = dict[str, Any](), dict[str, str]()
    for path in sorted(folder.glob("*-scores.json")):
        label = path.name.removesuffix("-scores.json")
        if steps.get(label) != step:
            others[label] = f"is not known to be of step {step}"
            continue
        scores[label] = read_json(path, _AGAIN)
        parts = parts_of(str(scores[label].get("signature", "")))
        for name in (*decided, *(option.name for option in OPTIONS)):
            if name in parts and parts[name] != str(decided.get(name)):
                now = f"{name}:{decided[name]}" if name in decided else f"no {name}"
                others[label] = f"came about with {name}:{parts[name]}, and the run has {now}"
    return {label: of for label, of in scores.items() if label not in others}, others


def _steps_of(folder: Path) -> dict[str, int]:
    """The step that each label's files in results/ are of; `UserError` where the file that says so is damaged."""
    steps = read_json(folder / STEPS, _AGAIN) if (folder / STEPS).exists() else {}
    if not isinstance(steps, dict):
        raise UserError(f"{folder / STEPS} holds no steps by label; {_AGAIN}")
    return steps
