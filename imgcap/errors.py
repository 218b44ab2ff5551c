"""Mistakes of the user, and how a command ends: on one, on Ctrl-C, or as it should."""

import difflib
import errno
import functools
import importlib.util
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

USER_MISTAKE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
UNREAD = 141  # 128 + SIGPIPE
ENDING = 10.0  # seconds that a command has to end in after Ctrl-C
_LAUNCHERS = ("torchrun", "torch.distributed.run", "torch.distributed.launch", "deepspeed", "deepspeed.launcher.launch")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
# Seconds that a rank leaves to the others, one of which may know better why the run ends.
_AFTER_RANK_0, _AFTER_LOCAL_RANK, _AFTER_MISTAKES = 3.0, 0.25, 10.0
# What pip installs where a module is missing that has another name, or comes with an extra of setup.py.
_INSTALLED_AS = {
    "PIL": "pillow",
    "arabic_reshaper": "arabic-reshaper",
    "bidi": "python-bidi",
    "yaml": "pyyaml",
    "gcsfs": "'imgcap[gcs]'",
    "gradio": "'imgcap[page]'",
    "huggingface_hub": "'imgcap[hub]'",
    "onnx": "'imgcap[onnx]'",
    "onnxruntime": "'imgcap[onnx]'",
    "onnxscript": "'imgcap[onnx]'",
    "open_clip": "'imgcap[clip]'",
    "optuna": "'imgcap[sweep]'",
    "pillow_heif": "'imgcap[heic]'",
    "pyarrow": "'imgcap[parquet]'",
    "s3fs": "'imgcap[s3]'",
    "timm": "'imgcap[timm]'",
    "wandb": "'imgcap[wandb]'",
}
_ERROR_NAME = re.compile(r"\[Errno -?\d+\] |\b(?:\w+\.)*[A-Z]\w*(?:Error|Exception)\b(?:: |(?=\())?")
# Of the process that heeds Ctrl-C: its number, whether its work has begun, was asked to stop, would go on if repeated.
_state: dict[str, Any] = {"process": None, "begun": False, "asked": False, "goes_on": False}


class UserError(Exception):
    """A mistake that the user can mend. Its message is one line: what, where, and how to mend it."""


class _Unread(BrokenPipeError):
    """Nobody reads our stdout any more, as behind `... | head`."""


