"""tools/caption.py on every sort of picture, as a user runs it."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from untrained import save_run

from imgcap.captioning.files import _drawing_names

WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    @property
    def entries(self) -> list[dict]:
        assert self.returncode == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def captions(self) -> list[str]:
        return [entry["caption"] for entry in self.entries]


def random_run(folder: Path, seed: int, words: list[str]) -> Path:
    return save_run(folder, words, "data={image_size: 48, max_tokens: 7}", seed=seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random, sharp weights: what it says depends on the picture."""
    return random_run(tmp_path_factory.mktemp("run"), 1, WORDS)


@pytest.fixture
def caption(model: Path, command: Callable[..., tuple[int, str, str]]) -> Callable[..., Ended]:
    """Run the tool in this process, which has torch already."""

    def start(*options: object) -> Ended:
        return Ended(*command("tools/caption.py", model, *options))

    return start


def photo(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((90, 60), Image.Resampling.BILINEAR)


def test_json_is_a_list_and_nothing_else(caption, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    ended = caption(*paths, "--json")
    entries = json.loads(ended.stdout)
    assert [entry["image"] for entry in entries] == [str(path) for path in paths]
    assert all(list(entry) == ["image", "caption", "score"] and entry["score"] < 0 for entry in entries)
    assert len({entry["score"] for entry in entries}) == 5, "it says the same of every picture"
    assert caption(*paths, "--json", "--batch", 2).captions == ended.captions


def test_plain_lines_and_folders(caption, tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deeper/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    lines = caption(tmp_path, tmp_path / "a.jpg").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(tmp_path / n) for n in ("a.jpg", "b.png", "deeper/c.webp")]


def test_modes_that_show_the_same_get_the_same_caption(caption, tmp_path: Path) -> None:
    picture = photo()
    turned = picture.transpose(Image.Transpose.ROTATE_90)  # the tag turns it back
    exif = Image.Exif()
    exif[0x0112] = 6
    opaque = picture.copy()
    opaque.putalpha(255)
    palette = picture.quantize(256)
    saved = {"rgb": picture, "rgba": opaque, "palette_as_rgb": palette.convert("RGB"), "palette": palette}
    for name, image in saved.items():
        image.save(tmp_path / f"{name}.png")
    turned.save(tmp_path / "turned.tiff", exif=exif)
    grey = picture.convert("L")
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "grey_as_rgb.png")
    found = json.loads(caption(tmp_path, "--json").stdout)
    captions = {Path(entry["image"]).stem: (entry["caption"], round(entry["score"], 1)) for entry in found}
    assert captions["rgb"] == captions["rgba"] == captions["turned"]
    assert captions["palette"] == captions["palette_as_rgb"]
    assert captions["grey"] == captions["grey_as_rgb"] != captions["rgb"]


def test_cmyk_and_16_bit_are_read(caption, tmp_path: Path) -> None:
    photo().convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13).save(tmp_path / "deep.png")
    assert len(caption(tmp_path, "--json").captions) == 2


def test_an_unreadable_picture_is_named_and_skipped(caption, tmp_path: Path) -> None:
    photo().save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:300])
    (tmp_path / "empty.jpg").touch()
    ended = caption(tmp_path, "--json")
    assert [Path(entry["image"]).name for entry in json.loads(ended.stdout)] == ["good.jpg"]
    assert ended.returncode == 0
    assert "bad.jpg: truncated" in ended.stderr and "empty.jpg: zero bytes" in ended.stderr


