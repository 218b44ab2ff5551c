"""tools/compare.py as a user runs it, on captions of drawn scenes."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from imgcap.config.load import as_yaml, load_config
from imgcap.evaluation.coco_files import with_other_images
from imgcap.evaluation.results import write_json
from imgcap.evaluation.signature import signature
from imgcap.evaluation.table import SCALE
from imgcap.shards.reader import ShardReader


@pytest.fixture
def compare(command: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def start(*arguments: object) -> Any:
        return command("tools/compare.py", *arguments, "--out", tmp_path / "page.html", "--resamples", 200)

    return start


@pytest.fixture
def told(shards: Path) -> dict[int, str]:
    """The first caption of each scene in the train split."""
    reader = ShardReader(shards, "train")
    return {sample.image_id: sample.captions[0] for sample in map(reader.read_text, range(len(reader)))}


@pytest.fixture
def a_run(shards: Path, tmp_path: Path, told: dict[int, str]) -> Callable[..., Path]:
    """What launch/evaluate.py leaves in a run's folder, of these captions."""

    def write(
        name: str, captions: dict[int, str] = told, scores: dict[str, float] | None = None, **parts: object
    ) -> Path:
        run, reader = tmp_path / name, ShardReader(shards, "train")
        run.mkdir()
        (run / "config.yaml").write_text(as_yaml(load_config(None, [f"data.shards={shards}"])))
        results = [{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()]
        write_json(run / "results" / "train-captions.json", results)
        shown = {
            "shards": f"{reader.manifest.name}@{reader.manifest_sha256[:12]}",
            "split": "train",
            "images": len(captions),
            "beam": 5,
        }
        write_json(run / "results" / "train-scores.json", {**(scores or {}), "signature": signature(**(shown | parts))})
        return run

    return write


class Page(HTMLParser):
    """The pictures and the texts of a page, and whether its tags close."""

    def __init__(self, text: str):
        super().__init__()
        self.pictures, self.open, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attributes)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def only_mistake(ended: Any) -> str:
    """The one line that a command leaves on stderr, with nothing on stdout."""
    assert ended.stdout == "" and len(ended.stderr.splitlines()) == 1, ended
    return ended.mistake


def report(ended: Any) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    return json.loads(line)


def test_two_evaluations_of_one_run_do_not_differ(a_run, compare, told: dict[int, str], tmp_path: Path) -> None:
    # The first is of an older imgcap, whose signature didn't say what a model sees of a picture.
    found = report(compare(a_run("a"), a_run("b", beam=1, input="96px-bilinear"), "--split", "train"))
    assert found["images"] == len(told)
    for difference in found["differences"].values():
        assert difference["low"] == difference["difference"] == difference["high"] == 0
    assert "No image scores differently" in (tmp_path / "page.html").read_text()


def test_captions_of_other_images_are_found_out(a_run, compare, told: dict[int, str], tmp_path: Path) -> None:
    bad = with_other_images(told, seed=0)
    bad[min(bad)] = 'a <b>"bold"</b> caption & more'
    ended = compare(a_run("good"), a_run("bad", bad), "--split", "train")
    for name, difference in report(ended)["differences"].items():
        assert difference["high"] < 0 and difference["b_wins"] == 0, name
    *rows, absent, scale = ended.stderr.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(report(ended)["differences"]) and scale == SCALE
    assert absent.strip() == "METEOR: not computed in A and B"
    assert all(
        f"{found['a']:.3f}" in row for row, found in zip(rows, report(ended)["differences"].values(), strict=True)
    )
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == [] and len(page.pictures) == 12
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in page.pictures)
    assert not re.search(r'(src|href)="(?!data:)', text), "the page needs nothing else"
    assert "<b>" not in text.replace('<b class="', "") and 'dir="auto"' in text


def test_the_page_has_one_scale_names_files_and_fits_a_phone(a_run, compare, told, shards, tmp_path: Path) -> None:
    bad = with_other_images(told, seed=0)
    ended = compare(a_run("good"), a_run("bad", bad), "--split", "train")
    found, text = report(ended)["differences"], (tmp_path / "page.html").read_text()
    texts = "".join(Page(text).texts)
    for difference in found.values():
        assert f"{difference['a']:.3f}" in texts and f"{difference['difference']:+.3f}" in texts
    reader = ShardReader(shards, "train")
    files = {sample.file_name for sample in map(reader.read_text, range(len(reader)))}
    shown = re.findall(r"<summary><bdi>(.*?)</bdi>", text)
    assert len(shown) == 12 and set(shown) <= files
    assert 'name="viewport" content="width=device-width' in text


