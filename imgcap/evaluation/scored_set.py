"""Which shard set a model is scored on: its own, unless another is named."""

from imgcap.data.dataset import place_of
from imgcap.errors import UserError
from imgcap.models.trained import LoadedCaptioner
from imgcap.shards.identity import SetIdentity
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader


def open_scored(loaded: LoadedCaptioner, split: str) -> ShardReader:
    """Open a split of `data.shards`, where an artefact's user named it, or else of the set that it was trained on.

    Raises `UserError` where that set isn't here, isn't known, or has no such split.
    """
    named = loaded.is_run or "shards" in loaded.config.data.model_fields_set
    return ShardReader(place_of(loaded.config.data) if named else _own_place(loaded), split)


def other_set(loaded: LoadedCaptioner, reader: ShardReader) -> SetIdentity | None:
    """The set that a model was trained on, where it isn't the one that is read; None where it is, or isn't known."""
    own = loaded.trained_on
    return None if own is None or own.is_same(SetIdentity.of(reader)) else own


def told(loaded: LoadedCaptioner, reader: ShardReader, own: SetIdentity) -> str:
    """Say in a line that a model is scored on another set than its own."""
    here = SetIdentity.of(reader)
    what = "another build of its set" if own.name == here.name else "another set than it was trained on"
    return f"{loaded.path} is scored on {here} ({reader.place}), {what}, which is {own}"


def _own_place(loaded: LoadedCaptioner) -> Place:
    own, data = loaded.trained_on, loaded.config.data
    if own is None:
        raise UserError(
            f"{loaded.path} doesn't say which set it was trained on, being of an older imgcap; name the set to score "
            "with data.shards=DIR"
        )
    place = own.found(data.cache, data.cache_gb)
    if place is None:
        looked = " or ".join(own.places())
        raise UserError(
            f"{loaded.path} was trained on {own}, which isn't in {looked} here; name the set to score with "
            "data.shards=DIR"
        )
    return place
