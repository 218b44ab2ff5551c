"""The command that measures, and how it prints: a table for people, a line of JSON for programs."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from imgcap.ranks.world import choose_device
from tools.bench.measures import MEASURES
from tools.bench.timing import machine


def build_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    anywhere = argparse.ArgumentParser(add_help=False)  # the same two, behind the measurement's name
    anywhere.add_argument("--repeats", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    anywhere.add_argument("--device", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    names = parser.add_subparsers(dest="measure", required=True)
    for name, measure in MEASURES.items():
        first_line = (measure.run.__doc__ or "").partition("\n")[0]
        measure.add_to(names.add_parser(name, help=first_line, parents=[anywhere]))
    everything = names.add_parser("all", help="all that needs nothing but shards", parents=[anywhere])
    everything.add_argument("shards", type=Path)
    return parser


def print_table(result: dict[str, Any]) -> None:
    for entry in result["rows"]:
        print("  ".join(f"{key} {value}" for key, value in entry.items()), file=sys.stderr)
    print("  ".join(f"{key}: {value}" for key, value in result.items() if key != "rows"), file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> None:
    measure = MEASURES[arguments.measure]
    arguments.device = choose_device(measure.device or arguments.device)
    if arguments.device.type == "cuda":
        torch.cuda.set_device(arguments.device)
    result = {"measure": arguments.measure, "machine": machine(arguments.device)} | measure.run(arguments)
    result["torch"] = torch.__version__
    if not measure.speaks:
        print_table(result)
        print(json.dumps(result), flush=True)


def main(description: str | None) -> None:
    parser = build_parser(description)
    arguments = parser.parse_args()
    if arguments.measure != "all":
        return run(arguments)
    general = ["--repeats", str(arguments.repeats), "--device", arguments.device]
    for name, measure in MEASURES.items():
        if measure.in_all:
            shards = [str(arguments.shards)] if measure.shards else []
            run(parser.parse_args([*general, name, *shards]))
