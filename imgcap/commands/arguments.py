"""Arguments that several commands have in common."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

from imgcap.errors import UserError

MODEL = "a run, an artefact, or user/name on the Hugging Face hub"
OVERRIDES = "dotted.key=value"
LOCAL_RANK = ("--local_rank", "--local-rank")
Number = TypeVar("Number", int, float)
LANGUAGE = "of the captions, as spaCy names it (default: of the shard set, else en)"


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line; its paths may begin with ~, and it knows keys written as options."""

    takes_keys = False

    def error(self, message: str) -> NoReturn:
        option = message.removeprefix("unrecognized arguments: ").partition(" ")[0]
        if self.takes_keys and option.startswith("--"):
            from imgcap.config.aliases import instead_of_option
            from imgcap.config.run import Config

            if told := instead_of_option(option, Config):
                raise UserError(told)
        message = message.replace(f", {OVERRIDES}", "")  # argparse names them with what is required
        raise UserError(f"{message}; --help says what there is")


def parser_for(docstring: str | None) -> Parser:
    """Make a parser whose help is the docstring of its command, by the name under which that was called."""
    name, layout = Path(sys.argv[0]).name, argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=name, description=docstring, formatter_class=layout)
    parser.register("type", Path, lambda text: Path(os.path.expanduser(text)))
    parser.register("type", None, os.path.expanduser)
    return parser


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """Take --local_rank, which deepspeed passes, and --local-rank of torch.distributed.launch; we read LOCAL_RANK."""
    parser.add_argument(*LOCAL_RANK, type=int, help=argparse.SUPPRESS)


def add_overrides(parser: Parser, meaning: str = "override the configuration") -> None:
    """Take any dotted keys of the configuration, for a parser of intermixed arguments."""
    add_local_rank(parser)
    parser.takes_keys = True
    parser.add_argument("overrides", nargs="*", metavar=OVERRIDES, help=meaning)


def add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a run")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def device_of(asked: str | None, overrides: Iterable[str]) -> str | None:
    """The device that was asked for by --device, or else as `device=` among overrides; a run's own says no more."""
    keys = dict(override.partition("=")[::2] for override in overrides)
    return asked or keys.get("device") or None


def positive(text: str) -> int:
    return _between(1, int(text), sys.maxsize)


def seed(text: str) -> int:
    return _between(0, int(text), sys.maxsize)


def percent(text: str) -> int:
    return _between(1, int(text), 100)


def share(text: str) -> float:
    return _between(0.0, float(text), 0.5)


def port(text: str) -> int:
    return _between(1, int(text), 65535)


def megabytes(text: str) -> float:
    return _between(sys.float_info.min, float(text), sys.float_info.max)


def new_file(text: str) -> Path:
    """A file that is to be written when the work is done; refused before it where that can't be."""
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} can't be written in {there}; name another file")
    return path


def _between(low: Number, value: Number, high: Number) -> Number:
    """Return a value; ValueError, which argparse explains, where it is out of range."""
    if not low <= value <= high:
        raise ValueError
    return value
