"""Splits never share an image, whichever way they come about."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.shards.sources.splits import HELD_OUT_SHARE, Shares, read_splits

names = st.lists(st.text(min_size=1, max_size=12), max_size=60)


@given(names, st.integers(0, 2**31))
def test_a_seeded_split_gives_every_image_one_place(images: list[str], seed: int) -> None:
    splits = Shares().cut(images, seed)
    assert set(splits) == set(images)
    held_out = max(round(len(splits) * HELD_OUT_SHARE), 1) if len(splits) >= 3 else 0
    assert sum(split == "val" for split in splits.values()) == held_out
    assert sum(split == "test" for split in splits.values()) == held_out


@given(names, st.randoms())
def test_a_seeded_split_knows_no_order(images: list[str], random: object) -> None:
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Shares().cut(shuffled, 3) == Shares().cut(images, 3)


def test_seeds_differ() -> None:
    images = [f"{i}.jpg" for i in range(200)]
    assert Shares().cut(images, 0) != Shares().cut(images, 1)


def test_lists_of_flickr8k_and_of_flickr30k(tmp_path: Path) -> None:
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\r\nb.jpg\r\n\r\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("c.jpg")
    (tmp_path / "captions.txt").write_text("not a list")
    assert read_splits(tmp_path) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "val"}
    (tmp_path / "test.txt").write_text("36979\n")
    assert read_splits(tmp_path)["36979"] == "test"


def test_an_image_in_two_lists_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a.jpg\nb.jpg\n")
    (tmp_path / "test.txt").write_text("b.jpg\n")
    with pytest.raises(UserError, match=r"b\.jpg is in both test\.txt and train\.txt"):
        read_splits(tmp_path)


def test_a_folder_without_lists_and_a_strange_file_are_errors(
    tmp_path: Path, json_file: Callable[[Path, object], Path]
) -> None:
    with pytest.raises(UserError, match="holds no split lists"):
        read_splits(tmp_path)
    with pytest.raises(UserError, match="there is no"):
        read_splits(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no Karpathy file"):
        read_splits(json_file(tmp_path / "a.json", {"images": [{"filename": "a.jpg"}]}))


def test_karpathy_splits_and_restval(tmp_path: Path, json_file: Callable[[Path, object], Path]) -> None:
    images = [{"filename": f"{split}.jpg", "split": split} for split in ("train", "restval", "val", "test")]
    path = json_file(tmp_path / "dataset_flickr30k.json", {"images": images})
    assert read_splits(path) == {"train.jpg": "train", "restval.jpg": "train", "val.jpg": "val", "test.jpg": "test"}
