"""Caption pictures with an artefact's ONNX graphs: `python onnx/caption.py IMAGE ... [--beam 5] [--json]`.

It needs onnxruntime, numpy and Pillow, and neither torch nor imgcap: `imgcap export --onnx` copies this file and
written.py beside the graphs. From Python: `OnnxCaptioner(Path("ARTEFACT")).caption(["photo.jpg"])`.

Dimensions: B images, W beams, V vocabulary.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

try:
    from written import written  # type: ignore[import-not-found]  # beside this file, in an artefact
except ImportError:
    from imgcap.text.written import written

PAD, SOS, EOS, UNK = 0, 1, 2, 3
CACHE = "cache"  # of words read: their beams find them there by another part of the state
ENCODER, STEP = "onnx/encoder.onnx", "onnx/decoder_step.onnx"


class OnnxCaptioner:
    """Beam search over the graphs, as `imgcap.decoding` does: a pool of the best by log P / length ** penalty.

    Raises ValueError for a graph or vocabulary that isn't as it was exported.
    """

    def __init__(self, artefact: Path, providers: Sequence[str] = ("CPUExecutionProvider",)):
        self.config = json.loads((artefact / "config.json").read_text(encoding="utf-8"))
        content = {name: self._read(artefact, name) for name in (ENCODER, STEP, "vocab.json")}
        vocabulary = json.loads(content["vocab.json"])
        self.words, self.spells = vocabulary["words"], vocabulary["oov"] == "characters"
        self.encoder, self.step = (
            onnxruntime.InferenceSession(content[name], providers=list(providers)) for name in (ENCODER, STEP)
        )
        shapes = {tensor.name: list(tensor.shape) for tensor in self.step.get_inputs()}
        images, beams = shapes.pop("tokens")  # what the graph calls these sizes
        self.axes = {
            name: (shape.index(images), shape.index(beams)) for name, shape in shapes.items() if beams in shape
        }

    def _read(self, artefact: Path, name: str) -> bytes:
        data = (artefact / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.config["files"][name]["sha256"]:
            raise ValueError(f"{artefact / name} has changed since it was exported; export it again")
        return data

    def caption(
        self, pictures: Iterable[Path | str | Image.Image], beam: int | None = None, batch: int = 16
    ) -> list[tuple[str, float]]:
        """Caption pictures, in order: text and score of each; the beam is the artefact's own where none is given."""
        width, captions, pending = beam or self.config["eval"]["beam"], [], list(pictures)
        for start in range(0, len(pending), batch):
            images_BHWC = np.stack([self.prepare(picture) for picture in pending[start : start + batch]])
            found = self.search(images_BHWC.transpose(0, 3, 1, 2), width)
            captions += [(self.text(tokens), score) for tokens, score in found]
        return captions

    def prepare(self, picture: Path | str | Image.Image) -> np.ndarray:
        """Prepare a picture: upright, in RGB, squeezed to the square that the encoder takes, uint8 (H, W, 3)."""
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        size = self.config["data"]["image_size"]
        if not isinstance(picture, Image.Image):
            image.draft("RGB", (2 * size, 2 * size))  # a JPEG decodes smaller, never below twice the goal
        image = ImageOps.exif_transpose(image)
        if "A" in image.getbands() or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        method = Image.Resampling[self.config["data"].get("interpolation", "bilinear").upper()]
        image = image.convert("RGB").resize((size, size), method, reducing_gap=2.0)
        return np.asarray(image)

    def search(self, images_BCHW: np.ndarray, beam: int) -> list[tuple[list[int], float]]:
        """Search for the best caption of each image: tokens without <sos> and <eos>, and the score."""
        never = [PAD, SOS] if self.config["eval"].get("unk") else [PAD, SOS, UNK]
        longest, penalty = self.config["data"]["max_tokens"], self.config["eval"]["length_penalty"]
        state = _run(self.encoder, {"images": np.ascontiguousarray(images_BCHW)})
        images = np.arange(len(images_BCHW))[:, None]
        live_BW, tokens_BWT = np.zeros((len(images), 1)), np.full((len(images), 1, 1), SOS)
        pools: list[list[tuple[float, list[int]]]] = [[] for _ in images]
        for step in range(longest + 1):
            found = _run(self.step, {"tokens": np.ascontiguousarray(tokens_BWT[..., -1]), **state})
            live_BW, parent_BW, token_BW = _extend(live_BW, found["log_probs"], beam, never, last=step == longest)
            new = {name: found.get(f"next_{name}", tensor) for name, tensor in state.items()}
            state = {name: self._moved(name, tensor, parent_BW) for name, tensor in new.items()}
            tokens_BWT = np.concatenate([tokens_BWT[images, parent_BW], token_BW[..., None]], axis=2)
            for image, slot in np.argwhere((token_BW == EOS) & (live_BW > -np.inf)):
                score = float(live_BW[image, slot]) / (step + 1) ** penalty
                pools[image].append((score, tokens_BWT[image, slot, 1:-1].tolist()))
            live_BW[token_BW == EOS] = -np.inf
            pools = [sorted(pool, key=lambda found: -found[0])[:beam] for pool in pools]
            reach_B = live_BW.max(1) / (longest + 1) ** penalty  # the best that a live beam can become
            worst_B = [pool[-1][0] if len(pool) == beam else -np.inf for pool in pools]
            if (reach_B <= worst_B).all():
                break
        return [(pool[0][1], pool[0][0]) for pool in pools]

    def _moved(self, name: str, tensor: np.ndarray, parent_BW: np.ndarray) -> np.ndarray:
        """Let each beam's part of the state be that of its parent; a cache stays, and gets places for new beams."""
        if name not in self.axes:  # the beams of an image share it
            return tensor
        axes = self.axes[name]
        by_beam = np.moveaxis(tensor, axes, (0, 1))
        if name == CACHE:
            missing = max(parent_BW.shape[1] - by_beam.shape[1], 0)
            by_beam = np.pad(by_beam, [(0, missing if axis == 1 else 0) for axis in range(tensor.ndim)])
        else:
            by_beam = by_beam[np.arange(len(parent_BW))[:, None], parent_BW]
        return np.ascontiguousarray(np.moveaxis(by_beam, (0, 1), axes))

    def text(self, tokens: Iterable[int]) -> str:
        """Write the caption of tokens; in a vocabulary that spells, what stands between two spaces is one word."""
        words: list[str] = []
        letters: list[str] | None = None
        for word in [self.words[token] for token in tokens if token > UNK]:
            if self.spells and word == " ":
                words, letters = [*words, "".join(letters or [])], [] if letters is None else None
            elif letters is not None and len(word) == 1:
                letters.append(word)
            else:
                words, letters = [*words, "".join(letters or []), word], None
        said = [word for word in [*words, "".join(letters or [])] if word]
        return written(said, self.config["data"]["language"])


