"""One line that says how a score came about: two scores compare where their signatures are equal.

In the spirit of sacreBLEU (Post 2018). Nothing in it depends on the number of ranks or the machine.
"""

from importlib import metadata

import imgcap
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


def parts_of(signature: str) -> dict[str, str]:
    """Split a signature into its parts, by name."""
    return dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
