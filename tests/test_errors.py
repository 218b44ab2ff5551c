"""A command ends on a mistake with one line and exit code 2, whichever rank meets it."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgcap.errors import UserError, exits_cleanly

# Rank 0 is the slower one; who has no mistake of its own meets the lost connection to the one that has.
PROGRAM = """
import os, sys, time
from imgcap.errors import UserError, exits_cleanly

@exits_cleanly
def main():
    rank = int(os.environ["RANK"])
    time.sleep(0.0 if rank else 1.0)
    if sys.argv[1] in ("all", str(rank)):
        raise UserError("it can't be done")
    raise RuntimeError("connection closed by peer")

main()
"""


def ended(error: Exception) -> Callable[[], None]:
    @exits_cleanly
    def main() -> None:
        raise error

    return main


def test_a_missing_package_is_a_mistake_and_a_missing_module_of_ours_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit):
        ended(ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet"))()
    said = "this command needs the package pyarrow, which isn't installed here; pip install 'imgcap[parquet]'"
    assert capsys.readouterr().err == f"error: {said}\n"
    with pytest.raises(ModuleNotFoundError):
        ended(ModuleNotFoundError("No module named 'imgcap.nowhere'", name="imgcap.nowhere"))()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("two\n  lines"), "error: two lines\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error: no room left (No space left on device); free some and run the same command again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/runs/demo"),
            "error: cannot use /runs/demo: Permission denied; name another place, or change its permissions\n",
        ),
    ],
)
def test_a_mistake_is_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        ended(error)()
    assert exit.value.code == 2
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a fault"),
        FileNotFoundError(errno.ENOENT, "not found", "x"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),  # of a socket or a worker: stdout is open
    ],
)
def test_a_fault_stays_one(error: Exception) -> None:
    with pytest.raises(type(error), match=re.escape(str(error))):
        ended(error)()


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize(
    ("whose", "line"),
    [
        ("all", "error: it can't be done"),
        ("0", "error: it can't be done"),
        ("1", "error: rank 1: it can't be done"),
    ],
)
def test_ranks_tell_a_mistake_once(whose: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [*command, tmp_path / "program.py", whose], capture_output=True, text=True, env=environment, timeout=120
    )
    assert process.returncode == 1
    assert [told for told in process.stderr.splitlines() if told.startswith("error:")] == [line]
    assert "connection closed by peer" not in process.stderr


LEAVING = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from imgcap.errors import exits_cleanly

left_open = ThreadPoolExecutor()

@exits_cleanly
def main():
    atexit.register(print, "python's own exit")
    left_open.submit(int)  # its thread waits for more, until Python's exit ends it
    threading.Thread(target=lambda: (time.sleep(0.2), print("saved"))).start()
    sys.exit(int(sys.argv[1]))

main()
"""


@pytest.mark.parametrize("code", [0, 75])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rank_of_several_leaves_past_pythons_own_exit(ranks: int, code: int) -> None:
    environment = os.environ | {"WORLD_SIZE": str(ranks)}
    command = [sys.executable, "-c", LEAVING, str(code)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == code and ended.stdout == "saved\n" + "python's own exit\n" * (ranks == 1)