def _run(graph: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a graph by name."""
    return dict(zip((output.name for output in graph.get_outputs()), graph.run(None, inputs), strict=True))


def _extend(
    live_BW: np.ndarray, log_probs_BWV: np.ndarray, beam: int, never: Sequence[int], last: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extend live beams by the likeliest beams × words: log probabilities, parents, words; at last by <eos>."""
    images, beams, words = log_probs_BWV.shape
    if last:
        parent_BW = np.broadcast_to(np.arange(beams), (images, beams))
        return live_BW + log_probs_BWV[..., EOS], parent_BW, np.full((images, beams), EOS)
    candidates = live_BW[..., None] + log_probs_BWV.astype(np.float64)
    candidates[..., never] = -np.inf
    candidates = candidates.reshape(images, -1)
    width = min(beam, candidates.shape[1])
    best_BW = np.argpartition(-candidates, width - 1, axis=1)[:, :width]
    return np.take_along_axis(candidates, best_BW, axis=1), best_BW // words, best_BW % words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--beam", type=int, help="default: eval.beam of config.json")
    parser.add_argument("--json", action="store_true", help="print a list of {image, caption, score}")
    arguments = parser.parse_args()
    try:
        captioner = OnnxCaptioner(Path(__file__).resolve().parent.parent)
        found: list[Any] = captioner.caption(arguments.images, arguments.beam)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    named = [
        {"image": str(path), "caption": text, "score": score}
        for path, (text, score) in zip(arguments.images, found, strict=True)
    ]
    lines = [json.dumps(named, ensure_ascii=False, indent=1)] if arguments.json else []
    lines = lines or [f"{entry['image']}\t{entry['caption']}" for entry in named]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
