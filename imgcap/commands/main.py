"""`imgcap COMMAND ...`: says what commands there are, and runs one. Nothing else is imported before one is chosen."""

import difflib
import importlib
import sys

from imgcap.errors import UserError, exits_cleanly, heed_interrupts, work_begins

COMMANDS = {
    "data": {
        "download": "fetch a data set from its publisher, check it, unpack it",
        "build": "turn photos and captions into a verified shard set",
        "index": "index tars that others have written, where they lie",
        "verify": "check every byte of a shard set",
        "inspect": "look at a shard set: samples, lengths, words, images that splits share",
        "cache-features": "write a set with a frozen encoder's features beside its pictures",
    },
    "training": {
        "train": "train a captioner, or go on with it; without --config the demo",
        "sweep": "train many short runs that differ in a few keys, and say which did best",
        "encoders": "the encoders there are, with what each gives and costs",
        "config": "all keys with their meaning, or a file with every key resolved",
    },
    "scores": {
        "evaluate": "score a run or an artefact on a split, on any number of ranks",
        "score": "score captions in COCO's result format",
        "compare": "say which of two models captions better, and how sure that is",
    },
    "use": {
        "caption": "caption pictures; with --out a folder or shard set of any size",
        "serve": "a web page that captions the pictures dropped on it",
        "export": "write a run as an artefact: one folder that needs no run",
    },
}
NAMES = [name for group in COMMANDS.values() for name in group]
LATER = ("train", "evaluate", "caption", "compare", "export", "cache-features")  # import torch behind their arguments
# Those that go on where they were stopped; caption with --out alone.
GO_ON = ("download", "build", "index", "cache-features", "train", "sweep", "caption")


def overview() -> str:
    """Text of `imgcap --help`: one screen."""
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<16}{meaning}" for name, meaning in group.items())])
        for title, group in COMMANDS.items()
    ]
    usage = "usage: imgcap COMMAND ...        (imgcap COMMAND --help: its options, with examples)"
    example = "on several GPUs: torchrun --nproc_per_node 4 -m imgcap train --config flickr8k optim.lr=2e-4"
    return "\n\n".join([usage, *groups, example])


def main() -> None:
    given = sys.argv[1:]
    if given and given[0].startswith(("--local_rank", "--local-rank")):  # launchers put it first; we read LOCAL_RANK
        del given[0]
    name, *rest = given or ["--help"]
    if name not in NAMES:
        return exits_cleanly(lambda: _answer(name))()
    sys.argv = [f"imgcap {name}", *rest]
    run(name)


def run(name: str, main: str = "main") -> None:
    """Run a command, by default its `main`, with what `sys.argv` holds; Ctrl-C is heeded from the first import on."""
    keeps = name != "caption" or any(word.partition("=")[0] == "--out" for word in sys.argv)
    heed_interrupts(goes_on=name in GO_ON and keeps)

    def imported_and_run() -> None:
        command = importlib.import_module(f"imgcap.commands.{name.replace('-', '_')}")
        if name not in LATER:  # these say themselves when their imports are done
            work_begins()
        getattr(command, main)()

    exits_cleanly(imported_and_run)()


def _answer(name: str) -> None:
    """Print all commands where that is asked for; raise `UserError`, naming the nearest, for what is none."""
    if name not in ("-h", "--help"):
        close = difflib.get_close_matches(name, NAMES, n=1)
        meant = f"the nearest is {close[0]!r} (imgcap --help names all)" if close else "imgcap --help names all"
        raise UserError(f"there is no command {name!r}; {meant}")
    print(overview())
