"""Train, score and use image-captioning models, on one processor or on many GPUs.

    >>> import imgcap
    import imgcap

    captioner = imgcap.load("artefacts/demo")  # also a run, or user/name on the Hugging Face hub
    for caption in captioner.caption(["one.jpg", "two.jpg"], beam=5):
        print(caption.text, caption.score)

`load` makes a `Captioner`; its `caption` takes one picture or many (paths, PIL pictures, arrays, tensors) and returns a
list with a `Caption` for each. What the user can mend is a `UserError` that says how. All else is a command: see
`imgcap --help`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgcap.captioning.captioner import Caption as Caption
    from imgcap.captioning.captioner import PictureCaptioner as Captioner
    from imgcap.captioning.loading import load as load
    from imgcap.errors import UserError as UserError

__all__ = ["Caption", "Captioner", "UserError", "__version__", "load"]
__version__ = "0.1.0"

_PLACES = {
    "Caption": ("imgcap.captioning.captioner", "Caption"),
    "Captioner": ("imgcap.captioning.captioner", "PictureCaptioner"),
    "UserError": ("imgcap.errors", "UserError"),
    "load": ("imgcap.captioning.loading", "load"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes seconds, and neither `imgcap --help` nor `imgcap build` needs it."""
    if name not in _PLACES:
        raise AttributeError(f"module 'imgcap' has no attribute {name!r}")
    module, there = _PLACES[name]
    return getattr(importlib.import_module(module), there)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
