"""What is to be captioned: the pictures of a folder, or the samples of a split of a shard set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from imgcap.config.data import DataConfig
from imgcap.data.dataset import DAMAGED
from imgcap.errors import UserError
from imgcap.files.fetch import Unreachable, is_address
from imgcap.pictures.files import find_pictures
from imgcap.pictures.opening import UnreadableImage, decode, open_picture
from imgcap.shards.identity import SetIdentity
from imgcap.shards.manifest import MANIFEST_NAME
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader


class Item(NamedTuple):
    """One picture and the first columns of its row; without the picture, why there is none."""

    columns: dict[str, Any]
    picture: Image.Image | None
    reason: str = ""


class Inputs(Protocol):
    """Pictures in a fixed order. It travels to other ranks and to a loader's workers."""

    @property
    def identity(self) -> dict[str, str]:
        """What tells these inputs from others, by name."""

    def __len__(self) -> int: ...

    def key(self, i: int) -> str:
        """The name by which a picture is known to be done."""

    def read(self, i: int, size: int) -> Item:
        """Read a picture in RGB, not much larger than `size` needs."""


@dataclass(frozen=True)
class FolderInputs:
    """The pictures under a folder, by their names relative to it, sorted."""

    folder: Path
    names: list[str]

    @property
    def identity(self) -> dict[str, str]:
        return {"input": str(self.folder.resolve())}

    def __len__(self) -> int:
        return len(self.names)

    def key(self, i: int) -> str:
        return self.names[i]

    def read(self, i: int, size: int) -> Item:
        columns = {"image": self.names[i]}
        try:
            return Item(columns, open_picture(self.folder / self.names[i], size))
        except UnreadableImage as reason:
            return Item(columns, None, str(reason))


@dataclass(frozen=True)
class ShardInputs:
    """The samples of a split, in the order of the shards."""

    reader: ShardReader

    @property
    def identity(self) -> dict[str, str]:
        return {"input": str(SetIdentity.of(self.reader)), "split": self.reader.split}

    def __len__(self) -> int:
        return len(self.reader)

    def key(self, i: int) -> str:
        return str(i)

    def read(self, i: int, size: int) -> Item:
        try:
            sample = self.reader.read(i)
            return Item({"image": sample.file_name, "image_id": sample.image_id}, decode(sample.jpeg, size))
        except Unreachable:
            raise
        except DAMAGED as error:
            return Item({"image": self.reader.name(i)}, None, str(error))


def open_inputs(where: str, split: str | None, data: DataConfig) -> Inputs:
    """Open a folder of pictures (its subfolders too), or a shard set in a folder or behind an address.

    `split` is for shard sets, `test` where none is given. UserError where there is nothing to caption.
    """
    folder = Path(where)
    if is_address(where) or (folder / MANIFEST_NAME).is_file():
        reader = ShardReader(Place(where, data.cache, data.cache_gb), split or "test")
        if not len(reader):
            raise UserError(f"split {reader.split} of {where} has no samples; name another with --split")
        return ShardInputs(reader)
    if folder.is_file():
        raise UserError(f"{where} is a file; name its folder, or leave out --out to caption single pictures")
    pictures = find_pictures([folder])
    if split is not None:
        raise UserError(f"{where} holds pictures and no {MANIFEST_NAME}; --split is for shard sets, leave it out")
    return FolderInputs(folder, [picture.relative_to(folder).as_posix() for picture in pictures])
