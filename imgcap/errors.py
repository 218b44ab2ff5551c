"""Mistakes of the user, and how a command ends on one."""

import difflib
import errno
import functools
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

USER_MISTAKE = 2
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
    "optuna": "'imgcap[sweep]'",
    "pillow_heif": "'imgcap[heic]'",
    "pyarrow": "'imgcap[parquet]'",
    "s3fs": "'imgcap[s3]'",
    "timm": "'imgcap[timm]'",
    "wandb": "'imgcap[wandb]'",
}


class UserError(Exception):
    """A mistake that the user can mend. Its message is one line: what, where, and how to mend it."""


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
    """Tell an error of another library in a line of at most 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def is_main_process() -> bool:
    """Whether this is the one process that speaks to the user, also before torch.distributed is up."""
    return os.environ.get("RANK", "0") == "0"


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Turn a mistake of the user in a command's `main` into one line on stderr and exit code 2.

    A mistake is a `UserError`, a package that isn't installed, or a disk that is full or closed to us. Under torchrun
    every rank meets the same mistake, or a lost connection to the one that met it; the line is printed once, by rank 0
    if it can.
    """
    answer = _answers(main)

    @functools.wraps(main)
    def run() -> None:
        try:
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
        try:
            main()
        except BrokenPipeError:  # `... | head` closed our stdout: not a fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
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
