"""Caption pictures with an artefact's ONNX graphs: `python onnx/caption.py IMAGE ... [--beam 5] [--json]`.

It needs onnxruntime, numpy and Pillow, and neither torch nor imgcap: `imgcap export --onnx` copies this file,
opening.py and written.py beside the graphs. From Python: `OnnxCaptioner(Path("ARTEFACT")).caption(["photo.jpg"])`.
A picture that can't be read is named on stderr and left out; the exit code is 2 when none could be read.

Dimensions: B images, W beams, V vocabulary.
"""

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

try:  # beside this file, in an artefact
    from opening import UnreadableImage, on_one_line, open_picture, rgb  # type: ignore[import-not-found]
    from written import written  # type: ignore[import-not-found]
except ImportError:
    from imgcap.pictures.opening import UnreadableImage, on_one_line, open_picture, rgb
    from imgcap.text.written import written

PAD, SOS, EOS, UNK = 0, 1, 2, 3
CACHE = "cache"  # of words read: their beams find them there by another part of the state
ENCODER, STEP = "onnx/encoder.onnx", "onnx/decoder_step.onnx"


class OnnxCaptioner:
    """Beam search over the graphs, as `imgcap.decoding` does: a pool of the best by log P / length ** penalty.

    Raises ValueError for a graph or vocabulary that isn't as it was exported, and where no caption can be long enough.
    """

    def __init__(self, artefact: Path, providers: Sequence[str] = ("CPUExecutionProvider",)):
        self.config = json.loads((artefact / "config.json").read_text(encoding="utf-8"))
        self.eval = {"min_length": 0, "no_repeat_ngram": 0, "unk": None, **self.config["eval"]}
        longest, fewest = self.config["data"]["max_tokens"], self.eval["min_length"]
        if fewest > longest:
            raise ValueError(f"eval.min_length={fewest} asks for more words than a caption can have, {longest}")
        data = [f"{name}.data" for name in (ENCODER, STEP)]  # the weights of a graph of over 1.5 GB
        for name in (ENCODER, STEP, "vocab.json", *(name for name in data if name in self.config["files"])):
            self._check(artefact, name)
        vocabulary = json.loads((artefact / "vocab.json").read_bytes())
        self.words, self.spells = vocabulary["words"], vocabulary["oov"] == "characters"
        self.encoder, self.step = (
            onnxruntime.InferenceSession(artefact / name, providers=list(providers)) for name in (ENCODER, STEP)
        )
        shapes = {tensor.name: list(tensor.shape) for tensor in self.step.get_inputs()}
        images, beams = shapes.pop("tokens")  # what the graph calls these sizes
        self.axes = {
            name: (shape.index(images), shape.index(beams)) for name, shape in shapes.items() if beams in shape
        }

    def _check(self, artefact: Path, name: str) -> None:
        with (artefact / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.config["files"][name]["sha256"]:
            raise ValueError(f"{artefact / name} has changed since it was exported; export it again")

    def caption(
        self, pictures: Iterable[Path | str | Image.Image], beam: int | None = None, batch: int = 16
    ) -> list[tuple[str, float]]:
        """Caption pictures, in order: text and score of each; the beam is the artefact's own where none is given.

        Raises ValueError, with the reason, for a picture that can't be read.
        """
        captions, pending = [], list(pictures)
        for start in range(0, len(pending), batch):
            captions += self.captions([self.prepare(picture) for picture in pending[start : start + batch]], beam)
        return captions

    def captions(self, prepared: Sequence[np.ndarray], beam: int | None = None) -> list[tuple[str, float]]:
        """Caption pictures as `prepare` gives them, together. ValueError for a beam below 1."""
        beam = self.eval["beam"] if beam is None else beam
        if beam < 1:
            raise ValueError(f"a beam of {beam} finds nothing; give 1 or more")
        images_BCHW = np.stack(prepared).transpose(0, 3, 1, 2)
        return [(self.text(tokens), score) for tokens, score in self.search(images_BCHW, beam)]

    def prepare(self, picture: Path | str | Image.Image) -> np.ndarray:
        """Prepare a picture: upright, in RGB, squeezed to the square that the encoder takes, uint8 (H, W, 3)."""
        size = self.config["data"]["image_size"]
        image = rgb(picture) if isinstance(picture, Image.Image) else open_picture(Path(picture), size)
        method = Image.Resampling[self.config["data"].get("interpolation", "bilinear").upper()]
        return np.asarray(image.resize((size, size), method, reducing_gap=2.0))

    def search(self, images_BCHW: np.ndarray, beam: int) -> list[tuple[list[int], float]]:
        """Search for the best caption of each image: tokens without <sos> and <eos>, and the score."""
        longest, penalty = self.config["data"]["max_tokens"], self.eval["length_penalty"]
        state = _run(self.encoder, {"images": np.ascontiguousarray(images_BCHW)})
        images = np.arange(len(images_BCHW))[:, None]
        live_BW, tokens_BWT = np.zeros((len(images), 1)), np.full((len(images), 1, 1), SOS)
        pools: list[list[tuple[float, list[int]]]] = [[] for _ in images]
        for step in range(longest + 1):
            found = _run(self.step, {"tokens": np.ascontiguousarray(tokens_BWT[..., -1]), **state})
            log_probs_BWV = found["log_probs"].astype(np.float64)
            if step < longest:
                self._forbid(log_probs_BWV, tokens_BWT[..., 1:])
            live_BW, parent_BW, token_BW = _extend(live_BW, log_probs_BWV, beam, last=step == longest)
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

    def _forbid(self, log_probs_BWV: np.ndarray, words_BWT: np.ndarray) -> None:
        """Set what may not follow these words to -inf, as `imgcap.decoding.constraints` does."""
        log_probs_BWV[..., [PAD, SOS] if self.eval["unk"] else [PAD, SOS, UNK]] = -np.inf
        if words_BWT.shape[2] < self.eval["min_length"]:
            log_probs_BWV[..., EOS] = -np.inf
        if self.eval["no_repeat_ngram"]:
            for place in np.ndindex(words_BWT.shape[:2]):
                log_probs_BWV[place][_repeating(words_BWT[place].tolist(), self.eval["no_repeat_ngram"])] = -np.inf

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


def _repeating(words: list[int], n: int) -> list[int]:
    """List the words that would end an n-gram which is there already."""
    last = words[len(words) - n + 1 :]
    return [words[start + n - 1] for start in range(len(words) - n + 1) if words[start : start + n - 1] == last]


def _extend(
    live_BW: np.ndarray, log_probs_BWV: np.ndarray, beam: int, last: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extend live beams by the likeliest beams × words: log probabilities, parents, words; at last by <eos>."""
    images, beams, words = log_probs_BWV.shape
    if last:
        parent_BW = np.broadcast_to(np.arange(beams), (images, beams))
        return live_BW + log_probs_BWV[..., EOS], parent_BW, np.full((images, beams), EOS)
    candidates = (live_BW[..., None] + log_probs_BWV).reshape(images, -1)
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
        found = captioned_files(captioner, arguments.images, arguments.beam)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments.json:
        named = [{"image": str(path), "caption": text, "score": score} for path, (text, score) in found]
        print(json.dumps(named, ensure_ascii="utf" not in (sys.stdout.encoding or "").lower(), indent=1))
    else:
        print("\n".join(f"{on_one_line(path)}\t{text}" for path, (text, _) in found))


def captioned_files(
    captioner: OnnxCaptioner, paths: Sequence[Path], beam: int | None = None, batch: int = 16
) -> list[tuple[Path, tuple[str, float]]]:
    """Caption the files that can be read, and name the others on stderr; ValueError where none can."""
    found: list[tuple[Path, tuple[str, float]]] = []
    for start in range(0, len(paths), batch):
        prepared = {}
        for path in paths[start : start + batch]:
            try:
                prepared[path] = captioner.prepare(path)
            except UnreadableImage as reason:
                print(f"skipped: {on_one_line(path)}: {reason}", file=sys.stderr, flush=True)
        if prepared:
            found += zip(prepared, captioner.captions(list(prepared.values()), beam), strict=True)
    if not found:
        raise ValueError("no picture could be read; see the reasons above")
    return found


if __name__ == "__main__":
    main()
