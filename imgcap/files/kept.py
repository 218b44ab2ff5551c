"""Keeping on disk what scoring computes once: files named by the hash of what they were made from.

They lie in the folder `scoring` of `$IMGCAP_CACHE`, else of `$XDG_CACHE_HOME/imgcap`, else of `~/.cache/imgcap`. Any of
them may be deleted at any time. Where nothing can be written there, everything is computed anew, with the same result.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable

from imgcap.files.cache import cache_root
from imgcap.files.durable import write_whole

KEPT = 32  # files; the ones read longest ago go first


def content_hash(*parts: bytes) -> str:
    """Hash parts as they are divided: no two lists of parts share a hash."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def cached(name: str, make: Callable[[], bytes], is_whole: Callable[[], bool] = lambda: True) -> bytes:
    """Return the bytes kept under a name, or those that `make` returns, which are then kept.

    What was made in part, as `is_whole` says then, isn't kept. A file opens with the hash of the rest: one that is
    damaged is made again.
    """
    path = cache_root() / "scoring" / name
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
        if hashlib.sha256(kept[32:]).digest() == kept[:32]:
            with contextlib.suppress(OSError):  # somebody else's file can be read, too
                os.utime(path)
            return kept[32:]
    data = make()
    if not is_whole():
        return data
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, hashlib.sha256(data).digest() + data, durable=False)
        for old in sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)[KEPT:]:
            old.unlink()
    return data