def test_what_only_one_side_was_scored_with_is_named(a_run, compare, tmp_path: Path) -> None:
    with_both = {"METEOR": 0.25, "SPICE": 0.2}
    ended = compare(a_run("a", scores=with_both), a_run("b", scores={"SPICE": 0.3}), "--split", "train")
    said = "".join(Page((tmp_path / "page.html").read_text()).texts)
    assert "METEOR: not computed in B." in said and "SPICE: not" not in said
    assert "METEOR: not computed in B" in ended.stderr
    [row] = [line.split() for line in ended.stderr.splitlines() if line.split()[0] == "SPICE"]
    assert row[1:4] == ["0.200", "0.300", "+0.100"]
    compare(a_run("c", scores=with_both), a_run("d", scores={"METEOR": 0.125}), "--split", "train")
    said = "".join(Page((tmp_path / "page.html").read_text()).texts)
    assert "SPICE: not computed in B." in said and "METEOR: not" not in said and "-0.125" in said


def test_files_name_images_where_there_are_no_pictures(compare, told: dict[int, str], tmp_path: Path) -> None:
    entries = [{"image_id": image_id, "caption": caption} for image_id, caption in told.items()]
    write_json(tmp_path / "references.json", {"annotations": entries})
    write_json(tmp_path / "a.json", [entry | {"image": f"photo-{entry['image_id']}.jpg"} for entry in entries])
    others = with_other_images(told, 1)
    write_json(tmp_path / "b.json", [entry | {"caption": others[entry["image_id"]]} for entry in entries])
    report(compare(tmp_path / "a.json", tmp_path / "b.json", "--references", tmp_path / "references.json"))
    shown = re.findall(r"<summary><bdi>(.*?)</bdi>", (tmp_path / "page.html").read_text())
    assert len(shown) == 12 and all(name in {f"photo-{image_id}.jpg" for image_id in told} for name in shown)


def test_files_and_their_references(a_run, compare, told: dict[int, str], shards: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, captions in zip(files, (told, with_other_images(told, 1)), strict=True):
        write_json(file, [{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()])
    by_shards = report(compare(*files, "--references", f"{shards}:train"))
    assert by_shards["differences"] == report(compare(a_run("run"), files[1], "--split", "train"))["differences"]
    annotations = [{"image_id": image_id, "caption": caption} for image_id, caption in told.items()]
    write_json(tmp_path / "references.json", {"annotations": annotations})
    assert report(compare(*files, "--references", tmp_path / "references.json"))["images"] == len(told)
    assert Page((tmp_path / "page.html").read_text()).pictures == []
    assert "--references" in only_mistake(compare(*files))


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ({"split": "val"}, "split:train, of the other split:val"),
        ({"protocol": "imgcap"}, "protocol:none, of the other protocol:imgcap"),
        ({"tokeniser": "spacy-3.8-blank-ar lower"}, "tokeniser:ptb-3.4.1, of the other tokeniser:spacy-3.8"),
        ({"shards": "demo@123456789abc"}, "shards:"),
    ],
)
def test_sides_that_were_scored_otherwise_are_refused(a_run, compare, parts: dict[str, str], found: str) -> None:
    mistake = only_mistake(compare(a_run("a"), a_run("b", **parts), "--split", "train"))
    assert mistake.startswith("error: ") and found in mistake and "evaluate both alike" in mistake


def test_other_images_and_missing_results_are_named(a_run, compare, told: dict[int, str]) -> None:
    fewer = dict(list(told.items())[1:])
    assert "1 images have a caption in one of them only" in only_mistake(
        compare(a_run("a"), a_run("b", fewer, images=len(told)), "--split", "train")
    )
    assert "imgcap evaluate" in only_mistake(compare(a_run("c"), a_run("d"), "--split", "test"))
    rebuilt = {"shards": "demo@123456789abc"}
    assert "evaluate again" in only_mistake(compare(a_run("e", **rebuilt), a_run("f", **rebuilt), "--split", "train"))


def test_the_label_of_files_may_say_more_than_their_split(a_run, compare, shards: Path, tmp_path: Path) -> None:
    runs = [a_run("a"), a_run("b")]
    for path in [path for run in runs for path in (run / "results").iterdir()]:
        path.rename(path.with_name(path.name.replace("train-", "train-first-9-")))
    assert report(compare(*runs, "--split", "train-first-9"))["differences"]["CIDEr"]["difference"] == 0
    (runs[0] / "config.yaml").write_text(as_yaml(load_config(None, [f"data.shards={tmp_path / 'moved'}"])))
    assert "or name the set with --references shards/NAME:train" in only_mistake(
        compare(*runs, "--split", "train-first-9")
    )
    assert report(compare(*runs, "--split", "train-first-9", "--references", f"{shards}:train"))["images"]
