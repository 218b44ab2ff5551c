"""Arguments that several commands have in common."""

import argparse
import sys
from pathlib import Path
from typing import TypeVar

import imgcap

MODEL = "a run, an artefact, or user/name on the Hugging Face hub"
Number = TypeVar("Number", int, float)
LANGUAGE = "of the captions, as spaCy names it (default: of the shard set, else en)"


def parser_for(docstring: str | None) -> argparse.ArgumentParser:
    """Make a parser whose help is the docstring of its command, by the name under which that was called."""
    name, layout = Path(sys.argv[0]).name, argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=name, description=docstring, formatter_class=layout)


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """Take --local_rank, which deepspeed passes; we read LOCAL_RANK."""
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)


def add_overrides(parser: argparse.ArgumentParser, meaning: str = "override the configuration") -> None:
    """Take any dotted keys of the configuration, for a parser of intermixed arguments."""
    add_local_rank(parser)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help=meaning)


def add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a run")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def config_file(text: str) -> Path:
    """Path of a YAML file; a bare name such as `flickr8k` is one of those that come with imgcap."""
    shipped = shipped_configs() / f"{text}.yaml"
    return shipped if text.isidentifier() and not Path(text).is_file() and shipped.is_file() else Path(text)


def shipped_configs() -> Path:
    """Folder of the configurations that come with imgcap: in the package where it is installed, else beside it."""
    package = Path(imgcap.__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def positive(text: str) -> int:
    return _between(1, int(text), sys.maxsize)


def percent(text: str) -> int:
    return _between(1, int(text), 100)


def share(text: str) -> float:
    return _between(0.0, float(text), 0.5)


def port(text: str) -> int:
    return _between(1, int(text), 65535)


def megabytes(text: str) -> float:
    return _between(sys.float_info.min, float(text), sys.float_info.max)


def _between(low: Number, value: Number, high: Number) -> Number:
    """Return a value; ValueError, which argparse explains, where it is out of range."""
    if not low <= value <= high:
        raise ValueError
    return value
