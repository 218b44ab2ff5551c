"""`imgcap` itself: its one screen of help, and what it says to a word that is no command."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgcap.commands.arguments import parser_for
from imgcap.commands.main import NAMES, overview
from imgcap.config.load import load_config
from imgcap.config.shipped import config_file

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("given", [[], ["--help"], ["-h"]])
def test_help_is_one_screen_that_names_every_command(command: Callable[..., Any], given: list[str]) -> None:
    ended = command("imgcap", *given)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, overview() + "\n", "")
    lines = ended.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    for name in NAMES:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1
        assert callable(importlib.import_module(f"imgcap.commands.{name.replace('-', '_')}").main)


def test_help_waits_for_no_import() -> None:
    program = "import sys; from imgcap.commands.main import main; sys.argv = ['imgcap']; main(); "
    program += "assert not {'torch', 'numpy', 'yaml', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CHECKOUT, capture_output=True)


def test_help_is_there_at_once() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "imgcap", "--help"], check=True, cwd=CHECKOUT, capture_output=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.5


def test_no_command_s_help_waits_for_torch() -> None:
    program = """
import sys
from imgcap.commands.main import NAMES, main
for name in NAMES:
    sys.argv = ["imgcap", name, "--help"]
    try:
        main()
    except SystemExit as left:
        assert not left.code, name
    assert not {"torch", "deepspeed", "spacy", "tensorboard", "gradio"} & set(sys.modules), name
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CHECKOUT, capture_output=True)


@pytest.mark.parametrize(("said", "meant"), [("tran", "train"), ("cache_features", "cache-features")])
def test_a_misspelt_command_names_the_nearest(command: Callable[..., Any], said: str, meant: str) -> None:
    assert f"there is no command {said!r}; the nearest is {meant!r}" in command("imgcap", said).mistake


def test_a_configuration_is_shown_resolved(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("imgcap", "config", "flickr8k", "optim.lr=0.5")
    (tmp_path / "shown.yaml").write_text(ended.stdout)
    assert load_config(tmp_path / "shown.yaml") == load_config(CHECKOUT / "configs/flickr8k.yaml", ["optim.lr=0.5"])
    assert "seed: 3  # the command line\n" in command("imgcap", "config", "seed=3").stdout
    assert "unknown key optim.learning" in command("imgcap", "config", "demo", "optim.learning=1").mistake


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--lr", "1e-3"], "there is no option --lr; keys are written without dashes: optim.lr=VALUE"),
        (["--batch-size=8"], "without dashes: train.global_batch=8 or eval.batch=8"),
        (["--train.epochs=3"], "without dashes: train.epochs=3"),
        (["--gpus", "4"], "there is no option --gpus; it is said to the launcher: torchrun --nproc_per_node 4"),
    ],
)
def test_a_key_written_as_an_option_is_answered(command: Callable[..., Any], options: list[str], told: str) -> None:
    assert told in command("imgcap", "train", *options).mistake


def test_paths_of_a_command_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    parser = parser_for("")
    parser.add_argument("model")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=Path, nargs="+")
    found = parser.parse_args(["~/runs/a", "--out=~/x", "--images", "~/a", "b"])
    assert (found.model, found.out) == ("/home/ann/runs/a", Path("/home/ann/x"))
    assert found.images == [Path("/home/ann/a"), Path("b")]


def test_a_name_of_a_configuration_is_one_that_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file("demo") == CHECKOUT / "configs/demo.yaml"
    assert config_file("demo.yaml") == Path("demo.yaml") and config_file("dmo") == Path("dmo")
    Path("demo").touch()
    assert config_file("demo") == Path("demo")


@pytest.mark.exhaustive
@pytest.mark.dist
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_launchers_start_a_command_of_the_module(launcher: str, shards: Path, tiny: list[str], tmp_path: Path) -> None:
    settings = ["train", "--config", os.devnull, "--dry-run", *tiny, f"data.shards={shards}", f"run_dir={tmp_path}/run"]
    started = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "imgcap"],
        "deepspeed": [
            "deepspeed.launcher.launch",
            "--world_info",
            "eyJsb2NhbGhvc3QiOiBbMCwgMV19",
            "--module",
            "imgcap",
        ],
    }[launcher]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", *started, *settings]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert '"world_size": 2' in ended.stdout
