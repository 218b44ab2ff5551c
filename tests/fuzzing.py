"""Fuzzing of what people bring: valid files with something wrong in them, and a runner that counts.

In a test run each target tries a few inputs. `IMGCAP_FUZZ_SECONDS` makes it go on for so long with ever new ones, past
the faults it finds; it then prints inputs tried and faults found, and fails where there were any.
"""

import contextlib
import copy
import io
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from imgcap.errors import exits_cleanly

SECONDS = float(os.environ.get("IMGCAP_FUZZ_SECONDS", "0"))  # of a test, which its cases share
CASES: Counter[str] = Counter()  # of each test, by its file and name
EXAMPLES, ROUND = 10, 100  # inputs of a target in a test run, and of a round of a long one
HANGS, GROWS = 60, 1 << 20  # seconds of one input; KiB that the process may grow by over all of them
_NO_LINE = re.compile(r"Traceback|\w(Error|Exception)\b|\bobject at 0x")
ODD_TEXTS = [
    "",
    " ",
    "nan",
    "null",
    "[",
    '"',
    "'",
    "\\",
    "a\tb",
    "a\nb",
    "a\x00b",
    "é",
    "\u2028",
    "\ud800",
    "../x",
    "~",
    "x" * 200_000,
]
ODD_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e999,
    -(10**30),
    1 << 63,
    7.0,
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    *ODD_TEXTS,
]
ODD_BYTES = [
    b"",
    b"\0",
    b'"',
    b",",
    b"|",
    b"\t",
    b"\r",
    b"\n",
    b"\n\n",
    b"\xff",
    b"\xe9",
    b"\xef\xbb\xbf",
    b"{",
    b"[",
    b"}",
    b"]",
    b"''",
    b"#",
    b":",
    b"\xe2\x80\xa8",
    b"9" * 5000,
    b"[" * 5000,
]


class Hangs(BaseException):
    """An input takes too long. What it runs in may catch any `Exception`, and this is none."""


class Changed(NamedTuple):
    """Bytes with a change: where it began in the original, where the original goes on, and the outcome."""

    start: int
    end: int
    data: bytes


@st.composite
def changed_bytes(draw: st.DrawFn, original: bytes) -> Changed:
    """A file with a cut at its end, or in one place a flipped bit, other bytes, or some bytes gone or twice."""
    start = draw(st.integers(0, len(original)))
    kind = draw(st.sampled_from(["cut", "flip", "put", "put", "over", "gone", "twice"]))
    end, new = start, b""
    if kind == "cut":
        end = len(original)
    elif kind == "flip" and start < len(original):
        end, new = start + 1, bytes([original[start] ^ 1 << draw(st.integers(0, 7))])
    elif kind in ("put", "over"):
        new = draw(st.sampled_from(ODD_BYTES) | st.binary(min_size=1, max_size=4))
        end = min(start + len(new), len(original)) if kind == "over" else start
    elif kind in ("gone", "twice"):
        end = min(start + draw(st.integers(1, 40)), len(original))
        new = original[start:end] * 2 if kind == "twice" else b""
    return Changed(start, end, original[:start] + new + original[end:])


@st.composite
def changed_json(draw: st.DrawFn, original: Any) -> tuple[Any, tuple[Any, ...]]:
    """A JSON value of which one part is another, gone, or there twice; and the path to that part."""
    document = copy.deepcopy(original)
    path = draw(st.sampled_from(list(_paths(document))))
    if not path:
        return draw(st.sampled_from(ODD_VALUES)), path
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    kind = draw(st.sampled_from(["value", "value", "gone", "twice", "text"]))
    if kind == "gone":
        del parent[path[-1]]
    elif kind == "twice" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[path[-1]]))
    elif kind == "text":
        parent[path[-1]] = str(parent[path[-1]])
    else:
        parent[path[-1]] = draw(st.sampled_from(ODD_VALUES))
    return document, path


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for step, below in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _paths(below, (*path, step))


def fuzz(target: str, inputs: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    """Give `check`, which raises where something is wrong, inputs of a target: a few, or for `SECONDS`."""
    tried, faults, number = 0, dict[str, str](), 0
    before, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + _share()
    while number == 0 or time.monotonic() < end:
        known = set(faults)

        @seed(number)
        @settings(
            max_examples=ROUND if SECONDS else EXAMPLES,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink) if not SECONDS else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def one(given_input: Any) -> None:
            nonlocal tried
            tried += 1
            try:
                with _no_hang():
                    check(given_input)
            except (Exception, Hangs) as error:
                if not SECONDS:
                    raise
                faults.setdefault(_place_of(error), f"{given_input!r:.2000}\n{traceback.format_exc()[-3000:]}")

        one()
        number += 1
        for place in faults.keys() - known:
            print(f"{target}: a fault at {place}:\n{faults[place]}", file=sys.__stderr__, flush=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if SECONDS:
        print(
            f"{target}: {tried:,} inputs tried, {len(faults)} faults found, grown by {grown >> 10} MiB",
            file=sys.__stderr__,
            flush=True,
        )
    assert not faults and grown < GROWS, (sorted(faults), grown)


def _share() -> float:
    """Seconds of the case that runs now."""
    return SECONDS / CASES[os.environ["PYTEST_CURRENT_TEST"].partition("[")[0].partition(" ")[0]]


def _place_of(error: BaseException) -> str:
    """Where a fault is: the same for the same fault, whatever the input."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/imgcap/" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {type(error).__name__}"


@contextlib.contextmanager
def _no_hang() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hangs(f"{HANGS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_line(line: str) -> str:
    """Return what a user is told of a mistake; it must be one line, without what only a programmer understands."""
    assert line.strip() and "\n" not in line.strip() and not _NO_LINE.search(line), line
    return line


class Outcome(NamedTuple):
    code: int
    out: str
    mistake: str  # what it complained of, where its code is 2


def run_command(main: Callable[[], None], *arguments: object) -> Outcome:
    """Run a command's `main` in this process: it ends with 0, with 1 (verify), or with 2 and one line; nothing else."""
    out, err, given = io.StringIO(), io.StringIO(), sys.argv
    code = 0
    try:
        sys.argv = ["imgcap", *map(str, arguments)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            exits_cleanly(main)()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        sys.argv = given
    lines = err.getvalue().splitlines()
    assert code in (0, 1) or (code == 2 and lines[-1].startswith("error: ")), (code, lines)
    return Outcome(code, out.getvalue(), check_line(lines[-1]) if code == 2 else "")
