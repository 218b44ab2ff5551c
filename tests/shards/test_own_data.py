"""A folder of one's own in each of ten layouts: recognised, and the same captions and splits in the set."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from photos import draw_photo

from imgcap.shards.reader import ShardReader

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

Command = Callable[..., Any]
SPLITS = {"train": range(6), "val": range(6, 8), "test": range(8, 10)}
HUB_NAMES = {"train": "train", "val": "validation", "test": "test"}
CAPTIONS = {
    f"photo{number}": [f"A photo of number {number} .", f'It is "{number}", an odd, old one .']
    for numbers in SPLITS.values()
    for number in numbers
}
SPLIT_OF = {f"photo{number}": split for split, numbers in SPLITS.items() for number in numbers}
TRUE = {split: {name: CAPTIONS[name] for name in CAPTIONS if SPLIT_OF[name] == split} for split in SPLITS}


def photos(folder: Path, in_splits: bool = False) -> dict[str, Path]:
    """Draw the photos, in a folder or in one for each split; their paths by name."""
    return {
        name: draw_photo(folder / (HUB_NAMES[SPLIT_OF[name]] if in_splits else "") / f"{name}.jpg", seed=number)
        for number, name in enumerate(CAPTIONS)
    }


def table(path: Path, rows: list[list[str]], separator: str = ",") -> Path:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
    path.write_text(out.getvalue())
    return path


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def in_splits(root: Path, write: Callable[[Path, list[dict[str, Any]]], object]) -> None:
    """Write a table into the folder of each split, of the photos there."""
    for split, captions in TRUE.items():
        rows = [{"file_name": f"{name}.jpg", "text": text} for name, texts in captions.items() for text in texts]
        write(root / HUB_NAMES[split], rows)


def sidecar_txt(root: Path) -> list[object]:
    for name, path in photos(root / "photos").items():
        path.with_suffix(".txt").write_text("\n".join(CAPTIONS[name]) + "\n")
    (root / "lists").mkdir()
    for split, captions in TRUE.items():
        (root / "lists" / f"{split}.txt").write_text("\n".join(captions))
    return [root / "photos", "--splits", root / "lists"]


def sidecar_caption(root: Path) -> list[object]:
    for name, path in photos(root, in_splits=True).items():
        path.with_suffix(".caption").write_text("\r\n".join(CAPTIONS[name]))
    return [root]


def imagefolder_jsonl(root: Path) -> list[object]:
    photos(root, in_splits=True)
    in_splits(root, lambda folder, rows: lines(folder / "metadata.jsonl", rows))
    return [root]


def imagefolder_csv(root: Path) -> list[object]:
    paths = photos(root, in_splits=True)
    rows = [[str(paths[name].relative_to(root)), text] for name, texts in CAPTIONS.items() for text in texts]
    table(root / "metadata.csv", [["file_name", "text"], *rows])
    return [root]


def imagefolder_parquet(root: Path) -> list[object]:
    photos(root, in_splits=True)
    in_splits(
        root, lambda folder, rows: parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "metadata.parquet")
    )
    return [root]


def own_csv(root: Path) -> list[object]:
    paths = photos(root / "elsewhere")
    rows = [[str(paths[name].absolute()), t, SPLIT_OF[name], "me"] for name, texts in CAPTIONS.items() for t in texts]
    own = table(root / "own.csv", [["Foto", "Beschreibung", "Teil", "Fotograf"], *rows])
    return [own, "--image-column", "Foto", "--caption-column", "Beschreibung", "--split-column", "Teil"]


def headerless_tsv(root: Path) -> list[object]:
    photos(root / "photos")
    rows = [[name, text, SPLIT_OF[name]] for name, texts in CAPTIONS.items() for text in texts]
    return [table(root / "captions.tsv", rows, "\t"), "--images", root / "photos"]


def jsonl_lists(root: Path) -> list[object]:
    photos(root / "photos")
    rows = [{"image": f"photos/{n}.jpg", "captions": texts, "split": SPLIT_OF[n]} for n, texts in CAPTIONS.items()]
    lines(root / "captions.jsonl", rows)
    return [root]


def hub_datasets(root: Path) -> list[object]:
    """Train as two shards of Parquet; the others as `save_to_disk` writes them."""
    paths = photos(root / "drawn")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", kind), ("caption", pyarrow.list_(pyarrow.string())), ("n", pyarrow.int64())])
    hub = root / "hub"
    (hub / "data").mkdir(parents=True)
    for split, captions in TRUE.items():
        rows = [
            {"image": {"bytes": paths[name].read_bytes(), "path": f"{name}.jpg"}, "caption": texts, "n": 1}
            for name, texts in captions.items()
        ]
        if split == "train":
            for shard, part in enumerate((rows[:4], rows[4:])):
                held = pyarrow.Table.from_pylist(part, schema)
                parquet.write_table(held, hub / "data" / f"train-{shard:05}-of-00002.parquet", row_group_size=3)
            continue
        folder = hub / HUB_NAMES[split]
        folder.mkdir()
        with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", schema) as stream:
            stream.write_table(pyarrow.Table.from_pylist(rows, schema), max_chunksize=1)
        with pyarrow.ipc.new_stream(folder / "cache-1234.arrow", schema) as stream:
            stream.write_table(pyarrow.Table.from_pylist(rows[:1], schema))
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (hub / "dataset_dict.json").write_text(json.dumps({"splits": list(HUB_NAMES.values())}))
    return [hub]


def own_coco(root: Path) -> list[object]:
    photos(root / "photos")
    images = [
        {"id": 7 + n, "file_name": f"my\\photos\\{name}.jpg", "split": SPLIT_OF[name], "width": 48}
        for n, name in enumerate(CAPTIONS)
    ]
    annotations = [
        {"id": 100 * n + m, "image_id": 7 + n, "caption": text}
        for n, texts in enumerate(CAPTIONS.values())
        for m, text in enumerate(texts)
    ]
    (root / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return [root]


LAYOUTS = {
    sidecar_txt: "10 .txt files beside pictures; 10 images, 20 captions",
    sidecar_caption: "10 .caption files beside pictures; 10 images, 20 captions",
    imagefolder_jsonl: "an ImageFolder metadata.jsonl and 2 more with columns file_name, text; 10 images, 20 captions",
    imagefolder_csv: "an ImageFolder metadata.csv with columns file_name, text; 10 images, 20 captions",
    imagefolder_parquet: "an ImageFolder metadata.parquet and 2 more with columns file_name, text; 10 images, 20",
    own_csv: "a table own.csv with columns Foto, Beschreibung, Teil; 10 images, 20 captions; column 'Fotograf' is not",
    headerless_tsv: "a table captions.tsv with columns 1, 2, 3; 10 images, 20 captions",
    jsonl_lists: "a table captions.jsonl with columns image, captions, split; 10 images, 20 captions",
    hub_datasets: "a data set of Hugging Face train-00000-of-00002.parquet and 3 more with columns image, caption; 10",
    own_coco: "COCO JSON annotations.json; 10 images, 20 captions; 10 pictures found by the last part of their name",
}


@pytest.mark.parametrize("lay_out", LAYOUTS, ids=lambda lay_out: lay_out.__name__)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_layout_gives_the_same_captions_and_splits(
    command: Command, tmp_path: Path, lay_out: Callable[[Path], list[object]], workers: int
) -> None:
    root, out = tmp_path / "mine", tmp_path / "set"
    root.mkdir()
    ended = command("imgcap", "build", "folder", *lay_out(root), "--out", out, "--workers", workers)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"recognised: {LAYOUTS[lay_out]}"), ended.stdout
    assert "skipped" not in ended.stdout and "left out" not in ended.stdout
    pictures = {path.stem: path.read_bytes() for path in root.rglob("*.jpg")}
    for split, true in TRUE.items():
        reader = ShardReader(out, split)
        samples = [reader.read(i) for i in range(len(reader))]
        assert {Path(sample.file_name).stem: sample.captions for sample in samples} == true
        assert all(sample.jpeg == pictures[Path(sample.file_name).stem] for sample in samples)