class _Stream:
    """stdout or stderr, whose reader may leave: what is written then goes nowhere, and on stdout raises `_Unread`."""

    def __init__(self, stream: TextIO, raises: bool) -> None:
        self._stream, self._raises = stream, raises

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._reader_may_leave():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._reader_may_leave():
            self._stream.flush()

    @contextmanager
    def _reader_may_leave(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if self._raises:
                raise _Unread from None


@contextmanager
def _readers_may_leave() -> Iterator[None]:
    """Let a reader of stdout or stderr leave before this command ends; a library's broken pipe stays an error."""
    before = sys.stdout, sys.stderr
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed from the beginning, as by 2>&-: no other file may get its number
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        elif not isinstance(getattr(sys, name), _Stream):
            setattr(sys, name, _Stream(getattr(sys, name), raises=number == 1))
    try:
        yield
    finally:
        with suppress(_Unread):  # what a command that failed had printed
            print(end="", flush=True)
        sys.stdout, sys.stderr = before


def nearest(name: str, known: Iterable[str]) -> str:
    """Find the known name that a misspelt one is most like."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def needs(purpose: str, *modules: str) -> None:
    """Raise `UserError`, saying what to install, where one of these top-level modules isn't; imports none of them.

    What is needed by the plain install alone needs no call: a command says as much of any module that it misses.
    """
    for module in modules:
        if sys.modules.get(module) is None and importlib.util.find_spec(module) is None:
            package = _INSTALLED_AS.get(module, module)
            raise UserError(f"{purpose} needs the package {module}, which isn't installed here; pip install {package}")


def reason_of(error: Exception) -> str:
    """Tell an error of another library in a line of at most 200 characters, without the names that Python has for it.

    >>> reason_of(KeyError("raw")), reason_of(TimeoutError()), reason_of(OSError("ReadError: it closed"))
    ("'raw' is missing", 'timeout', 'it closed')
    >>> reason_of(OSError(28, "No space left on device"))
    'No space left on device'
    """
    text = _ERROR_NAME.sub("", " ".join(str(error).split()))[:200]
    if not text:
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
    return f"{text} is missing" if isinstance(error, KeyError) else text


def is_main_process() -> bool:
    """Whether this is the one process that speaks to the user, also before torch.distributed is up."""
    return os.environ.get("RANK", "0") == "0"


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Turn a mistake of the user in a command's `main` into one line on stderr and exit code 2.

    A mistake is a `UserError`, a package that isn't installed, or a disk that is full or closed to us. Under torchrun
    every rank meets the same mistake, or a lost connection to the one that met it; the line is printed once, by rank 0
    if it can. Where `heed_interrupts` was called, Ctrl-C ends in a line and exit code 130. Where nobody
    reads stdout any more, a command that prints ends quietly, with 141; where nobody reads stderr, none ends.
    """
    answer = _answers(main)

    @functools.wraps(main)
    def run() -> None:
        try:
            with _readers_may_leave():
                answer()
        except SystemExit as left:
            if not _among_others() or isinstance(left.code, str):
                raise
            _leave(left.code or 0)
        if _among_others():
            _leave(0)

    return run


def _answers(main: Callable[[], None]) -> Callable[[], None]:
    """Make `main` say a mistake in one line, and leave with its exit code."""

    def run() -> None:
        if hasattr(sys.stdout, "reconfigure"):  # names and captions that it can't encode become escapes
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            _to_the_last_line(main)
            if _state["asked"]:  # a library has taken the KeyboardInterrupt for itself
                _say_stopped()
        except KeyboardInterrupt:
            if not _state["asked"]:
                raise
            _say_stopped()
        except _Unread:
            sys.exit(UNREAD)
        except Exception as error:
            if _state["asked"]:  # what a library has made of the KeyboardInterrupt, or a rank that has left already
                _say_stopped()
            mistake = _mistake(error)
            if mistake is None:
                if isinstance(error, RuntimeError):  # a lost connection is one: another rank may know why
                    _let_others_speak(_AFTER_MISTAKES)
                raise
            if not is_main_process():
                _let_others_speak(_AFTER_RANK_0 + _AFTER_LOCAL_RANK * int(os.environ.get("LOCAL_RANK", "0")))
                mistake = f"rank {os.environ['RANK']}: {mistake}"
            print(f"error: {' '.join(mistake.split())}", file=sys.stderr, flush=True)
            sys.exit(USER_MISTAKE)

    return run


def _to_the_last_line(main: Callable[[], None]) -> None:
    """Run `main` and write what it has printed: Python's own exit would tell a broken pipe in lines of its own."""
    try:
        main()
    except SystemExit:
        print(end="", flush=True)
        raise
    print(end="", flush=True)


def _mistake(error: Exception) -> str | None:
    """Say in a line what the user can mend of an error; None for a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        try:
            needs("this command", error.name.partition(".")[0])
        except UserError as missing:
            return str(missing)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = f" for {error.filename}" if error.filename else ""
        return f"no room left{where} ({error.strerror}); free some and run the same command again"
    if isinstance(error, OSError) and error.errno in _NO_ACCESS and error.filename:
        return f"cannot use {error.filename}: {error.strerror}; name another place, or change its permissions"
    return None


def _among_others() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _leave(code: int) -> NoReturn:
    """End this rank at once, its work and its threads' done.

    Python's own exit would end it by SIGABRT now and then: gloo's threads, which nobody can wait for, still let go of
    the last collective's tensors, and for that they want an interpreter.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # what Python's exit begins with: it also ends idle executors
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _let_others_speak(seconds: float) -> None:
    """Wait; torchrun ends this process meanwhile if another rank has left, and so has said why."""
    if not _among_others():
        return
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_DFL)
    time.sleep(seconds)


