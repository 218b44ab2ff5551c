"""Caption pictures: `python tools/caption.py RUN_OR_ARTEFACT IMAGE|DIR ... [--json] [--attention DIR]`.

A picture that can't be read is named on stderr and left out; the exit code is 2 when none could be read.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from imgcap import dist
from imgcap.decode import Captioned, caption_pictures, find_pictures, open_picture
from imgcap.errors import UserError, exits_cleanly
from imgcap.models.artefact import LoadedCaptioner, load_captioner
from imgcap.monitor import draw_attention
from imgcap.shards.image import UnreadableImage


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="RUN_OR_ARTEFACT")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE|DIR")
    parser.add_argument("--beam", type=positive, help="default: eval.beam of the run")
    parser.add_argument("--json", action="store_true", help="print a list of {image, caption, score} and nothing else")
    parser.add_argument("--attention", type=Path, metavar="DIR", help="draw where each word looked, one file a picture")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a run")
    parser.add_argument("--batch", type=positive, default=16, help="pictures captioned together")
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    return parser.parse_args()


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def readable(paths: list[Path], size: int, batch: int) -> Iterator[list[tuple[Path, Image.Image]]]:
    """Batches of the pictures that can be read; the others are named on stderr."""
    pictures: list[tuple[Path, Image.Image]] = []
    for path in paths:
        try:
            pictures.append((path, open_picture(path, size)))
        except UnreadableImage as reason:
            print(f"skipped: {path}: {reason}", file=sys.stderr, flush=True)
        if len(pictures) == batch:
            yield pictures
            pictures = []
    if pictures:
        yield pictures


def drawing_names(paths: list[Path], folder: Path) -> dict[Path, Path]:
    """A file for each picture; pictures of one name from several folders get -2, -3 and so on."""
    names: dict[Path, Path] = {}
    for path in paths:
        number = 1 + sum(path.stem == other.stem for other in names)
        names[path] = folder / (f"{path.stem}.png" if number == 1 else f"{path.stem}-{number}.png")
    return names


def draw(loaded: LoadedCaptioner, picture: Image.Image, captioned: Captioned, target: Path) -> None:
    if captioned.attention_LP is None:
        raise UserError("--attention needs a decoder that attends; this one is model.decoder.type=lstm")
    grid = loaded.model.encoder.grid(loaded.config.data.image_size)
    draw_attention(picture, captioned.words, captioned.attention_LP, grid).save(target)


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    paths = find_pictures(arguments.images)
    loaded = load_captioner(arguments.model, dist.init(arguments.device).device, arguments.which)
    if arguments.attention:
        arguments.attention.mkdir(parents=True, exist_ok=True)
        targets = drawing_names(paths, arguments.attention)
    beam, penalty = arguments.beam or loaded.config.eval.beam, loaded.config.eval.length_penalty
    results = []
    for batch in readable(paths, loaded.config.data.image_size, arguments.batch):
        captions = caption_pictures(loaded, [picture for _, picture in batch], beam, penalty, bool(arguments.attention))
        for (path, picture), captioned in zip(batch, captions, strict=True):
            results.append({"image": str(path), "caption": captioned.caption, "score": captioned.score})
            if arguments.attention:
                draw(loaded, picture, captioned, targets[path])
            if not arguments.json:
                print(f"{path}\t{captioned.caption}", flush=True)
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False, indent=1))
    if not results:
        raise UserError(f"none of {len(paths)} pictures could be read; see the reasons above")


if __name__ == "__main__":
    main()
