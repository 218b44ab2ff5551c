"""The configurations that come with imgcap, by name."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_configs() -> Path:
    """Folder of the configurations that come with imgcap: in the package where it is installed, else beside it."""
    return _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def shipped_names() -> list[str]:
    return sorted(path.stem for path in shipped_configs().glob("*.yaml"))


def config_file(text: Path | str) -> Path:
    """Path of a YAML file; a bare name such as `flickr8k` is one of those that come with imgcap."""
    shipped, given = shipped_configs() / f"{text}.yaml", Path(os.path.expanduser(text))
    return shipped if str(text).isidentifier() and not given.is_file() and shipped.is_file() else given
