"""launch/caption.py: every picture once, in order, the same for any number of ranks and after any kill."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

from imgcap.captioning import contact_sheet
from imgcap.captioning.contact_sheet import write_contact_sheet
from imgcap.captioning.inputs import open_inputs
from imgcap.captioning.journal import Journal, as_csv, as_jsonl, read_rows
from imgcap.config.data import DataConfig
from imgcap.errors import UserError
from imgcap.evaluation.evaluator import Evaluator
from imgcap.models.trained import load_captioner
from imgcap.ranks.world import World
from imgcap.shards.reader import ShardReader

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
    root = Path(__file__).parents[3]
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
    scoring = loaded.config.eval.model_copy(update={"unk": False})  # as for people
    evaluator = Evaluator(reader, loaded.vocabulary, loaded.config.data, scoring, world, split="test")
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


@pytest.fixture
def odd_places(pictures, picture_shards, tmp_path):
    """Places by name, of which most hold nothing to caption."""
    for name in ("EMPTY", "NOTES", "BROKEN"):
        (tmp_path / name).mkdir()
    (tmp_path / "NOTES" / "notes.txt").write_text("no picture")
    (tmp_path / "BROKEN" / "a.jpg").touch()
    return lambda name: {"PICTURES": pictures, "SHARDS": picture_shards}.get(name, tmp_path / name)


@pytest.mark.parametrize(
    ("where", "out", "complaint"),
    [
        ("EMPTY", "c.jsonl", "there is no picture in"),
        ("NOTES", "c.jsonl", "there is no picture in"),
        ("PICTURES", "NOTES/notes.txt/c.jsonl", "cannot use"),
        ("BROKEN", "c.jsonl", "no image could be read; see"),
    ],
)
def test_a_mistake_is_one_line(caption, odd_places, tmp_path, where, out, complaint):
    ended = caption(odd_places(where), tmp_path / out)
    *before, last = (line for line in ended.stderr.splitlines() if not line.startswith("no GPU was found"))
    assert ended.returncode == 2 and complaint in last and last.startswith("error: "), ended.stderr
    assert before == (["skipped: a.jpg: zero bytes"] if where == "BROKEN" else [])
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize(
    ("where", "split", "complaint"),
    [
        ("MISSING", None, "there is no picture or folder"),
        ("NOTES/notes.txt", None, "is a file; name its folder"),
        ("PICTURES", "val", "--split is for shard sets"),
        ("SHARDS", "dev", "has no split 'dev'; it has test"),
    ],
)
def test_what_can_not_be_captioned_is_said(odd_places, where, split, complaint):
    with pytest.raises(UserError, match=complaint):
        open_inputs(str(odd_places(where)), split, DataConfig())


def test_what_was_made_otherwise_is_left_alone(tmp_path):
    def begin(name="out.csv", images=1, **settings):
        return Journal(tmp_path / name).begin({"beam": 3} | settings, images)

    with pytest.raises(UserError, match=r"should end in \.jsonl or \.csv"):
        begin("out.txt")
    first = Journal(tmp_path / "out.csv")
    assert first.begin({"beam": 3}, 1)
    with pytest.raises(UserError, match="another process is captioning into"):
        begin()
    first._lock.release()
    with pytest.raises(UserError, match=r"out\.csv\.partial was made with beam 3, now 2; remove it"):
        begin(beam=2)
    assert first.begin({"beam": 3}, 1)
    first.finish([{"image": "a.jpg", "caption": "a dog", "score": -1.0}], {"images": 1, "beam": 3})
    assert not begin(), "it is finished"
    with pytest.raises(UserError, match=r"out\.csv was made with beam 3, now 2"):
        begin(beam=2)
    with pytest.raises(UserError, match=r"out\.csv was made with images 1, now 2"):
        begin(images=2)
    (tmp_path / "mine.csv").write_text("my own table")
    with pytest.raises(UserError, match="exists, and not by this command"):
        begin("mine.csv")


def test_another_interpolation_is_refused(caption, pictures, undisturbed, tmp_path):
    out = tmp_path / "captions.jsonl"
    assert caption(
        pictures, out, "data.interpolation=bicubic", killed={"rank": 0, "at": "append", "after": 1}
    ).returncode
    again = caption(pictures, out)
    assert again.returncode == 2 and "was made with interpolation bicubic, now bilinear; remove it" in again.stderr
    other = caption(pictures, undisturbed[0], "data.interpolation=bicubic")
    assert other.returncode == 2 and "was made with interpolation bilinear, now bicubic" in other.stderr


def test_a_record_without_later_settings_was_made_with_their_defaults(tmp_path):
    """As one of before there was a choice: it is gone on with by the default, and refused to another value."""
    out, now = tmp_path / "out.csv", {"beam": 3, "interpolation": "bilinear", "capital": False}
    first = Journal(out)
    assert first.begin({"beam": 3}, 1)
    for other in ({"interpolation": "bicubic"}, {"capital": True}):
        first._lock.release()
        ((name, value),) = other.items()
        with pytest.raises(UserError, match=f"was made with {name} {now[name]}, now {value}; remove it"):
            first.begin(now | other, 1)
    first._lock.release()
    assert first.begin(now, 1)


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


class Page(HTMLParser):
    """What a browser would make of a contact sheet."""

    def __init__(self, path):
        super().__init__()
        self.images, self.captions, self.tags, self.within = [], [], set(), None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.within = tag
        found = dict(attributes)
        if tag == "img":
            assert found["loading"] == "lazy"
            self.images.append(found["src"])
        if tag == "figcaption":
            assert found["dir"] == "auto", "Arabic and Hebrew read from the right"
            self.captions.append("")

    def handle_endtag(self, tag):
        self.within = None

    def handle_data(self, data):
        if self.within == "figcaption":
            self.captions[-1] += data


def test_a_contact_sheet_shows_pictures_and_captions(pictures, undisturbed, tmp_path, monkeypatch):
    page, rows = tmp_path / "pages" / "page.html", read_rows(undisturbed[0])
    inputs = open_inputs(str(pictures), None, DataConfig())
    write_contact_sheet(page, undisturbed[0], inputs, "runs/<tiny>")
    shown = Page(page)
    assert shown.captions == [row["caption"] for row in rows], "in order, and nothing in them is markup"
    assert any("<b>" in caption for caption in shown.captions)
    assert not shown.tags & {"b", "script", "link"}
    assert len(shown.images) == PICTURES and all(url.startswith("data:image/jpeg;base64,") for url in shown.images)
    with urlopen(shown.images[0]) as data, Image.open(data) as thumbnail:
        assert max(thumbnail.size) <= 240
    monkeypatch.setattr(contact_sheet, "SHOWN", 5)
    write_contact_sheet(page, undisturbed[0], inputs, "runs/<tiny>")
    assert Page(page).captions == [rows[place]["caption"] for place in (0, 4, 8, 13, 17)]
    heading = f"5 of {len(rows)} pictures, spread over all of them, captioned by runs/&lt;tiny&gt;"
    assert heading in page.read_text(encoding="utf-8")
