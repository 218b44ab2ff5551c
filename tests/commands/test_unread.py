"""A reader that leaves before a command ends: `imgcap config | head`, `imgcap train 2>&1 | head`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}


def unread(words: list[str], stream: str, read: int = 64) -> tuple[int, str]:
    """Exit code, and what the other stream had, of a command of which one stream, or both as one, is left unread.

    Its reader leaves behind the first bytes.
    """
    ours, theirs = os.pipe()
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: theirs}
    if stream == "both":
        streams = {"stdout": theirs, "stderr": theirs}
    with subprocess.Popen([sys.executable, *words], cwd=CHECKOUT, env=ENVIRONMENT, text=True, **streams) as process:
        os.close(theirs)
        os.read(ours, read)
        os.close(ours)
        told = "".join(text or "" for text in process.communicate(timeout=240))
    return process.returncode, told


PRINTING = """
import sys
from imgcap.errors import UserError, exits_cleanly

@exits_cleanly
def main():
    print("one line", flush=True)
    sys.stdin.read()
    {then}

main()
"""


@pytest.mark.parametrize(
    ("then", "code", "told"),
    [
        ("print('another', flush=True)", 141, ""),
        ("print('another')", 141, ""),  # it is written where the command ends
        ("print('another'); sys.exit(1)", 141, ""),
        ("pass", 0, ""),  # all it had to say was read
        ("print('another'); raise UserError('a mistake')", 2, "error: a mistake\n"),
        ("raise UserError('a mistake')", 2, "error: a mistake\n"),
    ],
)
def test_a_stdout_that_nobody_reads_any_more(then: str, code: int, told: str) -> None:
    words = [sys.executable, "-c", PRINTING.format(then=then)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=CHECKOUT, env=ENVIRONMENT, text=True, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait(60)) == (told, code)


def test_an_answer_that_nobody_reads() -> None:
    assert unread(["-m", "imgcap", "config", "--schema"], "stdout", read=0) == (141, "")


SAYING = """
import sys, threading
from imgcap.errors import exits_cleanly, write_line
from imgcap.ranks.progress import Progress, say

@exits_cleanly
def main():
    for number in range(2000):
        say("a line")
    with Progress(8, "counting") as progress:
        progress.say("another")
        progress.update(8)
    print("a print", file=sys.stderr)
    write_line("stopping")
    thread = threading.Thread(target=say, args=["a thread's"])
    thread.start()
    thread.join()
    print("done")

main()
"""


def test_a_stderr_that_nobody_reads_ends_nothing() -> None:
    assert unread(["-c", SAYING], "stderr") == (0, "done\n")


def test_a_stderr_that_is_closed_from_the_beginning_ends_nothing() -> None:
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", SAYING]
    ended = subprocess.run(words, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "done\n")


@pytest.mark.slow
def test_training_goes_on_where_nobody_reads_its_lines(shards: Path, tmp_path: Path, tiny: list[str]) -> None:
    words = ["-m", "imgcap", "train", *tiny, f"run_dir={tmp_path}/run", f"data.shards={shards}", "log.every=1"]
    assert unread(words, "both") == (0, "")
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()
