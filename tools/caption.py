"""Caption pictures with a run or an artefact, or with several of one vocabulary.

    python tools/caption.py runs/demo photo.jpg folder/ --beam 5 --attention out/
    python tools/caption.py runs/demo photo.jpg --method diverse --beam 6 --groups 3 --best 3 --json
    python tools/caption.py runs/demo photo.jpg --require dog --ban '<unk>' --no-repeat-ngram 2
    python tools/caption.py runs/one photo.jpg --with runs/two --with runs/three
    python tools/caption.py runs/demo photo.jpg --method sample --samples 5 --top-p 0.9 --seed 1

A picture that can't be read is named on stderr and left out; the exit code is 2 when none could be read.
What the options of decoding do is in docs/decoding.md.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from imgcap.captioning.batch import Captioned, caption_pictures
from imgcap.decoding.options import DecodeOptions, Method
from imgcap.errors import UserError, exits_cleanly
from imgcap.models.trained import LoadedCaptioner, open_trained
from imgcap.pictures.attention import draw_attention
from imgcap.pictures.files import find_pictures, open_picture
from imgcap.pictures.normalise import UnreadableImage
from imgcap.ranks.world import init_ranks

DECODING: dict[str, dict[str, dict[str, Any]]] = {  # by group: a flag for each of the `DecodeOptions`
    "how captions are found": {
        "--method": {"choices": get_args(Method), "help": "beam search (default), greedy, sample, or diverse beams"},
        "--beam": {"type": int, "help": "beams of a search (default: eval.beam of the run)"},
        "--best": {"type": int, "metavar": "N", "help": "the N best captions of each picture (default: 1)"},
        "--length-penalty": {"type": float, "help": "score = log P / length ** this (default: the run's)"},
    },
    "what they hold": {
        "--min-length": {"type": int, "metavar": "WORDS", "help": "at least so many (default: the run's)"},
        "--no-repeat-ngram": {"type": int, "metavar": "N", "help": "never the same N words in a row twice; 0: off"},
        "--ban": {"dest": "banned", "action": "append", "metavar": "WORD", "help": "never this word; repeatable"},
        "--require": {"dest": "required", "action": "append", "metavar": "WORD", "help": "always this one; repeatable"},
    },
    "--method sample": {
        "--samples": {"type": int, "metavar": "N", "help": "captions drawn for each picture (default: 1)"},
        "--temperature": {"type": float, "help": "below 1 favours likely words (default: 1)"},
        "--top-k": {"type": int, "metavar": "K", "help": "draw from the K likeliest words (default: all)"},
        "--top-p": {"type": float, "metavar": "P", "help": "draw from the fewest words of probability P (default: 1)"},
        "--seed": {"type": int, "help": "the same seed draws the same captions of a picture (default: 0)"},
    },
    "--method diverse": {
        "--groups": {"type": int, "help": "groups that the beams are divided into (default: one for each beam)"},
        "--diversity": {"type": float, "help": "what a word costs that another group has chosen (default: 0.5)"},
    },
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="RUN_OR_ARTEFACT", help="a folder, or user/name on the hub")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE|DIR")
    mean = "with the mean of several models: another one; repeatable"
    parser.add_argument("--with", dest="others", action="append", default=[], metavar="MODEL", help=mean)
    parser.add_argument("--json", action="store_true", help="print a list of {image, caption, score} and nothing else")
    parser.add_argument("--attention", type=Path, metavar="DIR", help="draw where each word looked, one file a picture")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a run")
    parser.add_argument("--batch", type=positive, default=16, help="pictures captioned together")
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    for title, flags in DECODING.items():
        group = parser.add_argument_group(title)
        for flag, settings in flags.items():
            group.add_argument(flag, **settings)
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


def entry(path: Path, captioned: Captioned, several: bool) -> dict[str, Any]:
    captions = {"captions": [scored._asdict() for scored in captioned.captions]} if several else {}
    return {"image": str(path), "caption": captioned.caption, "score": captioned.score, **captions}


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    paths = find_pictures(arguments.images)
    device = init_ranks(arguments.device).device
    loaded, *others = (open_trained(path, device, arguments.which) for path in (arguments.model, *arguments.others))
    given = {field.name: getattr(arguments, field.name) for field in fields(DecodeOptions)}
    options = DecodeOptions.like_evaluation(loaded.config.eval, **given)
    if arguments.attention:
        arguments.attention.mkdir(parents=True, exist_ok=True)
        targets = drawing_names(paths, arguments.attention)
    size = max(member.config.data.image_size for member in (loaded, *others))
    results = []
    for batch in readable(paths, size, arguments.batch):
        pictures = [picture for _, picture in batch]
        captions = caption_pictures(loaded, pictures, options, bool(arguments.attention), others)
        for (path, picture), captioned in zip(batch, captions, strict=True):
            results.append(entry(path, captioned, several=options.captions > 1))
            if arguments.attention:
                draw(loaded, picture, captioned, targets[path])
            if not arguments.json:
                print("\n".join(f"{path}\t{scored.caption}" for scored in captioned.captions), flush=True)
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False, indent=1))
    if not results:
        raise UserError(f"none of {len(paths)} pictures could be read; see the reasons above")


if __name__ == "__main__":
    main()
