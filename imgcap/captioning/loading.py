"""`imgcap.load`: a captioner by its folder or its name. What takes long to import waits for the first call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from imgcap.captioning.captioner import PictureCaptioner


def load(
    path: str | Path, device: str | None = None, which: Literal["best", "latest"] = "best", revision: str | None = None
) -> PictureCaptioner:
    """Load an artefact or a run from its folder, or an artefact from the Hugging Face hub, as user/name.

    It is on the best device there is, unless one is named, and captions as it was scored, also in that precision
    (`train.precision`). `which` is for runs, `revision` for the hub. Raises `UserError` (of `imgcap.errors`) where
    something is missing or damaged.
    """
    from imgcap.captioning.captioner import PictureCaptioner
    from imgcap.models.trained import open_trained
    from imgcap.ranks.world import choose_device

    return PictureCaptioner(open_trained(path, choose_device(device), which, revision=revision))
