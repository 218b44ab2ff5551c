"""Every layout of captions reads alike, and what is wrong in a file is named."""

import csv
import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UserError
from imgcap.shards.source import Skipped
from imgcap.shards.sources.columns import Columns
from imgcap.shards.sources.table import read_table

CAPTIONS = {
    "1000_a.jpg": ["A child in a pink dress .", 'She says "hello", twice .'],
    "2000_b.jpg.1": ["Two dogs | one ball", "a café in Zürich\u2028at night"],
}
ROWS = [(name, number, caption) for name, texts in CAPTIONS.items() for number, caption in enumerate(texts)]


def written_csv(rows: list[list[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


LAYOUTS = {
    "flickr8k csv": lambda rows: written_csv([["image", "caption"], *([name, text] for name, _, text in rows)]),
    "numbered csv": lambda rows: written_csv(
        [
            ["image", "caption_number", "caption", "id"],
            *([name, number, text, i // 5] for i, (name, number, text) in enumerate(rows)),
        ]
    ),
    "token": lambda rows: "".join(f"{name}#{number}\t{text}\n" for name, number, text in rows),
    "pipes": lambda rows: (
        "image_name| comment_number| comment\n" + "".join(f"{name}| {number}| {text}\n" for name, number, text in rows)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_layouts_read_equal(layout: str, mark: str, line_end: str, tmp_path: Path) -> None:
    path = tmp_path / "captions"
    path.write_bytes((mark + LAYOUTS[layout](ROWS).replace("\n", line_end)).encode())
    table = read_table(path)
    assert table.captions == CAPTIONS
    assert list(table.captions) == list(CAPTIONS)
    assert table.skipped == []


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs")), min_size=1)
MISSING = {"nan", "none", "null", "na", "n/a", "<na>", "#n/a", "#na"}  # as other programs write it
seen = words.map(str.strip).filter(lambda text: text.lower() not in MISSING and any(map(str.isprintable, text)))
captions = st.lists(seen, min_size=1, max_size=4)


@given(st.dictionaries(st.from_regex(r"[a-z0-9_]{1,9}\.jpg", fullmatch=True), captions, min_size=1, max_size=4))
def test_any_captions_survive_every_layout(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, list[str]]
) -> None:
    rows = [(name, number, text) for name, texts in table.items() for number, text in enumerate(texts)]
    path = tmp_path_factory.mktemp("table") / "captions"
    for layout in LAYOUTS.values():
        path.write_text(layout(rows), encoding="utf-8", newline="")
        assert read_table(path).captions == table


def test_the_line_of_flickr30k_without_its_separator(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(
        "image_name| comment_number| comment\n"
        "2199200615.jpg| 3| A dog runs .\n"
        "2199200615.jpg| 4   A dog runs across the grass .\n"
        "2199200616.jpg| 0| 4 dogs | run .\n"
    )
    table = read_table(path)
    assert table.captions == {
        "2199200615.jpg": ["A dog runs .", "A dog runs across the grass ."],
        "2199200616.jpg": ["4 dogs | run ."],
    }
    assert table.skipped == []


def test_empty_captions_and_broken_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("image,caption\na.jpg,A dog .\na.jpg,  \nb.jpg\n\nc.jpg,\n")
    table = read_table(path)
    assert table.captions == {"a.jpg": ["A dog ."], "c.jpg": []}
    assert table.skipped == [
        Skipped("a.jpg", "empty caption"),
        Skipped("captions.txt line 4", "line without an image and a caption"),
        Skipped("c.jpg", "empty caption"),
    ]


def test_commas_that_nobody_quoted_belong_to_the_caption(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("image,caption\na.jpg,A dog, a cat, and a bird .\n")
    assert read_table(path).captions == {"a.jpg": ["A dog, a cat, and a bird ."]}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_that_is_not_utf8_names_byte_line_and_cure(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "captions.txt"
    start = mark + b"image,caption\na.jpg,A caf"
    path.write_bytes(start + "é in Paris\n".encode("latin1"))
    with pytest.raises(UserError, match=rf"byte 0xe9 at offset {len(start)}, line 2.*iconv -f LATIN1"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("image,caption\n", "no captions below its header"),
        ("A dog, a cat\na.jpg;A dog\n", "isn't clear which hold image and captions.*--image-column"),
        ("A dog\na.jpg\n", "no known layout"),
        ('image,caption\na.jpg,"A dog runs', "line 2.*quote that is not closed"),
        ('image,caption\na.jpg,"A dog' + " runs" * 40000, "line 2.*more than 20,000 letters"),
    ],
)
def test_a_file_of_no_captions_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_table(path)
    with pytest.raises(UserError, match="there is no file"):
        read_table(tmp_path / "missing.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_quote_that_is_not_closed_swallows_no_other_row(tmp_path: Path, separator: str) -> None:
    rows = [["image", "caption"], ["1.jpg", "A dog ."], ["2.jpg", '"A man holds a sign .'], ["3.jpg", "A cat ."]]
    path = tmp_path / "captions.csv"
    path.write_text("".join(separator.join(row) + "\n" for row in [*rows, ["4.jpg", '"A ""big"" bird ."']]))
    table = read_table(path)
    others = {"1.jpg": ["A dog ."], "3.jpg": ["A cat ."], "4.jpg": ['A "big" bird .']}
    if separator in ",;":
        assert table.captions == others
        assert table.skipped == [Skipped("captions.csv line 3", "line with a quote that is not closed")]
    else:
        assert table.captions == others | {"2.jpg": ['"A man holds a sign .']} and table.skipped == []


def test_a_quoted_caption_may_go_on_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text('image,caption\n1.jpg,"A dog\nand a cat ."\n2.jpg,A bird .\n')
    assert read_table(path).captions == {"1.jpg": ["A dog\nand a cat ."], "2.jpg": ["A bird ."]}


def test_a_missing_value_is_an_empty_caption(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\n1.jpg,nan\n2.jpg,None\n3.jpg,N/A\n4.jpg,A dog .\n5.jpg,\u200b\n6.jpg,-\n", "utf-8")
    table = read_table(path)
    assert {image: texts for image, texts in table.captions.items() if texts} == {
        "4.jpg": ["A dog ."],
        "6.jpg": ["-"],
    }
    assert table.skipped == [Skipped(f"{number}.jpg", "empty caption") for number in (1, 2, 3, 5)]


FORMS = {
    "own.csv": ("Foto,Text de,split,by\na.jpg,A dog .,train,me\nb.jpg,A cat .,dev,me\n", True),
    "semicolons.csv": ("filename;subset;caption\na.jpg;train;A dog .\nb.jpg;validation;A cat .\n", False),
    "tabs.tsv": ("a.jpg\tA dog .\ttrain\nb.jpg\tA cat .\tval\n", False),
    "lines.jsonl": (
        '{"file_name": "a.jpg", "text": ["A dog ."], "split": "train"}\n'
        '{"file_name": "b.jpg", "text": "A cat .", "split": "valid", "n": 1}\n',
        False,
    ),
    "rows.json": (
        '[{"image": "a.jpg", "caption_0": "A dog .", "split": "train"}, '
        '{"image": "b.jpg", "caption_0": "A cat .", "split": "val"}]',
        False,
    ),
    "lists.csv": ('image,caption,split\na.jpg,"[\'A dog .\']",train\nb.jpg,"[""A cat .""]",val\n', False),
}


@pytest.mark.parametrize("name", FORMS)
def test_tables_of_ones_own_give_captions_and_splits(name: str, tmp_path: Path) -> None:
    text, named = FORMS[name]
    path = tmp_path / name
    path.write_text(text)
    table = read_table(path, Columns("foto", ("text DE",)) if named else Columns())
    assert table.captions == {"a.jpg": ["A dog ."], "b.jpg": ["A cat ."]} and not table.skipped
    assert table.split_of == {"a.jpg": "train", "b.jpg": "val"}


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(FORMS["own.csv"][0])
    assert read_table(path, Columns("Foto", ("Text de",))).chosen.unused == ["by"]
    assert read_table(path, Columns("Foto", ("Text de",), "none")).chosen.unused == ["split", "by"]
    with pytest.raises(UserError, match=r"has no column 'Fto' \(--image-column\).*the nearest is 'Foto'"):
        read_table(path, Columns("Fto", ("Text de",)))


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_caption_of_a_million_letters_is_skipped_with_its_line(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "captions.csv"
    long = quote + "x " * 600_000 + quote
    path.write_text(f"image,caption\n1.jpg,A dog .\n2.jpg,{long}\n3.jpg,A cat .\n")
    table = read_table(path)
    assert {image: texts for image, texts in table.captions.items() if texts} == {
        "1.jpg": ["A dog ."],
        "3.jpg": ["A cat ."],
    }
    (skipped,) = table.skipped
    assert skipped.reason == "caption of more than 20,000 letters" and "captions.csv line 3" in skipped.told


def test_a_row_of_signs_that_the_tokeniser_would_take_minutes_for_is_skipped(tmp_path: Path) -> None:
    """Found by fuzzing: spaCy takes such signs off one by one, and 100,000 of them for a quarter of an hour."""
    path = tmp_path / "captions.csv"
    path.write_text(f"image,caption\n1.jpg,A dog {'[' * 10_000}\n2.jpg,A cat {'!' * 900}\n")
    table = read_table(path)
    assert table.captions == {"1.jpg": [], "2.jpg": ["A cat " + "!" * 900]}
    assert table.skipped == [Skipped("1.jpg", "caption with a word of more than 2,000 letters", "captions.csv line 2")]


def test_an_entry_that_is_skipped_says_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"image": "1.jpg", "caption": ["A dog .", null]}\n{"image": "2.jpg", "caption": 7}\n[[[\n')
    told = [(skipped.told, skipped.reason) for skipped in read_table(path).skipped]
    assert told == [
        ("1.jpg (captions.jsonl line 1)", "empty caption"),
        ("2.jpg (captions.jsonl line 2)", "caption that is no text"),
        ("captions.jsonl line 3", "line without an image and a caption"),
    ]


def test_a_name_that_stands_twice_in_json_keeps_both_captions(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"1.jpg": "A dog .", "2.jpg": ["A cat ."], "1.jpg": "A big dog ."}')
    assert read_table(path).captions == {"1.jpg": ["A dog .", "A big dog ."], "2.jpg": ["A cat ."]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply to be what it is taken for; download it again"),
        ('[{"image": "1.jpg", "caption": ' + "9" * 5000 + "}]", "a number of thousands of digits"),
        (
            '{"image": "1.jpg"}\n{"image": "2.jpg"}\n',
            "more than one JSON value, the second in line 2; .*captions.jsonl",
        ),
        ('[{"image": "1.jpg",]', "is not JSON: .* at line 1, column 20"),
    ],
)
def test_json_that_cannot_be_read_is_told_by_its_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_an_arrow_table_whose_offsets_lead_out_of_it_is_told_and_does_not_end_the_process(tmp_path: Path) -> None:
    """Found by fuzzing: pyarrow reads behind the end of such a file."""
    arrow, path = pytest.importorskip("pyarrow"), tmp_path / "captions.arrow"
    rows = arrow.table({"image": [f"{n}.jpg" for n in range(8)], "caption": ["A dog ."] * 8})
    with arrow.ipc.new_file(str(path), rows.schema) as file:
        file.write_table(rows)
    offsets, data = struct.pack("<9i", *range(0, 45, 5)), path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:-4] + struct.pack("<i", 1 << 30)))
    with pytest.raises(UserError, match="is no Parquet or Arrow table that can be read"):
        read_table(path)
