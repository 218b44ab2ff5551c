"""Progress: plain lines into a file, a bar in a terminal, silence on the other ranks."""

import os
import pty
import subprocess
import sys
import termios
import time

import pytest

from imgcap.ranks.progress import Progress, telling


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(total=100, unit="step", start=40)
    progress.update(70, loss=2.34567, images_per_s=412.34)
    progress.update(100, loss=1e-5)
    progress.close()
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("step 70/100  loss 2.346  412.3 images/s  eta 0:00:0") and out == ""
    assert second == "step 100/100  loss 1e-05  eta 0:00:00"


def test_the_time_left_follows_the_pace_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(total=100, unit="step", start=40)
    progress.update(60)
    monkeypatch.setattr("time.monotonic", lambda: progress.began + 10.0)
    assert str(progress.time_left()) == "0:00:20"  # 20 steps took 10 s, 40 are left


def test_what_is_counted_by_ones_is_told_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress(100, "building here") as progress:
        for second in range(1, 25):
            monkeypatch.setattr("time.monotonic", lambda second=second: progress.began + second)
            progress.advance(2)
        progress.say("skipped: a")
    lines = [f"building here: {done} of 100 images, 2/s, 0:00:{left} left" for done, left in ((20, 40), (40, 30))]
    assert capsys.readouterr().err.splitlines() == [*lines, "skipped: a"]


def test_bytes_are_told_in_millions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for total, of in ((40_000_000, " of 40"), (None, "")):
        with Progress(total, "photos.zip", "B") as progress:
            monkeypatch.setattr("time.monotonic", lambda began=progress.began: began + 10)
            progress.advance(20_000_000)
            monkeypatch.undo()
        left = ", 0:00:10 left" if total else ""
        assert capsys.readouterr().err == f"photos.zip: 20{of} MB, 2.0 MB/s{left}\n"


def test_what_is_slow_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with telling("compiling", patience=0.05):
        time.sleep(0.3)
    with telling("compiling fast", patience=10):
        pass
    with telling("another rank compiles", enabled=False, patience=0):
        pass
    assert capsys.readouterr().err.splitlines() == ["compiling …", "compiling: done in 0 s"]


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(total=10, enabled=False)
    progress.update(5, loss=1.0)
    progress.advance()
    progress.say("a line")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    script = "from imgcap.ranks.progress import Progress; p = Progress(8, start=2); p.update(6, loss=0.5)"
    script += "; p.bar.refresh(); p.close()"
    done = subprocess.run([sys.executable, "-c", script], stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    assert done.returncode == 0 and done.stdout == b""
    assert "6/8" in shown and "loss 0.5" in shown and "75%" in shown
