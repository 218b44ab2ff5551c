"""Ctrl-C, which a terminal sends to a command and all its processes: lines that say what happens, never a traceback."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from untrained import save_run

CHECKOUT = Path(__file__).parents[2]
STARTING = "stopped while starting; nothing was begun\n"
STOPPING = "stopping, within 10 s; Ctrl-C again ends at once\n"


class Started:
    """A command in a process group of its own."""

    def __init__(self, command: list[str], out: Path) -> None:
        self.out = out
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
        with out.open("w") as told:
            self.process = subprocess.Popen(
                command, env=environment, stdout=told, stderr=told, start_new_session=True, cwd=out.parent
            )

    def wait_for(self, begun: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not begun():
            assert self.process.poll() is None and time.monotonic() < deadline, self.out.read_text()
            time.sleep(0.01)

    def has_mapped(self, library: str) -> bool:
        return library in Path(f"/proc/{self.process.pid}/maps").read_text()

    def ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self, seconds: float = 30) -> tuple[int, str]:
        """The exit code, and all that was said."""
        code = self.process.wait(seconds)
        told = self.out.read_text()
        assert "Traceback" not in told and "KeyboardInterrupt" not in told, told
        return code, told


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    running: list[Started] = []

    def start(*arguments: object, through: tuple[object, ...] = ("-m", "imgcap")) -> Started:
        running.append(Started([sys.executable, *map(str, (*through, *arguments))], tmp_path / f"said-{len(running)}"))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


@pytest.mark.parametrize("library", ["libtorch_cpu", "_imaging"])
@pytest.mark.parametrize(
    "through", [("-m", "imgcap", "train"), (CHECKOUT / "launch/train.py",)], ids=["module", "file"]
)
def test_in_the_middle_of_the_imports(
    started: Callable[..., Started], through: tuple[object, ...], library: str
) -> None:
    command = started("--config", os.devnull, through=through)
    command.wait_for(lambda: command.has_mapped(library))
    command.ctrl_c()
    assert command.ended() == (130, STARTING)


def test_a_build_with_workers_stops_and_goes_on(started: Callable[..., Started], tmp_path: Path) -> None:
    arguments = "build", "demo", "--out", tmp_path / "shards", "--limit", 500, "--workers", 2, "--shard-mb", 0.2
    command = started(*arguments)
    command.wait_for(lambda: len(list(tmp_path.glob("shards/train-*.tar"))) > 1)
    command.ctrl_c()
    code, told = command.ended()
    assert code == 130 and STOPPING in told
    last = told.splitlines()[-1]
    assert last.startswith("stopped; what is finished is kept, go on with: ")
    assert last.endswith(f"-m imgcap build demo --out {tmp_path}/shards --limit 500 --workers 2 --shard-mb 0.2")
    assert not (tmp_path / "shards/manifest.json").exists()
    assert started(*arguments).ended(120)[0] == 0 and (tmp_path / "shards/manifest.json").exists()


# The function that takes all the time is slowed down; a file says that it has begun.
SLOW = """
import time
from pathlib import Path
import {module} as module

def slow(*arguments, **options):
    Path("begun").touch()
    time.sleep(60)

module.{name} = slow
from imgcap.commands.main import main
main()
"""
PLACES = {
    "evaluate": ("imgcap.evaluation.evaluator.generate", ["RUN", "data.shards=SHARDS", "data.workers=2"]),
    "caption": ("imgcap.captioning.batch.generate", ["RUN", "SHARDS-raw"]),
    "caption --out": ("imgcap.captioning.batch.generate", ["RUN", "SHARDS-raw", "--out", "captions.csv"]),
    "verify": ("imgcap.shards.verify.sha256_of", ["SHARDS"]),
    "score": (
        "imgcap.commands.score.score_results",
        ["--references", "SHARDS:test", "--results", "results.json"],
    ),
    "config": ("imgcap.commands.config.config_text", []),
}


@pytest.mark.parametrize("command", PLACES)
def test_while_a_command_is_at_work(
    command: str, started: Callable[..., Started], tmp_path: Path, shards: Path
) -> None:
    function, arguments = PLACES[command]
    module, _, name = function.rpartition(".")
    save_run(tmp_path / "run", ["a", "red", "square"])
    (tmp_path / "results.json").write_text(f'[{{"image_id": {2000000}, "caption": "a red square"}}]')
    given = [text.replace("RUN", "run").replace("SHARDS", str(shards)) for text in arguments]
    (tmp_path / "slow.py").write_text(SLOW.format(module=module, name=name))
    running = started(command.split()[0], *given, through=("slow.py",))
    running.wait_for((tmp_path / "begun").exists)
    running.ctrl_c()
    code, told = running.ended()
    assert code == 130 and STOPPING in told
    last = told.splitlines()[-1]
    assert last.startswith("stopped; what is finished is kept") if command == "caption --out" else last == "stopped"


STUBBORN = """
from imgcap.commands.main import run
import imgcap.commands.config as config, sys, time
from pathlib import Path
from imgcap.errors import exits_cleanly

@exits_cleanly
def main():
    try:
        Path("begun").touch()
        time.sleep(60)
    finally:
        Path("ending").touch()
        {stubborn}

config.main = main
run("config")
"""


def test_a_second_one_ends_a_command_at_once(started: Callable[..., Started], tmp_path: Path) -> None:
    command = started(through=("-c", STUBBORN.format(stubborn="time.sleep(60)")))
    command.wait_for((tmp_path / "begun").exists)
    command.ctrl_c()
    command.wait_for((tmp_path / "ending").exists)
    command.ctrl_c()
    assert command.ended(5) == (130, f"{STOPPING}ended at once\n")


def test_what_takes_too_long_to_end_is_ended(started: Callable[..., Started], tmp_path: Path) -> None:
    command = started(
        through=("-c", "import imgcap.errors as e; e.ENDING = 1.0\n" + STUBBORN.format(stubborn="time.sleep(60)"))
    )
    command.wait_for((tmp_path / "begun").exists)
    command.ctrl_c()
    code, told = command.ended(10)
    assert code == 130 and told.splitlines()[-1] == "ended after 1 s"


SWALLOWED = """
from imgcap.errors import exits_cleanly, heed_interrupts, work_begins
heed_interrupts(goes_on=False)
import time
from pathlib import Path

class Finaliser:
    def __del__(self):
        Path("begun").touch()
        time.sleep(60)

@exits_cleanly
def main():
    work_begins()
    Finaliser()
    time.sleep(60)

main()
"""


def test_one_that_python_can_t_raise_ends_too(started: Callable[..., Started], tmp_path: Path) -> None:
    command = started(through=("-c", SWALLOWED))
    command.wait_for((tmp_path / "begun").exists)
    command.ctrl_c()
    assert command.ended(10) == (130, f"{STOPPING}stopped\n")


RESUME = ("--resume=no", "--resume", "runs/a")
SAYING = "import sys; from imgcap.errors import typed_command; print(typed_command())"


def test_a_command_is_named_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    (tmp_path / "say.py").write_text(SAYING)
    for words in (
        ["python", "say.py", "a b", "x=[1]"],
        ["torchrun", "--nproc_per_node", "1", "say.py", "x=1"],
        ["python", "say.py", "x=1", "--resume=no"],
        ["python", "say.py", "--resume", "runs/a", "x=1"],  # whose next start goes on from its own checkpoint
    ):
        ended = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)}
        )
        assert shlex.split(ended.stdout) == [word for word in words if word not in RESUME], ended
