"""launch/caption.py: every picture once, in order, the same for any number of ranks and after any kill."""

import csv
import json
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from imgcap.captioning.journal import Journal, as_csv, as_jsonl, read_rows
from imgcap.dist import World
from imgcap.evaluation import Evaluator
from imgcap.models.artefact import load_captioner
from imgcap.shards import ShardReader

PICTURES, BATCH = 22, 4


def journal_of(out: Path) -> list[dict[str, dict]]:
    """The whole batches, as far as they are written."""
    batches = []
    for path in sorted(out.with_name(f"{out.name}.partial").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                batches.append(json.loads(line))
            except ValueError:
                assert line == path.read_text().splitlines()[-1]
    return batches


@pytest.fixture(scope="session")
def undisturbed(warm, run, pictures, tmp_path_factory):
    """One process, from end to end."""
    out = tmp_path_factory.mktemp("whole") / "captions.jsonl"
    root = Path(__file__).parents[2]
    ended = warm[False].run(["launch/caption.py", run, pictures, "--out", out], root, {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr
    return out, ended


def test_every_picture_has_its_row_in_order(undisturbed, pictures):
    out, ended = undisturbed
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    names = sorted(path.relative_to(pictures) for path in pictures.rglob("*.*") if path.suffix != ".txt")
    assert [row["image"] for row in rows] == [name.as_posix() for name in names] and len(names) == PICTURES
    assert all(list(row) == ["image", "caption", "score"] and row["score"] < 0 for row in rows)
    assert len({row["caption"] for row in rows}) > PICTURES / 3, "it says the same of every picture"
    counts = json.loads(ended.stdout)
    assert (counts["images"], counts["captioned"], counts["skipped"]) == (PICTURES, PICTURES, 0)
    assert counts["images_per_s"] > 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["captions.jsonl", "captions.jsonl.summary.json"]


@pytest.mark.dist
@pytest.mark.parametrize(
    ("killed", "done", "ranks"),
    [
        ({"rank": 0, "at": "append", "after": 1}, 1, 3),
        ({"rank": 1, "at": "append", "after": 1}, 1, 1),
        ({"rank": 1, "at": "loader"}, 0, 1),
        ({"rank": 0, "at": "summary"}, 6, 1),
    ],
    ids=lambda value: value["at"] if isinstance(value, dict) else None,
)
def test_a_killed_run_is_finished_by_other_ranks(caption, pictures, undisturbed, tmp_path, killed, done, ranks):
    out = tmp_path / "captions.jsonl"
    ended = caption(pictures, out, ranks=2, killed=killed)
    assert ended.returncode == 1 and not out.exists(), ended.stderr
    batches = journal_of(out)
    names = [name for batch in batches for name in batch]
    assert len(set(names)) == len(names), "two ranks captioned the same"
    assert len(batches) >= done
    again = caption(pictures, out, ranks=ranks)
    assert again.returncode == 0, again.stderr
    assert f"captions.jsonl: {len(names)} of {PICTURES} images are done already" in again.stderr
    assert out.read_bytes() == undisturbed[0].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.jsonl", "captions.jsonl.summary.json"]


def test_a_run_killed_at_its_very_end_is_finished(caption, pictures, undisturbed, tmp_path):
    out = tmp_path / "captions.jsonl"
    assert caption(pictures, out, killed={"rank": 0, "at": "out"}).returncode != 0
    again = caption(pictures, out)
    assert (again.returncode, again.stdout) == (0, "") and "is finished already" in again.stderr
    assert out.read_bytes() == undisturbed[0].read_bytes()
    assert not (tmp_path / "captions.jsonl.partial").exists()


@pytest.mark.dist
def test_a_shard_set_is_captioned_as_evaluation_does(caption, picture_shards, run, tmp_path):
    out = tmp_path / "captions.csv"
    ended = caption(picture_shards, out, ranks=2, killed={"rank": 1, "at": "append", "after": 1})
    assert ended.returncode == 1 and journal_of(out), ended.stderr
    again = caption(picture_shards, out, "--split", "test", "data.workers=1")
    assert again.returncode == 0, again.stderr
    loaded, reader = load_captioner(run), ShardReader(picture_shards, "test")
    world = World(0, 1, 0, loaded.model.decoder.output.weight.device)
    evaluator = Evaluator(reader, loaded.vocabulary, loaded.config.data, loaded.config.eval, world, split="test")
    expected = {str(row["image_id"]): row["caption"] for row in evaluator.run(loaded.model).captions}
    rows = read_rows(out)
    assert {row["image_id"]: row["caption"] for row in rows} == expected
    assert [row["image"] for row in rows] == [reader.read(i).file_name for i in range(len(reader))]


def test_damaged_pictures_are_named_skipped_and_counted(caption, pictures, undisturbed, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "captions.jsonl"
    for row in (whole := read_rows(undisturbed[0])):
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / row["image"]).write_bytes((pictures / row["image"]).read_bytes())
    hurt, mended = whole[5]["image"], whole[12]["image"]
    for name in (hurt, mended):
        (folder / name).write_bytes((pictures / name).read_bytes()[:200])
    ended = caption(folder, out, killed={"rank": 0, "at": "append", "after": 4})
    assert ended.returncode != 0 and len(journal_of(out)) == 4
    (folder / mended).write_bytes((pictures / mended).read_bytes())
    again = caption(folder, out)
    assert again.returncode == 0, again.stderr
    assert f"skipped: {hurt}: truncated or damaged image" in again.stderr and mended not in again.stderr
    assert [row["image"] for row in read_rows(out)] == [row["image"] for row in whole if row["image"] != hurt]
    assert json.loads(again.stdout)["skipped"] == 1 and json.loads(again.stdout)["captioned"] == PICTURES - 1
    summary = json.loads((tmp_path / "captions.jsonl.summary.json").read_text())
    assert summary["skipped"] == {hurt: "truncated or damaged image"} and summary["beam"] == 3


def test_a_table_quotes_what_it_must(tmp_path):
    captions = ['a "red" dog, running', "two\nlines\r\nof text", "كلب يجري", "", "plain", "line\u2028separator"]
    rows = [{"image": f"{n},\n.jpg", "caption": caption, "score": -n / 7} for n, caption in enumerate(captions)]
    rows.append({"image": "bad\udcff.jpg", "caption": "a name that is no UTF-8", "score": -1.0})
    path = tmp_path / "captions.csv"
    path.write_bytes(as_csv(rows))
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["image", "caption", "score"]
    assert [line[1] for line in table[1:-1]] == captions and table[-1][0] == r"bad\udcff.jpg"
    assert [float(line[2]) for line in table[1:]] == [row["score"] for row in rows]
    path = tmp_path / "captions.jsonl"
    path.write_bytes(as_jsonl(rows))
    assert read_rows(path) == rows


@pytest.mark.parametrize(
    ("where", "out", "options", "complaint"),
    [
        ("EMPTY", "c.jsonl", [], "there is no picture in"),
        ("NOTES", "c.jsonl", [], "there is no picture in"),
        ("MISSING", "c.jsonl", [], "there is no picture or folder"),
        ("EMPTY/../NOTES/notes.txt", "c.jsonl", [], "is a file; name its folder"),
        ("PICTURES", "c.jsonl", ["--split", "val"], "--split is for shard sets"),
        ("SHARDS", "c.jsonl", ["--split", "dev"], "has no split 'dev'; it has test"),
        ("PICTURES", "c.txt", [], "should end in .jsonl or .csv"),
        ("PICTURES", "NOTES/notes.txt/c.jsonl", [], "cannot use"),
        ("PICTURES", "c.jsonl", ["--beam", "0"], "eval.beam"),
        ("BROKEN", "c.jsonl", [], "none of 1 images could be read"),
    ],
)
def test_a_mistake_is_one_line(caption, pictures, picture_shards, tmp_path, where, out, options, complaint):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "NOTES").mkdir()
    (tmp_path / "NOTES" / "notes.txt").write_text("no picture")
    (tmp_path / "BROKEN").mkdir()
    (tmp_path / "BROKEN" / "a.jpg").touch()
    place = {"PICTURES": pictures, "SHARDS": picture_shards}.get(where, tmp_path / where)
    ended = caption(place, tmp_path / out, *options)
    *before, last = ended.stderr.splitlines()
    assert ended.returncode == 2 and complaint in last and last.startswith("error: "), ended.stderr
    assert before == (["skipped: a.jpg: zero bytes"] if where == "BROKEN" else [])
    assert not (tmp_path / "c.jsonl").exists()


def test_what_was_made_otherwise_is_left_alone(caption, pictures, undisturbed, tmp_path):
    out = tmp_path / "captions.jsonl"
    caption(pictures, out, killed={"rank": 0, "at": "append", "after": 2})
    begun = caption(pictures, out, "--beam", "2")
    assert begun.returncode == 2 and "captions.jsonl.partial was made with beam 3, now 2" in begun.stderr
    with FileLock(tmp_path / "captions.jsonl.partial" / "lock"):
        busy = caption(pictures, out)
    assert busy.returncode == 2 and "another process is captioning into" in busy.stderr
    assert caption(pictures, out).returncode == 0 and out.read_bytes() == undisturbed[0].read_bytes()
    finished = caption(pictures / "0", out)
    assert finished.returncode == 2 and "was made with" in finished.stderr
    foreign = tmp_path / "mine.csv"
    foreign.write_text("my own table")
    refused = caption(pictures, foreign)
    assert refused.returncode == 2 and "exists, and not by this command" in refused.stderr
    assert foreign.read_text() == "my own table"


def test_a_journal_survives_any_cut(tmp_path):
    """Whatever of the files' ends is missing: whole batches are read, in every other one nothing."""
    journal = Journal(tmp_path / "out.csv")
    journal.begin({}, 6)
    journal.open(0, 0)
    batches = [{f"{n}": {"image": f"{n}.jpg", "caption": "ä\n" * n, "score": -1.0}} for n in range(3)]
    for batch in batches:
        journal.append(batch)
    path = tmp_path / "out.csv.partial" / "0000-00000.jsonl"
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut] + b"\0" * (cut % 3))
        finished = sum(cut > end for end in ends)
        found = journal.read()
        expected = {key: row for batch in batches[:finished] for key, row in batch.items()}
        assert expected.items() <= found.items() and len(found) <= finished + 1
        assert all(found[key] == batch[key] for batch in batches for key in batch if key in found)
    assert journal.next_start() == 1


