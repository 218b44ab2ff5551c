"""Tars as people have them, with what each reader is to find in them: samples by key, what is skipped by reason."""

import io
import json
import tarfile
from dataclasses import dataclass, field

from PIL import Image

DOG = b"A dog ."


def picture(form="JPEG", size=(24, 16), colour=(200, 0, 0)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


JPG, OTHER = picture(), picture(colour=(0, 0, 200))


@dataclass(frozen=True)
class Link:
    """A member that leads to another one."""

    to: str
    hard: bool = False


@dataclass(frozen=True)
class Node:
    """A member that is no file: a folder, a device."""

    type: bytes


@dataclass(frozen=True)
class Case:
    """A tar, the captions of its samples by key, and what is skipped, counted by reason."""

    name: str
    members: list
    samples: dict
    skipped: dict = field(default_factory=dict)
    format: int = tarfile.PAX_FORMAT
    pax: dict | None = None
    damaged: str = ""  # what is told of it, in part
    change: object = bytes  # of the bytes of the tar

    def write(self, path):
        with tarfile.open(path, "w", format=self.format, pax_headers=self.pax) as tar:
            for name, data in self.members:
                member, content = tarfile.TarInfo(name), None
                if isinstance(data, bytes):
                    member.size, content = len(data), io.BytesIO(data)
                elif isinstance(data, Link):
                    member.type, member.linkname = tarfile.LNKTYPE if data.hard else tarfile.SYMTYPE, data.to
                else:
                    member.type = data.type
                tar.addfile(member, content)
        path.write_bytes(self.change(path.read_bytes()))
        return path


def pairs(*keys, suffix="jpg"):
    return [(f"{key}.{kind}", data) for key in keys for kind, data in ((suffix, JPG), ("txt", DOG))]


def with_json(content):
    text = content if isinstance(content, str) else json.dumps(content)
    return [("a.jpg", JPG), ("a.json", text.encode())]


ONE, NONE = {"a": ["A dog ."]}, {}
NO_CAPTIONS, NO_IMAGE = "image without captions", "sample without an image"
TWICE = "key that an earlier sample of the tar has"
NO_TEXT, NO_LINK = "captions that are no UTF-8 or no JSON", "link to what the tar doesn't hold"
NO_KEY = f"{NO_CAPTIONS} (its .json has no key caption, captions, text, sentence, sentences, raw or description)"
SPARSE = "sparse member, whose bytes don't lie together; pack it without --sparse"
DOUBT = "images and captions of one key, in doubt which belong together: "


def sparse(name, data):
    """A member in GNU's old sparse format: one piece of data, and a hole behind it."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[124:136] = b"%011o\0" % len(data)
    header[386:410] = b"%011o\0%011o\0" % (0, len(data))
    header[483:495] = b"%011o\0" % (len(data) + 4096)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def negative(data):
    """A tar whose first member has a size below zero: it leads back to itself."""
    header = bytearray(data[:512])
    header[124:136] = b"\xff" * 10 + (-1024 & 0xFFFF).to_bytes(2, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


CASES = [
    # keys
    Case("mac", [(f"./._{name}", b"\0\5\x16\7") for name in ("a.jpg", "a.txt")] + pairs("./a"), ONE),
    Case("hidden", [(".a.jpg", JPG), (".a.txt", DOG), *pairs("a")], ONE),
    Case("no-dot", [("README", DOG), ("a", JPG), *pairs("a")], ONE),
    Case("metadata", [("__info__/x.jpg", JPG), ("__notes__", DOG), *pairs("a")], ONE),
    Case("upper", [("a.JPG", JPG), ("a.TXT", DOG)], ONE),
    Case("folders", [("x", Node(tarfile.DIRTYPE)), ("x/y", Node(tarfile.DIRTYPE)), *pairs("x/y.z/a")],
         {"x/y.z/a": ["A dog ."]}),
    Case("dot-slash-and-not", [("./a.jpg", JPG), ("a.txt", DOG)], ONE),
    Case("devices", [("a.fifo", Node(tarfile.FIFOTYPE)), ("a.txt", Node(tarfile.CHRTYPE)), *pairs("a")], ONE),
    Case("absolute", [*pairs("/etc/z"), *pairs("a")], ONE, {"unsafe member name": 1}),
    Case("upwards", [*pairs("../z", "x/../../y"), *pairs("a")], ONE, {"unsafe member name": 2}),
    Case("accents", [("é.jpg", JPG), ("e\u0301.txt", DOG)], {"é": ["A dog ."]}),
    Case("long-gnu", pairs("x" * 300), {"x" * 300: ["A dog ."]}, format=tarfile.GNU_FORMAT),
    Case("long-pax", pairs("ü" * 300), {"ü" * 300: ["A dog ."]}),
    Case("pax-global", pairs("a"), ONE, pax={"comment": "made by someone", "mtime": "1.5"}),
    Case("latin-name", [("caf\udce9.jpg", JPG), ("caf\udce9.txt", DOG)], {"caf\udce9": ["A dog ."]},
         format=tarfile.GNU_FORMAT),
    # members
    Case("apart", [("a.jpg", JPG), ("b.jpg", OTHER), ("a.txt", DOG), ("b.txt", b"A cat .")],
         ONE | {"b": ["A cat ."]}),
    Case("twice-apart", [*pairs("a", "b"), ("a.jpg", OTHER), ("a.txt", b"A cat .")], ONE | {"b": ["A dog ."]},
         {TWICE: 1}),
    Case("twice-beside", [*pairs("a"), ("a.jpg", OTHER), ("a.txt", b"A cat .")], ONE, {TWICE: 1}),
    Case("three-times", [*pairs("a"), *pairs("a"), *pairs("a")], ONE, {TWICE: 2}),
    Case("twice-by-case", [("a.jpg", JPG), ("a.JPG", OTHER), ("a.txt", DOG)], ONE, {TWICE: 1}),
    Case("twice-in-other-suffixes", [*pairs("a", "b"), ("a.png", picture("PNG")), ("a.json", b'{"text": "A cat ."}')],
         ONE | {"b": ["A dog ."]}, {TWICE: 1}),
    Case("halves-of-two", [("a.jpg", JPG), ("a.cls", b"1"), *pairs("b"), ("a.jpg", OTHER), ("a.txt", b"A cat .")],
         {"b": ["A dog ."]}, {TWICE: 1, f"{NO_CAPTIONS} (beside it: .cls)": 1}),
    Case("hard-link", [*pairs("a"), ("b.jpg", Link("a.jpg", hard=True)), ("b.txt", b"A cat .")],
         ONE | {"b": ["A cat ."]}),
    Case("symbolic-link", [("x/b.jpg", Link("../pool/1")), ("x/b.txt", b"A cat ."), ("pool/1", JPG)],
         {"x/b": ["A cat ."]}),
    Case("link-to-link", [*pairs("a"), ("b.jpg", Link("c")), ("c", Link("a.jpg")), ("b.txt", b"A cat .")],
         ONE | {"b": ["A cat ."]}),
    Case("links-out", [("b.jpg", Link("/data/b.jpg")), ("b.txt", DOG), ("c.jpg", Link("c.jpg")), ("c.txt", DOG),
                       *pairs("a")], ONE, {NO_LINK: 2}),
    Case("link-to-unsafe", [("../x.jpg", JPG), ("b.jpg", Link("../x.jpg")), ("b.txt", DOG), *pairs("a")], ONE,
         {"unsafe member name": 1, NO_CAPTIONS: 1}),
    Case("sparse", pairs("a"), ONE, {SPARSE: 1}, change=lambda data: sparse("b.jpg", JPG)
         + tarfile.TarInfo("b.txt").tobuf(tarfile.GNU_FORMAT) + data),
    Case("empty-members", [("a.jpg", b""), ("a.txt", DOG), ("b.jpg", JPG), ("b.txt", b"")], NONE,
         {"zero bytes": 1, NO_CAPTIONS: 1}),
    # images
    Case("two-images", [("a.png", picture("PNG")), ("a.jpg", JPG), ("a.txt", DOG)], ONE),
    Case("other-formats", [("a.gif", picture("GIF")), ("a.txt", DOG), ("b.tiff", picture("TIFF")), ("b.txt", DOG),
                           ("c.jfif", JPG), ("c.txt", DOG)], {key: ["A dog ."] for key in "abc"}),
    Case("no-image", [("a.jpg", b"none at all"), ("a.txt", DOG)], NONE, {"not an image": 1}),
    Case("class-label", [("a.jpg", JPG), ("a.cls", b"3")], NONE, {f"{NO_CAPTIONS} (beside it: .cls)": 1}),
    Case("sound", [("a.flac", b"fLaC"), ("a.txt", DOG)], NONE, {f"{NO_IMAGE} (beside it: .flac)": 1}),
    # fields
    Case("fields", [("a.input.jpg", JPG), ("a.outputs.txt", DOG)], ONE),
    Case("versions", pairs("img.v1", "img.v2"), {"img.v1": ["A dog ."], "img.v2": ["A dog ."]}),
    Case("one-version-alone", [*pairs("img.v1"), ("img.v2.jpg", JPG)], {"img.v1": ["A dog ."]}, {NO_CAPTIONS: 1}),
    Case("mask", [*pairs("a"), ("a.seg.png", picture("PNG")), ("a.seg.json", b'{"key": 1}')], ONE),
    Case("name-and-name.1", pairs("a", "a.1"), ONE | {"a.1": ["A dog ."]}),
    Case("behind-the-image's-name", [("a.jpg", JPG), ("a.jpg.txt", DOG), ("b.1.jpg", JPG), ("b.1.jpg.txt", DOG),
                                     ("b.2.jpg", JPG), ("b.2.jpg.txt", DOG)],
         ONE | {"b.1": ["A dog ."], "b.2": ["A dog ."]}),
    Case("two-languages", [("a.jpg", JPG), ("a.en.txt", DOG), ("a.de.txt", b"Ein Hund .")], NONE,
         {f"{DOUBT}.de.txt, .en.txt, .jpg": 1}),
    Case("two-images-of-one-text", [("a.x.jpg", JPG), ("a.y.jpg", OTHER), ("a.z.txt", DOG)], NONE,
         {f"{DOUBT}.x.jpg, .y.jpg, .z.txt": 2}),
    # captions
    Case("empty-text", [("a.jpg", JPG), ("a.txt", b" \n"), ("a.json", b'{"caption": "A dog ."}')], ONE),
    Case("broken-text", [("a.jpg", JPG), ("a.txt", b"caf\xe9"), ("a.json", b'{"caption": "A dog ."}')], ONE,
         {NO_TEXT: 1}),
    Case("latin-text", [("a.jpg", JPG), ("a.txt", b"caf\xe9")], NONE, {NO_TEXT: 1}),
    Case("wide-text", [("a.jpg", JPG), ("a.txt", "A dog .".encode("utf-16"))], NONE, {NO_TEXT: 1}),
    Case("bom-and-crlf", [("a.jpg", JPG), ("a.txt", b"\xef\xbb\xbfA dog .\r\nA cat .\r\n\r\n")],
         {"a": ["A dog .", "A cat ."]}),
    Case("lines", [("a.jpg", JPG), ("a.txt", "A dog\nin\u2028the\u0085sun".encode())],
         {"a": ["A dog", "in\u2028the\u0085sun"]}),
    Case("lines-in-json", with_json({"caption": "A dog\nin the sun"}), {"a": ["A dog", "in the sun"]}),
    Case("null-among", with_json({"captions": ["A dog .", None, ""]}), ONE, {"empty caption": 1}),
    Case("null", with_json({"caption": None}), NONE, {NO_CAPTIONS: 1}),
    Case("null-written", [("a.jpg", JPG), ("a.txt", b"None\nA dog .")], ONE, {"empty caption": 1}),
    Case("number", with_json({"caption": 7}), NONE, {"caption that is no text": 1, NO_CAPTIONS: 1}),
    Case("other-key", with_json({"title": "A dog ."}), NONE, {NO_KEY: 1}),
    Case("sentences", with_json({"sentences": [{"raw": "A dog ."}, {"raw": "A cat ."}]}),
         {"a": ["A dog .", "A cat ."]}),
    Case("list", with_json(["A dog .", "A cat ."]), {"a": ["A dog .", "A cat ."]}),
    Case("text-alone", with_json("\"A dog .\""), ONE),
    Case("deep", [*with_json("[" * 200_000), *pairs("d")], {"d": ["A dog ."]}, {NO_TEXT: 1}),
    Case("deep-but-sound", [*with_json("[" * 30 + "]" * 30), *pairs("d")], {"d": ["A dog ."]},
         {"caption that is no text": 1, NO_CAPTIONS: 1}),
    Case("long-number", with_json("9" * 10_000), NONE, {NO_TEXT: 1}),
    Case("half-a-pair", with_json('{"caption": "a smile \\ud83d"}'), {"a": ["a smile ?"]}),
    # tars
    Case("no-members", [], NONE),
    Case("cut", pairs("a", "b"), ONE, change=lambda data: data[:4096], damaged="at byte 4096 is neither a member"),
    Case("cut-in-data", pairs("a", "b", "c"), ONE, change=lambda data: data[:6000], damaged="middle of a member"),
    Case("cut-in-header", pairs("a", "b", "c"), ONE, change=lambda data: data[:5300],
         damaged="at byte 5120 is neither"),
    Case("zeros-missing", pairs("a", "b"), ONE, change=lambda data: data[:6 * 512 + 512 * 4], damaged="byte"),
    Case("more-behind", pairs("a"), ONE, change=lambda data: data + b"garbage", damaged="neither a member nor the end"),
    Case("zeros-behind", pairs("a"), ONE, change=lambda data: data + bytes(50_000)),
    Case("no-tar", [], NONE, change=lambda data: b"<!DOCTYPE html>" * 99, damaged="invalid header"),
    Case("nothing", [], NONE, change=lambda data: b"", damaged="empty file"),
    Case("backwards", pairs("a"), NONE, change=negative, damaged="middle of a member"),
]  # fmt: skip
BY_NAME = {case.name: case for case in CASES}
