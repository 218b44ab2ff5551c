"""One line that says how a score came about: two scores compare where their signatures are equal.

In the spirit of sacreBLEU (Post 2018). Nothing in it depends on the number of ranks or the machine.
"""

from importlib import metadata
from typing import Any

import imgcap
from imgcap.config.data import DataConfig
from imgcap.config.decoding import DecodeOptions
from imgcap.evaluation.metrics.ptb import PTB


def signature(tokeniser: str = PTB, **parts: object) -> str:
    """Build a signature: `name:value` of what was scored and how it was decoded, then tokeniser and versions.

    A part that is None is left out.
    """
    versions = {
        "tokeniser": tokeniser,
        "pycocoevalcap": metadata.version("pycocoevalcap"),
        "imgcap": imgcap.__version__,
    }
    return "|".join(f"{name}:{value}" for name, value in {**parts, **versions}.items() if value is not None)


def parts_decided_by(options: DecodeOptions, data: DataConfig, precision: str) -> dict[str, Any]:
    """The parts of a signature that a model's configuration decides: how it decodes, and what it sees of a picture."""
    return {
        **options.signed(),
        "max_words": data.max_tokens,
        "input": f"{data.image_size}px-{data.interpolation}",
        "loss_captions": data.captions_per_image,  # of an image, at most; scores are by all
        "precision": precision,
    }


def parts_of(signature: str) -> dict[str, str]:
    """Split a signature into its parts, by name."""
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
