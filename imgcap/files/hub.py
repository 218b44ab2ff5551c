"""Artefacts on the Hugging Face hub, under a name such as user/name."""

import re
from pathlib import Path

from imgcap.errors import UserError, needs, reason_of

_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


def is_hub_name(text: str) -> bool:
    """Whether a text has the form of a name on the hub."""
    return bool(_NAME.match(text))


def check_name(name: str) -> None:
    """Raise `UserError` for what can be no name on the hub."""
    if not is_hub_name(name):
        raise UserError(f"{name!r} is no name on the hub; write user/name")


def download(name: str, files: list[str], revision: str | None = None) -> Path:
    """Download files of a repository and return their folder; raises `UserError` where they can't be had."""
    needs(f"there is no folder {name}; to look for it on the hub", "huggingface_hub")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:  # of the hub, its transport and the disk, each in classes of its own
        raise UserError(
            f"there is no folder {name}, and none of that name could be had from the hub ({reason_of(error)}); "
            "check the name, the network and, for a private one, `hf auth login`"
        ) from None


def push(folder: Path, name: str, private: bool = False, owned: tuple[str, ...] = ()) -> str:
    """Upload a folder as the newest revision of a repository, which is made if there is none; return its address.

    What the repository has in the subfolders `owned` and the folder lacks is removed there. Raises `UserError` where it
    can't be pushed.
    """
    check_name(name)
    needs("a push to the hub", "huggingface_hub")
    import huggingface_hub

    try:
        api = huggingface_hub.HfApi()
        address = api.create_repo(name, private=private, exist_ok=True)
        stale = [f"{subfolder}/*" for subfolder in owned]
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export", delete_patterns=stale)
    except Exception as error:  # as above
        raise UserError(
            f"{folder} is written, and could not be pushed to {name} ({reason_of(error)}); log in with "
            "`hf auth login`, check the name and the network, and run the same command again"
        ) from None
    return str(address)
