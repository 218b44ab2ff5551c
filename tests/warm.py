"""Scripts that begin at once: forked from an interpreter that has torch and imgcap loaded.

Run as a program it is that interpreter: each line of its standard input asks for a script, on one or several ranks
that meet as under torchrun. A run that a test disturbs is started by torchrun itself; this is for those that only
have to come to their end.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Interpreter:
    """Starts the interpreter when it is first needed; `preload` are modules to import into it."""

    def __init__(self, *preload):
        self.preload, self.process = preload, None

    def run(self, arguments, cwd, environment, ranks=1, timeout=240):
        """What `subprocess.run` of `python ARGUMENTS`, under torchrun with several ranks, would return."""
        if self.process is None:
            # A process that ends early must not leave the interpreter behind: it ends with its standard input.
            command = [sys.executable, __file__, *self.preload]
            # Looking for GPUs by CUDA itself would leave none of them to the forked.
            quiet = os.environ | {"OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=quiet)
        with tempfile.TemporaryDirectory() as folder:
            request = {"arguments": list(map(str, arguments)), "cwd": str(cwd), "environment": dict(environment)}
            self.process.stdin.write(json.dumps(request | {"ranks": ranks, "folder": folder}) + "\n")
            self.process.stdin.flush()
            code = self._wait(Path(folder), time.monotonic() + timeout, arguments)
            out, errors = ((Path(folder) / name).read_text(errors="replace") for name in ("out", "errors"))
        return subprocess.CompletedProcess(arguments, code, out, errors)

    def _wait(self, folder, deadline, arguments):
        while not (folder / "code").exists():
            assert self.process.poll() is None, "the interpreter has ended"
            if time.monotonic() > deadline:
                os.killpg(int((folder / "group").read_text()), signal.SIGKILL)
                raise AssertionError(f"{arguments} takes too long:\n{(folder / 'errors').read_text()[-3000:]}")
            time.sleep(0.01)
        return int((folder / "code").read_text())

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


def serve():
    """Answer requests until there are no more; returns only in the children, one a rank, each with its request."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the launchers
    for line in sys.stdin:
        request = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            put(Path(request["folder"]) / "group", os.getpid())
            children = {}
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            for rank in range(request["ranks"]):
                child = os.fork()
                if child == 0:
                    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"]}
                    numbers["LOCAL_WORLD_SIZE"] = request["ranks"]
                    several = address | {name: str(number) for name, number in numbers.items()}
                    return request | {"environment": request["environment"] | (several if request["ranks"] > 1 else {})}
                children[child] = rank
            put(Path(request["folder"]) / "code", wait_for(children))
            os._exit(0)
    os._exit(0)


def wait_for(children):
    """The exit code of the ranks; when one fails, the others are ended, and the code is 1, as torchrun's."""
    codes = {}
    while len(codes) < len(children):
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child] != 0:
            for other in set(children) - set(codes):
                os.kill(other, signal.SIGTERM)
    return next(iter(codes.values())) if len(codes) == 1 else int(any(codes.values()))


def put(path, value):
    unfinished = path.with_name("unfinished-" + path.name)
    unfinished.write_text(str(value))
    unfinished.replace(path)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def become(request):
    """Take on a request's files, environment and folder."""
    for descriptor, name in ((1, "out"), (2, "errors")):
        sink = os.open(Path(request["folder"]) / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(sink, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = request["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        __import__(module)
    become(serve())
    runpy.run_path(sys.argv[0], run_name="__main__")
