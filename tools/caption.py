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
from pathlib import Path
from typing import Any

from PIL import Image

from imgcap.captioning.batch import Captioned, caption_pictures
from imgcap.config.decoding import METHODS, OPTIONS, SHARED, DecodeOptions, Option
from imgcap.errors import UserError, exits_cleanly
from imgcap.models.trained import LoadedCaptioner, load_captioner
from imgcap.pictures.attention import draw_attention
from imgcap.pictures.files import find_pictures, open_picture
from imgcap.pictures.normalise import UnreadableImage
from imgcap.ranks.world import init_ranks

FLAGS = {"banned": "--ban", "required": "--require"}  # of the other options of decoding, their names
OF_CONTENT = ("min_length", "no_repeat_ngram", "banned", "required")
TYPES: dict[str, dict[str, Any]] = {
    "choice": {"choices": METHODS},
    "words": {"action": "append", "metavar": "WORD"},
    "int": {"type": int, "metavar": "N"},
    "float": {"type": float, "metavar": "X"},
}


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """A flag for each option of decoding, in groups."""
    groups: dict[str, Any] = {}
    for option in OPTIONS:
        title = "what captions hold" if option.name in OF_CONTENT else "how captions are found"
        if len(option.methods) == 1:
            title = f"--method {option.methods[0]}"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        flag = FLAGS.get(option.name, f"--{option.name.replace('_', '-')}")
        groups[title].add_argument(flag, dest=option.name, help=help_of(option), **TYPES[option.type])


def help_of(option: Option) -> str:
    text = option.description.replace("; null: ", "; default: ")
    if option.type == "words":
        return f"{text}; repeatable"
    default = f"eval.{option.name} of the run" if option.name in SHARED else option.default
    return text if default is None else f"{text} (default: {default})"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="RUN_OR_ARTEFACT")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE|DIR")
    mean = "with the mean of several models: another one; repeatable"
    parser.add_argument("--with", dest="others", type=Path, action="append", default=[], metavar="MODEL", help=mean)
    parser.add_argument("--json", action="store_true", help="print a list of {image, caption, score} and nothing else")
    parser.add_argument("--attention", type=Path, metavar="DIR", help="draw where each word looked, one file a picture")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a run")
    parser.add_argument("--batch", type=positive, default=16, help="pictures captioned together")
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    add_decoding(parser)
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
        decoder = loaded.config.model.decoder.type
        raise UserError(f"--attention needs a decoder that attends; this one is model.decoder.type={decoder}")
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
    loaded, *others = (load_captioner(path, device, arguments.which) for path in (arguments.model, *arguments.others))
    given = {option.name: getattr(arguments, option.name) for option in OPTIONS}
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
