"""Measure what the documentation claims: `python tools/bench.py beam`, `step`, `loader SHARDS`, `peers`.

What is compared runs alternately in one process; shown are the median and the range. The table goes to
stderr, the same numbers as one line of JSON to stdout.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from imgcap.bench.decoder import bench_beam, bench_step
from imgcap.bench.loader import bench_loader
from imgcap.bench.peers import PEERS, bench_peers
from imgcap.bench.timing import machine
from imgcap.errors import UserError, exits_cleanly


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    measures = parser.add_subparsers(dest="measure", required=True)
    beam = measures.add_parser("beam", help="batched beam search against one image at a time")
    beam.add_argument("--images", type=int, default=64)
    beam.add_argument("--beam", type=int, default=5)
    beam.add_argument("--steps", type=int, default=20)
    step = measures.add_parser("step", help="the decoder's training step in each precision")
    step.add_argument("--images", type=int, default=32)
    step.add_argument("--captions", type=int, default=5)
    step.add_argument("--tokens", type=int, default=22)
    step.add_argument("--compile", action="store_true", help="also compiled")
    peers = measures.add_parser("peers", help="other projects' training steps, from checkouts of theirs, beside ours")
    peers.add_argument("checkouts", nargs="+", metavar="NAME=DIR", help=f"NAME: {', '.join(PEERS)}")
    peers.add_argument("--images", type=int, default=16)
    peers.add_argument("--captions", type=int, default=5)
    peers.add_argument("--tokens", type=int, default=22)
    loader = measures.add_parser("loader", help="the loader against a bare loop in as many processes")
    loader.add_argument("shards", type=Path)
    loader.add_argument("--split", default="train")
    loader.add_argument("--workers", type=int, default=2)
    loader.add_argument("--images", type=int, default=32, help="of a batch")
    loader.add_argument("--image-size", type=int, default=224)
    loader.add_argument("--augment", choices=("off", "light", "strong"), default="light")
    loader.add_argument("--samples", type=int, default=12000, help="of one repeat, over as many epochs as it takes")
    return parser.parse_args()


def print_table(result: dict[str, Any]) -> None:
    for entry in result["rows"]:
        print("  ".join(f"{key} {value}" for key, value in entry.items()), file=sys.stderr)
    print("  ".join(f"{key}: {value}" for key, value in result.items() if key != "rows"), file=sys.stderr, flush=True)


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    if arguments.measure == "loader" and arguments.workers < 1:
        raise UserError("the loader is compared with processes of the same number; give --workers 1 or more")
    measure = {"beam": bench_beam, "step": bench_step, "loader": bench_loader, "peers": bench_peers}[arguments.measure]
    device = torch.device("cpu" if arguments.measure in ("loader", "peers") else arguments.device)
    result = {"measure": arguments.measure, "machine": machine(device)} | measure(arguments)
    result["torch"] = torch.__version__
    print_table(result)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