def heed_interrupts(goes_on: bool) -> None:
    """Let Ctrl-C end this process in a line, and never in a traceback: to be called before anything else is imported.

    Until `work_begins` it ends at once. From then on the first Ctrl-C raises KeyboardInterrupt, so that files are
    closed and processes ended, for `ENDING` seconds at most; a second one ends at once. `goes_on` is whether the same
    command, given again, goes on where this one was stopped.
    """
    if _state["process"] is None:
        told = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = lambda ignored: _swallowed(ignored.exc_type) if _state["asked"] else told[0](ignored)
        threading.excepthook = lambda ended: None if _state["asked"] else told[1](ended)
    _state.update(process=os.getpid(), begun=False, asked=False, goes_on=goes_on)
    signal.signal(signal.SIGINT, _interrupt)


def work_begins() -> None:
    """Say that all imports are done: who interrupts a library in mid-import gets any error but KeyboardInterrupt."""
    _state["begun"] = True


def how_to_go_on() -> str:
    """End of a line that says how to go on: the command as it was typed, where that can be known."""
    typed = typed_command()
    return f"go on with: {typed}" if typed else "the same command goes on"


def typed_command() -> str | None:
    """The command that this process belongs to, as it was typed, torchrun's or deepspeed's with it, without --resume.

    None where it was started by another launcher, or the system doesn't say by which.
    """
    words, process = list(sys.orig_argv), os.getppid()
    while launched := _launcher_words(process):
        words, process = launched, _parent_of(process)
    if _among_others() and words == sys.orig_argv:
        return None
    if len(words) > 1 and Path(words[1]).parent.name == "bin":  # a console script, by the interpreter in its first line
        del words[0]
    if "--resume" in words:
        at = words.index("--resume")
        del words[at : at + 2]
    words = [word for word in words if not word.startswith("--resume=")]
    name = Path(words[0]).name
    return shlex.join([name if shutil.which(name) == words[0] else words[0], *words[1:]])


def _launcher_words(process: int) -> list[str] | None:
    """The words that started a process, if it is a launcher of ranks."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return None
    return words if any(Path(word).name in _LAUNCHERS for word in words[:4]) else None


def _parent_of(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended meanwhile
        return 0
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


def _interrupt(number: int, frame: object) -> None:
    """Answer to SIGINT. A child that is just being forked leaves the answer to its parent."""
    if os.getpid() != _state["process"]:
        return
    if not _state["begun"]:
        _end_now("stopped while starting; nothing was begun")
    if _state["asked"]:
        _end_now("ended at once")
    _state["asked"] = True
    write_line(f"stopping, within {ENDING:.0f} s; Ctrl-C again ends at once")
    last = threading.Timer(ENDING, _end_now, [f"ended after {ENDING:.0f} s"])
    last.daemon = True
    last.start()
    raise KeyboardInterrupt


def write_line(line: str) -> None:
    """Write a line to stderr in one call, which a signal's handler may do too; ranks other than 0 write none."""
    if is_main_process():
        behind = "\n" if os.isatty(2) else ""  # a terminal has shown ^C, or a bar
        with suppress(BrokenPipeError):  # Ctrl-C has ended its reader too
            os.write(2, f"{behind}{line}\n".encode())


def _end_now(line: str) -> NoReturn:
    write_line(line)
    os._exit(INTERRUPTED)


def _swallowed(what: type[BaseException]) -> None:
    """End where a KeyboardInterrupt was raised in a place that can't pass it on, such as a finaliser."""
    if issubclass(what, KeyboardInterrupt):
        _end_now("stopped")


def _say_stopped() -> NoReturn:
    if is_main_process():
        kept = f"stopped; what is finished is kept, {how_to_go_on()}" if _state["goes_on"] else "stopped"
        print(kept, file=sys.stderr, flush=True)
    sys.exit(INTERRUPTED)
