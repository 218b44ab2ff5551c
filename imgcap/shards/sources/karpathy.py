"""Karpathy's splits (Karpathy and Fei-Fei, 2015): `dataset_{flickr8k,flickr30k,coco}.json`; `restval` joins train."""

from pathlib import Path
from typing import Any

from imgcap.errors import UserError
from imgcap.shards.source import Skipped, Source, image_id_of
from imgcap.shards.sources.image_folder import in_order, list_images, refuse_wrong_folder, without_captions
from imgcap.shards.sources.splits import STANDARD_NAMES
from imgcap.shards.sources.text_file import cleaned, read_json
from imgcap.types import Record


def read(images: Path, captions: Path) -> Source:
    """Read a Karpathy file. `images` holds the files, or the subfolders that `filepath` names (train2014/ ...).

    Raises `UserError` for a file that is none.
    """
    content = read_json(captions)
    skipped: list[Skipped] = []
    try:
        entries = [_entry(image, skipped) for image in content["images"]]
        name = str(content.get("dataset", captions.stem.removeprefix("dataset_")))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{captions} is no Karpathy file: {error!r}; it needs `images` with `filename`, `split` "
            "(train, restval, val, test) and `sentences` with `raw`"
        ) from None
    files = _find_files(images, entries)
    splits: dict[str, list[Record]] = {}
    for subfolder, file_name, image_id, split, texts in entries:
        path = files.get((subfolder, file_name))
        if path is None:
            skipped.append(Skipped(file_name, "captions without an image"))
        elif not texts:
            skipped.append(Skipped(file_name, "image without captions"))
        else:
            splits.setdefault(split, []).append(Record(image_id, file_name, path, texts))
    captioned = {file_name for _, file_name, *_ in entries}
    for folder in sorted({path.parent for path in files.values()}):
        skipped += without_captions(list_images(folder), captioned)
    return Source(name, in_order(splits), skipped, origin=f"karpathy {captions.name}", split_rule="karpathy")


_Entry = tuple[str, str, int, str, tuple[str, ...]]  # subfolder, file name, image id, split, captions


def _entry(image: Any, skipped: list[Skipped]) -> _Entry:
    file_name = str(image["filename"])
    raw = [cleaned(sentence["raw"]) for sentence in image["sentences"]]
    skipped += [Skipped(file_name, "empty caption") for caption in raw if not caption]
    image_id = int(image["cocoid"]) if "cocoid" in image else image_id_of(file_name)
    texts = tuple(caption for caption in raw if caption)
    return str(image.get("filepath", "")), file_name, image_id, STANDARD_NAMES[image["split"]], texts


def _find_files(images: Path, entries: list[_Entry]) -> dict[tuple[str, str], Path]:
    """Find the path of each image that is there: in its subfolder where there is one, else in the folder itself."""
    list_images(images)  # an error where the folder is missing
    folders = {}
    for subfolder in {subfolder for subfolder, *_ in entries}:
        folder = images / Path(subfolder).name
        folders[subfolder] = folder if subfolder and folder.is_dir() else images
    present = {folder: list_images(folder) for folder in set(folders.values())}
    refuse_wrong_folder((name for _, name, *_ in entries), set().union(*present.values()), images)
    return {
        (subfolder, name): folders[subfolder] / name
        for subfolder, name, *_ in entries
        if name in present[folders[subfolder]]
    }
