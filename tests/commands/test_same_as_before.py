"""Every command by its older name and by its new one: the same output, the same files, the same exit code."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from untrained import save_run

from imgcap.commands.main import NAMES

CHECKOUT = Path(__file__).parents[2]
WORDS = ["a", "the", "red", "blue", "green", "circle", "square", "small", "large", "above", "left", "two"]
SMALL = ["data.image_size=32", "data.workers=0", "eval={batch: 8, beam: 2, metrics: [BLEU]}"]
RUN = "RUN --which latest"
# Of each pair the older file, the newer name, and what both are given; OUT is a folder of its own.
PAIRS = [
    ("tools/download.py", "download", "tiny --sources WORK/sources.yaml --source text.zip=WORK/text.zip --out OUT/raw"),
    ("tools/build_shards.py", "build", "demo --limit 12 --workers 1 --out OUT/demo"),
    ("tools/index_shards.py", "index", "SHARDS/train-00000.tar --workers 1 --split train --out OUT/set"),
    ("tools/verify_shards.py", "verify", "SHARDS --decode --json"),
    ("tools/inspect_shards.py", "inspect", "SHARDS --limit 4 --out OUT/look"),
    ("tools/cache_features.py", "cache-features", "--config CONFIG --out OUT/set FROZEN data.shards=SHARDS"),
    ("launch/train.py", "train", "--config CONFIG TINY data.shards=SHARDS run_dir=OUT/run"),
    ("tools/sweep.py", "sweep", "WORK/sweep.yaml --out WORK/swept"),
    ("launch/evaluate.py", "evaluate", f"{RUN} --split val --beam 3 --out OUT/scores.json data.shards=SHARDS"),
    ("tools/score.py", "score", "--references SHARDS:val --results RESULTS --metrics BLEU CIDEr --out OUT/scores.json"),
    ("tools/compare.py", "compare", "RESULTS RESULTS --references SHARDS:val --resamples 50 --out OUT/page.html"),
    ("launch/caption.py", "caption", f"{RUN} SHARDS --split val --out OUT/captions.csv eval.beam=3"),
    ("tools/caption.py", "caption", f"{RUN} RAW/scene-1000000.jpg RAW/scene-0000000.jpg --json --attention OUT/drawn"),
    ("tools/demo.py", "serve", "NOWHERE --port 0"),
    ("tools/export.py", "export", "RUN --out OUT/model"),
]
TIMED = ("metrics.jsonl", "starts.jsonl", "curves.png")  # hold how long things took


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> dict[str, str]:
    """What the words in capitals stand for."""
    work = tmp_path_factory.mktemp("work")
    run = save_run(work / "run", WORDS, *SMALL)
    images = [int(path.stem.split("-")[1]) for path in sorted((shards.parent / "demo-raw").glob("scene-1*.jpg"))]
    captions = [{"image_id": image_id, "caption": "two red squares"} for image_id in images]
    (work / "results.json").write_text(json.dumps(captions))
    with zipfile.ZipFile(work / "text.zip", "w") as packed:
        packed.writestr("captions.txt", "a caption\n")
    entry = {"about": "one file", "files": [{"file": "text.zip", "by_hand": "ask"}], "next": "build {out}"}
    (work / "sources.yaml").write_text(yaml.safe_dump({"tiny": entry | {"holds": [{"path": "captions.txt"}]}}))
    rates = {"optim.lr": {"choices": [1e-3, 3e-3]}}
    (work / "sweep.yaml").write_text(yaml.safe_dump({"name": "x", "base": "configs/debug.yaml", "parameters": rates}))
    sweep = [sys.executable, "tests/training/sweep/share.py", work / "sweep.yaml", work / "swept"]
    subprocess.run(sweep, cwd=CHECKOUT, check=True, capture_output=True)
    names = {"SHARDS": shards, "RAW": shards.parent / "demo-raw", "RESULTS": work / "results.json", "RUN": run}
    return {"WORK": str(work), "CONFIG": os.devnull, **{name: str(path) for name, path in names.items()}}


def test_every_older_file_and_every_command_has_a_pair() -> None:
    files = {str(path.relative_to(CHECKOUT)) for room in ("launch", "tools") for path in (CHECKOUT / room).glob("*.py")}
    assert files - {"tools/bench.py"} == {old for old, _, _ in PAIRS}
    assert set(NAMES) - {"config", "encoders"} == {new for _, new, _ in PAIRS}


@pytest.mark.parametrize(("old", "new", "given"), PAIRS, ids=[old for old, _, _ in PAIRS])
def test_the_same_output_files_and_exit_code(
    command: Callable[..., Any],
    places: dict[str, str],
    tiny: list[str],
    tmp_path: Path,
    old: str,
    new: str,
    given: str,
) -> None:
    lists = {"TINY": tiny, "FROZEN": [*tiny, "model.encoder.train=none", "data.augment=off"]}
    ended = []
    for number, called in enumerate(([old], ["imgcap", new])):
        out = tmp_path / str(number)
        out.mkdir()
        words = {**places, "OUT": str(out), "NOWHERE": str(tmp_path / "nowhere")}
        arguments = [part for word in given.split() for part in lists.get(word, [_placed(word, words)])]
        code, stdout, stderr = command(*called, *arguments)
        lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
        ended.append((code, *(_timeless(text, out) for text in (stdout, "\n".join(lines))), _written(out)))
    assert ended[0] == ended[1]
    assert ended[0][0] == (2 if new == "serve" else 0), ended[0]


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new, _ in PAIRS], ids=[old for old, _, _ in PAIRS])
def test_the_same_help(command: Callable[..., Any], old: str, new: str) -> None:
    before, now = command(old, "--help"), command("imgcap", new, "--help")
    assert before.returncode == now.returncode == 0 and f"usage: {Path(old).name} " in before.stdout

    def said(text: str) -> str:
        return " ".join(text.split("\n\n", 1)[1].split())  # the usage's line breaks depend on the name

    assert said(before.stdout) == said(now.stdout)


def test_what_belongs_to_the_other_way_of_captioning_is_refused(command: Callable[..., Any], tmp_path: Path) -> None:
    for wrong, said in (
        (["--json", "--out", tmp_path / "c.csv"], "--json goes without --out"),
        (["--top-p", "0.5", "--out", tmp_path / "c.csv"], "--top-p goes without --out"),
        (["--split", "val"], "--split goes with --out"),
    ):
        ended = command("imgcap", "caption", "runs/demo", "photos", *wrong)
        assert ended.returncode == 2 and said in ended.stderr
    ended = command("launch/caption.py", "runs/demo", "photos")
    assert ended.returncode == 2 and "arguments are required: --out" in ended.stderr


def _placed(text: str, places: dict[str, str]) -> str:
    return re.sub("|".join(sorted(places, key=len, reverse=True)), lambda found: places[found[0]], text)


def _timeless(text: str, out: Path) -> str:
    return re.sub(r'"images_per_s": [\d.]+', "", text.replace(str(out), "OUT"))


def _written(out: Path) -> dict[str, bytes]:
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in TIMED)
    return {
        str(path.relative_to(out)): _timeless(path.read_bytes().decode("latin-1"), out).encode("latin-1")
        for path in files
    }
