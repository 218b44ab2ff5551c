"""Caption every picture of a folder, or every sample of a split. Run it alone or under torchrun.

    torchrun --nproc_per_node 4 launch/caption.py runs/flickr8k photos/ --out captions.jsonl
    torchrun --nproc_per_node 4 launch/caption.py runs/flickr8k shards/coco --split test --out captions.csv eval.beam=3

Run the same command again after a stop, on any number of ranks: what is done stays. Rows come in the order of the
pictures. The last line of stdout counts them as JSON; OUT.summary.json names the pictures that could not be read.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from imgcap.captioning.bulk import caption_all
from imgcap.captioning.contact_sheet import write_contact_sheet
from imgcap.captioning.inputs import open_inputs
from imgcap.errors import exits_cleanly
from imgcap.models.trained import open_trained
from imgcap.ranks.collectives import from_main
from imgcap.ranks.world import close_ranks, init_ranks


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="RUN_OR_ARTEFACT", help="a folder, or user/name on the hub")
    parser.add_argument("input", metavar="FOLDER_OR_SHARDS", help="pictures, subfolders too; or a shard set")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="captions.jsonl or captions.csv")
    parser.add_argument("--split", help="of a shard set (default: test)")
    parser.add_argument("--beam", type=int, help="default: eval.beam of the run")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a run")
    parser.add_argument("--contact-sheet", type=Path, metavar="PAGE.html", help="also a page with thumbnails")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # deepspeed passes it; we read LOCAL_RANK
    parser.add_argument(
        "overrides", nargs="*", metavar="dotted.key=value", help="eval.batch, data.workers and the like"
    )
    return parser.parse_intermixed_args()


@exits_cleanly
def main() -> None:
    arguments = parse()
    overrides = arguments.overrides + ([] if arguments.beam is None else [f"eval.beam={arguments.beam}"])
    world = init_ranks()
    try:
        loaded = open_trained(arguments.path, world.device, arguments.which, overrides)
        inputs = from_main(lambda: open_inputs(arguments.input, arguments.split, loaded.config.data))
        summary = caption_all(loaded, inputs, arguments.out, world)
        if world.is_main:
            if summary is None:
                print(f"{arguments.out} is finished already; remove it to caption anew", file=sys.stderr)
            else:
                print(json.dumps(asdict(summary)), flush=True)
            if arguments.contact_sheet:
                write_contact_sheet(arguments.contact_sheet, arguments.out, inputs)
    finally:
        close_ranks()


if __name__ == "__main__":
    main()
