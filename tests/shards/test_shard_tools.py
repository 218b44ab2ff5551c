"""The two commands, as a user types them."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Run a tool in this process; gives its exit code, stdout and stderr."""

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        code: object = 0
        try:
            runpy.run_path(str(TOOLS / f"{tool}.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return int(code or 0), output.out, output.err  # type: ignore[call-overload]

    return run


def test_build_verify_damage(call: object, flickr_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards" / "flickr8k"
    arguments = ["flickr8k", "--images", flickr_folder / "Images", "--captions", flickr_folder / "captions.txt"]
    arguments += ["--out", out, "--resize", 24, "--workers", 1]
    (flickr_folder / "Images" / "1003_0003.jpg").write_bytes(b"")
    code, told, _ = call("build_shards", *arguments)  # type: ignore[operator]
    assert code == 0
    assert "train: 13 images, 26 captions, 1 shards" in told
    assert "val: 6 images, 12 captions, 1 shards" in told
    assert "skipped: 1 × zero bytes (the first: '1003_0003.jpg')" in told

    code, told, _ = call("verify_shards", out, "--decode")  # type: ignore[operator]
    splits, table, last = told.splitlines()[:2], told.splitlines()[2:-1], told.splitlines()[-1]
    assert splits == ["train: 13 images, 26 captions, 1 shards", "val: 6 images, 12 captions, 1 shards"]
    assert "    1  zero bytes" in "\n".join(table) and (code, last) == (0, f"{out} is as it was built")
    code, told, _ = call("verify_shards", out, "--json")  # type: ignore[operator]
    skipped = json.loads(told)["skipped"]
    assert (code, json.loads(told)) == (0, {"ok": True, "damages": [], "skipped": skipped})
    assert skipped["zero bytes"] == {"count": 1, "examples": ["1003_0003.jpg"]}

    code, _, complaint = call("build_shards", *arguments, "--limit", 3)  # type: ignore[operator]
    assert code == 2
    assert complaint.count("\n") == 1
    assert "--limit" in complaint and "--force" in complaint

    (out / "val-00000.tar").unlink()
    code, told, _ = call("verify_shards", out)  # type: ignore[operator]
    assert code == 1
    assert told.startswith("val-00000.tar is missing\n")
    code, told, _ = call("verify_shards", out, "--json")  # type: ignore[operator]
    assert (code, json.loads(told)["damages"]) == (
        1,
        [{"file": "val-00000.tar", "key": None, "what": "is missing"}],
    )
    assert call("verify_shards", tmp_path)[0] == 2  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["flickr8k", "--images", "nowhere"], "needs its captions"),
        (["coco", "--images", "nowhere", "--captions", "nowhere.json"], "there is no nowhere.json"),
        (["demo", "--captions", "some.txt"], "leave out --images"),
    ],
)
def test_mistakes_are_one_line(call: object, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    code, _, told = call("build_shards", *arguments, "--out", tmp_path / "set")  # type: ignore[operator]
    assert code == 2
    assert told.count("\n") == 1
    assert complaint in told
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_workers_of_the_command_change_nothing(flickr_folder: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        arguments = ["--images", flickr_folder / "Images", "--captions", flickr_folder / "captions.txt"]
        arguments += ["--out", tmp_path / workers, "--workers", workers, "--shard-mb", "0.01", "--resize", "24"]
        subprocess.run([sys.executable, TOOLS / "build_shards.py", "flickr8k", *arguments], check=True)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("1", "2"))
    assert one == two
    assert len(one) > 5
