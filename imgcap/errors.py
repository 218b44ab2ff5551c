"""The user's mistakes, and how a command ends on one."""

import functools
import os
import sys
from collections.abc import Callable

USER_MISTAKE = 2


class UserError(Exception):
    """A mistake that the user can mend. Its message is one line: what, where, and how to mend it."""


def is_main_process() -> bool:
    """True in the one process that speaks to the user, also before torch.distributed is up."""
    return os.environ.get("RANK", "0") == "0"


def exits_cleanly(main: Callable[[], None]) -> Callable[[], None]:
    """Turn a `UserError` of a command's `main` into one line on stderr and exit code 2.

    Under torchrun every rank meets the same mistake; rank 0 alone prints it.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except UserError as error:
            if is_main_process():
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            sys.exit(USER_MISTAKE)
        except BrokenPipeError:  # `... | head` closed our stdout: not a fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)

    return run
