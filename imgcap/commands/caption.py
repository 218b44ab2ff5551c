"""Caption pictures with a trained model, or with several of one vocabulary.

    imgcap caption runs/demo photo.jpg folder/ --beam 5 --attention out/
    imgcap caption runs/demo photo.jpg --method diverse --beam 6 --groups 3 --best 3 --json
    imgcap caption runs/demo photo.jpg --require dog --ban man --no-repeat-ngram 2 --capital
    imgcap caption runs/one photo.jpg --with runs/two --with runs/three
    imgcap caption runs/demo photo.jpg --method sample --samples 5 --top-p 0.9 --seed 1

A picture that can't be read is named on stderr and left out; the exit code is 2 when none could be read.
What the options of decoding do is in docs/decoding.md.

With --out it captions all of a folder or of a split of a shard set, alone or under torchrun:

    imgcap caption runs/demo photos/ --out captions.csv --contact-sheet look.html
    torchrun --nproc_per_node 4 -m imgcap caption runs/demo shards/coco --split test --out captions.jsonl eval.beam=3

Run the same command again after a stop, on any number of ranks: what is done stays. Rows come in the order of the
pictures. The last line of stdout counts them as JSON; OUT.summary.json names the pictures that could not be read.
"""

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imgcap.commands.arguments import MODEL, add_device, add_local_rank, add_which, device_of, parser_for, positive
from imgcap.commands.decoding_flags import add_decoding, told_by_flags, with_flags
from imgcap.config.decoding import OPTIONS, SHARED, DecodeOptions
from imgcap.errors import UserError, exits_cleanly, work_begins
from imgcap.pictures.files import find_pictures
from imgcap.pictures.opening import on_one_line

if TYPE_CHECKING:
    from imgcap.ranks.world import World

_KEY = re.compile(r"[a-z_]+(\.[a-z_]+)+\+?=")
OF_EVALUATION = ("batch", *SHARED)  # flags that are keys of eval too


def parse(out_required: bool = False) -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("model", metavar="RUN_OR_ARTEFACT", help=MODEL)
    inputs = "pictures and folders of them; with --out: one folder or shard set, then any dotted.key=value"
    parser.add_argument("inputs", nargs="+", metavar="IMAGE|DIR|SHARDS", help=inputs)
    parser.add_argument("--batch", type=positive, help="pictures decoded together (default 16; with --out eval.batch)")
    parser.add_argument("--capital", action="store_true", help="begin captions with a capital")
    add_which(parser)
    add_device(parser)
    add_local_rank(parser)
    many, few = parser.add_argument_group("for many pictures"), parser.add_argument_group("without --out")
    file, mean = "captions.jsonl or captions.csv", "with the mean of several models: another one; repeatable"
    many.add_argument("--out", type=Path, required=out_required, metavar="FILE", help=file)
    writing = [
        many.add_argument("--split", help="of a shard set (default: test)"),
        many.add_argument("--contact-sheet", type=Path, metavar="PAGE.html", help="also a page with thumbnails"),
    ]
    printing = [
        few.add_argument("--with", dest="others", action="append", metavar="MODEL", help=mean),
        few.add_argument("--json", action="store_true", help="print a list of {image, caption, score}, nothing else"),
        few.add_argument("--attention", type=Path, metavar="DIR", help="draw where each word looked, a file a picture"),
        *add_decoding(parser),
    ]
    arguments = parser.parse_intermixed_args()
    for action in printing if arguments.out else writing:
        if getattr(arguments, action.dest) is not action.default and action.dest not in OF_EVALUATION:
            parser.error(f"{action.option_strings[0]} goes {'without' if arguments.out else 'with'} --out")
    return arguments


# What the functions below import takes seconds, for torch, and --help none.


def write_captions(arguments: argparse.Namespace, world: "World") -> None:
    from imgcap.captioning.bulk import caption_all
    from imgcap.captioning.contact_sheet import write_contact_sheet
    from imgcap.captioning.inputs import open_inputs
    from imgcap.models.trained import open_trained
    from imgcap.ranks.collectives import from_main

    work_begins()

    given = {name: getattr(arguments, name) for name in OF_EVALUATION}
    where, *overrides = arguments.inputs
    loaded = with_flags(open_trained(arguments.model, world.device, arguments.which, overrides), given)
    inputs = from_main(lambda: open_inputs(where, arguments.split, loaded.config.data))
    summary = caption_all(loaded, inputs, arguments.out, world, arguments.capital)
    if not world.is_main:
        return
    if summary is None:
        print(f"{arguments.out} is finished already; remove it to caption anew", file=sys.stderr)
    else:
        print(json.dumps(asdict(summary)), flush=True)
    if arguments.contact_sheet:
        write_contact_sheet(arguments.contact_sheet, arguments.out, inputs, str(arguments.model))


def print_captions(arguments: argparse.Namespace, world: "World") -> None:
    from imgcap.captioning.batch import say_empty
    from imgcap.captioning.files import caption_files
    from imgcap.models.trained import open_trained

    work_begins()

    if keys := [text for text in arguments.inputs if _KEY.match(text) and not Path(text).exists()]:
        told = f"{keys[0]} overrides a key of the configuration, which goes with --out"
        raise UserError(f"{told}; without it take an option, such as --beam")
    paths, models = find_pictures(map(Path, arguments.inputs)), [arguments.model, *(arguments.others or [])]
    loaded, *others = (open_trained(model, world.device, arguments.which) for model in models)
    given = {option.name: getattr(arguments, option.name) for option in OPTIONS}
    options = DecodeOptions.like_evaluation(loaded.config.eval, **given)
    entries = []
    how = (options, arguments.batch or 16, others, arguments.attention, arguments.capital)
    for path, captioned in caption_files(loaded, paths, *how):
        entries.append({"image": str(path), "caption": captioned.caption, "score": captioned.score})
        if options.captions > 1:
            entries[-1]["captions"] = [scored._asdict() for scored in captioned.captions]
        if not arguments.json:
            captions = (on_one_line(scored.caption) for scored in captioned.captions)
            print("\n".join(f"{on_one_line(path)}\t{caption}" for caption in captions), flush=True)
    if arguments.json:
        print(json.dumps(entries, ensure_ascii="utf" not in (sys.stdout.encoding or "").lower(), indent=1))
    say_empty([str(entry["caption"]) for entry in entries])
    if not entries:
        raise UserError("no picture could be read; see the reasons above")


@told_by_flags()
def run(arguments: argparse.Namespace) -> None:
    from imgcap.ranks.world import close_ranks, init_ranks

    world = init_ranks(device_of(arguments.device, arguments.inputs if arguments.out else []))
    try:
        (write_captions if arguments.out else print_captions)(arguments, world)
    finally:
        close_ranks()


main = exits_cleanly(lambda: run(parse()))
main_with_out = exits_cleanly(lambda: run(parse(out_required=True)))  # launch/caption.py
