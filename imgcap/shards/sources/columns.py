"""Which columns of a table hold the image, its captions and its split: as the user says, or by their usual names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imgcap.errors import UserError, nearest

_IMAGES = (
    *("image", "image_name", "file_name", "filename", "file", "image_path", "filepath", "file_path", "path"),
    *("image_file", "img", "img_path", "photo", "picture", "image_id"),
)
_CAPTIONS = ("caption", "captions", "comment", "text", "sentence", "sentences", "raw", "description")
_NUMBERED = re.compile(r"^(caption|comment|text|sentence|description)s?[ _-]?\d+$")
_SPLITS = ("split", "subset", "partition")
NO_SPLIT = "none"  # --split-column none: a split column is left alone


@dataclass(frozen=True)
class Columns:
    """The columns that a user names; what isn't named is found by its usual name. Without a header: 1, 2, 3 …"""

    image: str | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None
    separator: str | None = None

    @property
    def named(self) -> list[tuple[str, str]]:
        """The columns that the user named, each with the option that named it."""
        named = [("--image-column", self.image or ""), *(("--caption-column", name) for name in self.captions)]
        if self.split != NO_SPLIT:
            named.append(("--split-column", self.split or ""))
        return [(option, name) for option, name in named if name]

    def choose(self, names: Sequence[str], image: str | None = None, captions: Sequence[str] = ()) -> "Chosen | None":
        """Choose among a table's columns; none where no image or no captions are found.

        `image` and `captions` are what the table's content says, where the user says nothing.
        """
        known = {name.strip().lower(): place for place, name in reversed(list(enumerate(names)))}
        if any(name.strip().lower() not in known for _, name in self.named):
            return None
        which, texts = self._found(names, image, captions)
        split = self.split or next((name for name in _SPLITS if name in known), NO_SPLIT)
        if which is None or not texts:
            return None
        place = None if split == NO_SPLIT else known[split.strip().lower()]
        return Chosen(
            tuple(names),
            known[which.strip().lower()],
            tuple(known[text.strip().lower()] for text in texts),
            place,
        )

    def _found(self, names: Sequence[str], image: str | None, captions: Sequence[str]) -> tuple[str | None, list[str]]:
        """The columns of images and of captions, as far as they are found."""
        known = {name.strip().lower() for name in names}
        which = self.image or image or next((name for name in _IMAGES if name in known), None)
        texts = list(self.captions or captions)
        if not texts:
            texts = [name for name in _CAPTIONS if name in known and name != which][:1]
        return which, texts or [name for name in names if _NUMBERED.match(name.strip().lower())]

    def refuse(self, told: str, names: Sequence[str]) -> UserError:
        """Make the error for a table in which the columns aren't found."""
        held = ", ".join(name.strip() for name in names)
        for option, name in self.named:
            if name.strip().lower() not in [column.strip().lower() for column in names]:
                return UserError(
                    f"{told} has no column {name!r} ({option}); its columns are {held}; the nearest is "
                    f"{nearest(name, [column.strip() for column in names])!r}"
                )
        which, texts = self._found(names, None, ())
        if texts and which is None:
            unclear = "which holds the image; name it with --image-column"
        elif which and not texts:
            unclear = "which hold captions; name them with --caption-column"
        else:
            unclear = "which hold image and captions; name them with --image-column and --caption-column"
        return UserError(f"{told} has the columns {held}, and it isn't clear {unclear}")


USUAL = Columns()


def is_usual_name(cell: str) -> bool:
    """Whether a cell is what a column is usually called, and so no picture: `image`, where an image.jpg lies too."""
    return cell.strip().lower() in (*_IMAGES, *_CAPTIONS, *_SPLITS)


@dataclass(frozen=True)
class Chosen:
    """The places of the columns that are used, in a table whose columns are called `names`."""

    names: tuple[str, ...]
    image: int
    captions: tuple[int, ...]
    split: int | None = None

    @property
    def used(self) -> list[str]:
        """The names of the columns that are used: image, captions, split."""
        places = [self.image, *self.captions, *([] if self.split is None else [self.split])]
        return [self.names[place].strip() for place in places]

    @property
    def unused(self) -> list[str]:
        """The names of the columns that are not used."""
        places = {self.image, self.split, *self.captions}
        return [name.strip() for place, name in enumerate(self.names) if place not in places and name.strip()]
