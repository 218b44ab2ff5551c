"""Which shard set this is: its name, the sha256 of its manifest, and where it was last seen."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.files.durable import sha256_of_bytes
from imgcap.files.fetch import is_address
from imgcap.shards.manifest import manifest_bytes
from imgcap.shards.place import CACHE_GB, Place
from imgcap.shards.reader import ShardReader


@dataclass(frozen=True)
class SetIdentity:
    """What tells a shard set from every other: two are equal where their manifests are, to the byte.

    The place is a hint, for people and for `found`; sets that were copied elsewhere are the same.
    """

    name: str
    manifest_sha256: str
    place: str | None = None

    @classmethod
    def of(cls, reader: ShardReader) -> "SetIdentity":
        return cls(reader.manifest.name, reader.manifest_sha256, str(reader.place))

    @classmethod
    def from_json(cls, content: Any) -> "SetIdentity | None":
        """Read what `as_json` made; None for what has none."""
        return cls(content["name"], content["manifest_sha256"], content.get("place")) if content else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}@{self.manifest_sha256[:12]}"

    def is_same(self, other: "SetIdentity") -> bool:
        return self.manifest_sha256 == other.manifest_sha256

    def for_others(self) -> "SetIdentity":
        """The identity for who may read it: without a place that tells how this machine's folders are called."""
        return SetIdentity(self.name, self.manifest_sha256, _public(self.place) if self.place else None)

    def places(self) -> list[str]:
        """Where to look for the set: where it was last seen, and under its name in shards/."""
        return list(dict.fromkeys(filter(None, (self.place, f"shards/{self.name}"))))

    def found(self, cache: Path | None = None, cache_gb: float = CACHE_GB) -> Place | None:
        """Find the very set in one of its `places`; None where it is in none of them."""
        for where in self.places():
            place = Place(where, cache, cache_gb)
            with suppress(UserError, OSError):
                if sha256_of_bytes(manifest_bytes(place)) == self.manifest_sha256:
                    return place
        return None


def _public(place: str) -> str | None:
    if is_address(place):
        return None if "@" in place or "?" in place else place  # it may hold a password
    path = Path(place)
    if path.is_absolute():
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else None
    return None if ".." in path.parts else place
