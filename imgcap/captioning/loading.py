"""`imgcap.load`: a captioner by its folder or its name. What takes long to import waits for the first call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from imgcap.captioning.captioner import PictureCaptioner


def load(
    path: str | Path,
    device: str | None = None,
    which: Literal["best", "latest"] = "best",
    revision: str | None = None,
) -> PictureCaptioner:
    """Load an artefact or a run from its folder, or an artefact from the Hugging Face hub, as user/name.

    On the best device there is, unless one is named. `which` is for runs, `revision` for the hub. Raises
    `imgcap.errors.UserError` where something is missing or damaged.
    """
    from imgcap.captioning.captioner import PictureCaptioner
    from imgcap.files.hub import download, is_hub_name
    from imgcap.models.trained import FILES, load_captioner
    from imgcap.ranks.world import choose_device

    if not Path(path).exists() and is_hub_name(str(path)):
        path = download(str(path), FILES, revision)
    # An encoder that trains no more has its normalisation folded into its convolutions, which is faster.
    loaded = load_captioner(path, choose_device(device), which, ["model.encoder.train=none"])
    return PictureCaptioner(loaded)