def test_pictures_of_a_contact_sheet(caption, pictures, undisturbed, tmp_path):
    out, page = tmp_path / "captions.csv", tmp_path / "pages" / "page.html"
    assert caption(pictures, out, "--contact-sheet", page).returncode == 0
    from html.parser import HTMLParser
    from urllib.request import urlopen

    class Page(HTMLParser):
        def __init__(self):
            super().__init__()
            self.images, self.captions, self.tags, self.within = [], [], [], None

        def handle_starttag(self, tag, attributes):
            self.tags.append(tag)
            self.within = tag
            found = dict(attributes)
            if tag == "img":
                assert found["loading"] == "lazy"
                self.images.append(found["src"])
            if tag == "figcaption":
                assert found["dir"] == "auto"
                self.captions.append("")

        def handle_endtag(self, tag):
            self.within = None

        def handle_data(self, data):
            if self.within == "figcaption":
                self.captions[-1] += data

    read = Page()
    read.feed(page.read_text(encoding="utf-8"))
    rows = read_rows(undisturbed[0])
    assert read.captions == [row["caption"] for row in rows], "in order, and nothing of them is markup"
    assert "b" not in read.tags and "script" not in read.tags
    assert len(read.images) == PICTURES and all(source.startswith("data:image/jpeg;base64,") for source in read.images)
    with urlopen(read.images[0]) as data, Image.open(data) as thumbnail:
        assert max(thumbnail.size) <= 240