def test_none_readable_exits_2(caption, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    ended = caption(tmp_path / "empty.jpg", "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout) == []
    assert ended.stderr.strip().splitlines()[-1].startswith("error: no picture could be read")


@pytest.mark.parametrize("missing", ["nowhere.jpg", "."])
def test_a_missing_path_or_an_empty_folder_is_one_line(caption, tmp_path: Path, missing: str) -> None:
    ended = caption(tmp_path / missing, "--json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: there is no picture") and ended.stderr.count("\n") == 1


def test_attention_draws_one_file_a_picture(caption, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        photo().save(tmp_path / folder / "same.jpg")
    ended = caption(tmp_path / "one", tmp_path / "two", "--attention", tmp_path / "drawn")
    assert ended.returncode == 0, ended.stderr
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["same-2.png", "same.png"]
    assert drawn[0].read_bytes() == drawn[1].read_bytes()
    words = len(caption(tmp_path / "one", "--json").captions[0].split())
    with Image.open(drawn[0]) as picture:
        assert words == 0 or picture.width * picture.height > 90 * 60  # more than the photo itself


def test_beam_is_heeded(caption, tmp_path: Path) -> None:
    for number in range(6):
        photo(number).save(tmp_path / f"{number}.png")
    scores = [
        [entry["score"] for entry in json.loads(caption(tmp_path, "--json", "--beam", beam).stdout)] for beam in (1, 8)
    ]
    assert sum(scores[1]) > sum(scores[0])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        photo(number).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [("--best", 3), ("--method", "sample", "--samples", 3), ("--method", "diverse", "--best", 3, "--diversity", 9)],
)
def test_several_captions_of_each_picture_the_best_first(caption, photos: Path, options: tuple) -> None:
    entries = caption(photos, "--json", *options).entries
    for entry in entries:
        assert list(entry) == ["image", "caption", "score", "captions"]
        scores = [scored["score"] for scored in entry["captions"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert entry["captions"][0] == {"caption": entry["caption"], "score": entry["score"]}
    lines = caption(photos, *options).stdout.splitlines()
    assert lines == [f"{entry['image']}\t{scored['caption']}" for entry in entries for scored in entry["captions"]]


def test_constraints_are_heeded(caption, photos: Path) -> None:
    plain = caption(photos, "--json").captions
    said = {word for text in plain for word in text.split()}
    unsaid = next(word for word in WORDS if not any(word in text.split() for text in plain))
    assert all(unsaid in text.split() for text in caption(photos, "--json", "--require", unsaid).captions)
    banned = [option for word in said for option in ("--ban", word)]
    assert not {word for text in caption(photos, "--json", *banned).captions for word in text.split()} & said
    texts = caption(photos, "--json", "--min-length", 6, "--no-repeat-ngram", 1, "--ban", "<unk>").captions
    assert all(len(text.split()) == len(set(text.split())) >= 6 for text in texts)


def test_samples_are_the_pictures_own(caption, photos: Path) -> None:
    draw = ("--json", "--method", "sample", "--samples", 2, "--temperature", 3, "--seed")
    together = caption(photos, *draw, 4).entries
    assert caption(photos, *draw, 4, "--batch", 1).captions == [entry["caption"] for entry in together]
    moved = photos / "moved"
    moved.mkdir()
    (photos / "3.png").rename(moved / "first.png")
    again, expected = caption(moved, *draw, 4).entries[0]["captions"], together[3]["captions"]
    assert [scored["caption"] for scored in again] == [scored["caption"] for scored in expected]
    assert caption(photos, *draw, 5).captions != caption(photos, *draw, 4).captions


def test_an_ensemble_is_of_one_vocabulary(caption, model: Path, photos: Path, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("others")
    other, stranger, fewer = folder / "other", folder / "stranger", folder / "fewer"
    for path, words in ((other, WORDS), (stranger, [*WORDS[:-1], "over"]), (fewer, WORDS[:-1])):
        path.mkdir()
        random_run(path, 2, words)
    alone = caption(photos, "--json").entries
    itself = caption(photos, "--json", "--with", model).entries
    assert [entry["caption"] for entry in itself] == [entry["caption"] for entry in alone]
    assert [entry["score"] for entry in itself] == pytest.approx([entry["score"] for entry in alone], abs=1e-4)
    both = caption(photos, "--json", "--with", other, "--attention", folder / "drawn").entries
    assert [entry["score"] for entry in both] != pytest.approx([entry["score"] for entry in alone], abs=1e-2)
    assert len(list((folder / "drawn").iterdir())) == 4
    refused = caption(photos, "--json", "--with", other, "--with", stranger)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{stranger} has another vocabulary than {model}, first 'over' in place of" in refused.stderr
    decoder = "model.decoder={type: transformer, width: 16, heads: 2, max_length: 5}"
    short = save_run(folder / "short", WORDS, decoder, "data={image_size: 48, max_tokens: 4}")
    refused = caption(photos, "--json", "--with", short)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{short} knows 5 positions, and captions of {model} have up to" in refused.stderr
    refused = caption(photos, "--json", "--with", fewer)
    assert f"{fewer} has another vocabulary than {model}, without {WORDS[-1]!r} and what follows; an" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--require", "dgo"), "error: the vocabulary has no word 'dgo'; the nearest is 'dog'"),
        (("--top-p", 0.9), "error: --top-p 0.9 is for --method sample; leave it out with --method beam"),
        (("eval.beam=3",), "error: eval.beam=3 overrides a key of the configuration, which goes with --out; without"),
        (("--method", "diverse", "--groups", 3), "error: --groups 3 must divide the beam of 5"),
        (
            ("--method", "sample", "--require", "dog"),
            "error: --require dog is for --method beam or greedy; leave it out",
        ),
        (("--ban", "<unk>", "--allow-unk"), "error: <unk> is both banned and allowed; leave it out of --ban"),
        (("--no-repeat-ngram", -1), "error: --no-repeat-ngram -1 is too low; it is at least 0"),
        (("--top-k", 0), "error: --top-k 0 is too low; it is at least 1"),
        (("--min-length", 500), "error: --min-length 500 asks for at least 500 words and the model's captions have at"),
        (("--length-penalty", "nan"), "error: --length-penalty nan must be a finite number, such as 1"),
        (("--length-penalty", "inf"), "error: --length-penalty inf must be a finite number, such as 1"),
        (("--method", "sample", "--temperature", "inf"), "error: --temperature inf must be a finite number, such as 1"),
    ],
)
def test_options_that_make_no_sense_are_one_line(caption, photos: Path, options: tuple, message: str) -> None:
    ended = caption(photos, "--json", "--attention", photos / "drawn", *options)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(message) and not (photos / "drawn").exists()


def test_drawings_never_share_a_name_nor_take_a_picture_s(caption, tmp_path: Path) -> None:
    names = ["a.jpg", "a-2.jpg", "A.png", "b/a.jpg", "c/a.webp", "c/a-2.webp", f"{'é' * 120}.jpg", f"b/{'é' * 120}.jpg"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo(number).save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    entries = caption(tmp_path, "--json", "--attention", tmp_path).entries
    drawn = {path.name.casefold() for path in tmp_path.glob("*.png")} - {"a.png"}
    assert len(entries) == len(drawn) == len(names)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_drawing_takes_the_place_of_its_like_alone(caption, tmp_path: Path) -> None:
    photo(0).save(tmp_path / "a.jpg")
    photo(1).save(tmp_path / "a.png")  # somebody's own, and not captioned now
    (tmp_path / "a-2.png").write_text("no picture at all")
    before = [(tmp_path / name).read_bytes() for name in ("a.png", "a-2.png")]
    for _ in range(2):
        caption(tmp_path / "a.jpg", "--attention", tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("a.png", "a-2.png")] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.png", "a-3.png", "a.jpg", "a.png"]


def test_names_of_drawings_take_no_longer_for_many_pictures() -> None:
    paths = [Path(f"{number}/a.jpg") for number in range(20_000)]
    names = _drawing_names(paths, Path("drawn"))  # in square time it would be minutes
    assert len(set(names.values())) == len(paths) and names[paths[-1]] == Path("drawn/a-20000.png")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_no_text_holds_are_escaped(
    model: Path, command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str
) -> None:
    names = ["caf\udce9.jpg", "line\nfeed.jpg", "tab\there.jpg", "\U0001f600.jpg"]
    for number, name in enumerate(names):
        photo(number).save(tmp_path / name)
    (tmp_path / "of\nno.jpg").write_text("no picture")
    said = []
    for options in ([], ["--json"]):
        out = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", out)
        ended = command("tools/caption.py", model, tmp_path, *options)
        out.flush()
        assert f"skipped: {tmp_path}/of\\nno.jpg: not an image" in ended.stderr.splitlines()
        said.append(out.buffer.getvalue().decode(encoding))
    lines = [line.split("\t") for line in said[0].splitlines()]
    escaped = ["caf\\udce9.jpg", "line\\nfeed.jpg", "tab\\there.jpg"]
    assert [Path(name).name for name, caption in lines][:3] == escaped and len(lines) == len(names)
    assert [Path(entry["image"]).name for entry in json.loads(said[1])] == names
