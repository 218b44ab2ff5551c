"""Making a record into the two members of its sample: `KEY.jpg` and `KEY.json`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from imgcap.pictures.normalise import normalised_jpeg
from imgcap.pictures.opening import UnreadableImage
from imgcap.shards.source import EMPTY, Skipped, fault_of
from imgcap.types import Record


class Tokeniser(Protocol):
    """Cuts a caption into words. It is pickled to the workers; its name stands in the manifest."""

    @property
    def name(self) -> str: ...

    def __call__(self, caption: str) -> list[str]: ...


@dataclass(frozen=True)
class EncodedSample:
    """A record as a shard holds it, or only the reason why the shard holds nothing of it."""

    jpeg: bytes = b""
    json: bytes = b""
    tokens: list[list[str]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    fp16: bytes = b""  # an encoder's features, where they are kept


@dataclass(frozen=True)
class SampleEncoder:
    """Makes a record into a sample, in any process: the picture normalised, the captions tokenised."""

    tokeniser: Tokeniser
    shorter_side: int | None
    quality: int

    def __call__(self, record: Record) -> EncodedSample:
        skipped: list[Skipped] = []
        document, tokens = encoded_captions(record, self.tokeniser, skipped)
        if not tokens:
            return EncodedSample(skipped=skipped)
        try:
            jpeg = normalised_jpeg(record.read(), self.shorter_side, self.quality)
        except UnreadableImage as error:
            return EncodedSample(skipped=[*skipped, Skipped(record.file_name, str(error))])
        except OSError as error:
            return EncodedSample(skipped=[*skipped, Skipped(record.file_name, f"cannot be read: {error.strerror}")])
        return EncodedSample(jpeg, document, tokens, skipped)


def encoded_captions(
    record: Record, tokeniser: Callable[[str], list[str]], skipped: list[Skipped]
) -> tuple[bytes, list[list[str]]]:
    """Make the JSON document of a record's captions, and their tokens: none where no caption is left."""
    captions, tokens = tokenised(record.captions, record.file_name, tokeniser, skipped)
    if not tokens:
        skipped.append(Skipped(record.file_name, "image without captions"))
    content = {"image_id": record.image_id, "file_name": record.file_name, "captions": captions, "tokens": tokens}
    return json.dumps(content, separators=(",", ":")).encode(), tokens


def tokenised(
    captions: Iterable[str], name: str, tokeniser: Callable[[str], list[str]], skipped: list[Skipped]
) -> tuple[list[str], list[list[str]]]:
    """Cut captions into words; those that are empty or too long for that are skipped under `name`."""
    kept, tokens = [], list[list[str]]()
    for caption in captions:
        if fault := fault_of(caption):
            skipped.append(Skipped(name, fault))
        elif words := tokeniser(caption):
            kept.append(caption)
            tokens.append(words)
        else:
            skipped.append(Skipped(name, EMPTY))
    return kept, tokens
