"""Fetching the bytes behind an address into a file: tried again after a pause, from where a try broke off.

`http` and `https` are read with requests, everything else (`s3`, `gs`, `hf`, `file` ...) with fsspec.
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imgcap.errors import UserError, needs, reason_of
from imgcap.files.durable import sha256_of

if TYPE_CHECKING:
    import requests

TRIES = 6  # in a row without a single new byte that could be kept
PAUSE, LONGEST_PAUSE = 0.5, 20.0  # seconds before the next try; doubled each time
CONNECT, SILENCE = 10.0, 15.0  # seconds until a server that does not answer, or stops, counts as gone
CHUNK = 1 << 20  # bytes
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP codes that a later try may not meet
_READ_WITH = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}  # beside fsspec
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)

Advance = Callable[[int], object]  # is told how many bytes more there are


class Unreachable(UserError):
    """An address whose bytes can't be had: no damage of a sample, so nothing that may be skipped."""


class NotThere(Unreachable):
    """An address behind which there is nothing."""


class _Missing(Exception):
    """An address behind which there is no file."""


class _Restart(Exception):
    """A file whose bytes, fetched so far, are of no use."""


class _Failure(Exception):
    """A try to fetch that failed and may be repeated; the message says what happened."""


def is_address(text: str) -> bool:
    """Whether a text is an address (`https://...`) and no path."""
    return bool(_ADDRESS.match(text))


def fetch(
    address: str, path: Path, size: int | None = None, sha256: str | None = None, advance: Advance = lambda count: None
) -> None:
    """Write what lies behind an address to `path`, behind what an earlier, broken call has left there.

    `advance` is told how many bytes more there are (fewer, after a begin from the start). Bytes of another `size` or
    `sha256` are thrown away and fetched again. Raises `Unreachable` after `TRIES` tries that brought nothing.
    """
    tries, told = 0, 0
    while True:
        before = _size(path)
        try:
            for told_now in _rest(address, path, size):
                advance(told_now - told)
                told = told_now
            _check(path, size, sha256)
            return
        except _Missing:
            raise NotThere(f"{address} is not there; check the address, or what has become of the file") from None
        except _Failure as failure:
            tries = 0 if _size(path) > before else tries + 1
            if tries >= TRIES:
                raise Unreachable(
                    f"{address} can't be fetched, in {TRIES} tries: {failure}; look at the server and the network, "
                    "then run the same command again"
                ) from None
        time.sleep(min(PAUSE * 2**tries, LONGEST_PAUSE))


def read_address(address: str) -> bytes:
    """Read a small file whole. FileNotFoundError where there is none; raises `Unreachable` as `fetch` does."""
    failure: _Failure | None = None
    for tries in range(TRIES):
        try:
            return b"".join(_chunks(address, 0)[1])
        except _Missing:
            raise FileNotFoundError(address) from None
        except _Failure as error:
            failure = error
        time.sleep(min(PAUSE * 2**tries, LONGEST_PAUSE))
    raise Unreachable(f"{address} can't be read, in {TRIES} tries: {failure}; look at the server and the network")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _rest(address: str, path: Path, size: int | None) -> Iterator[int]:
    """Append to a file what it lacks; yield how many bytes it has."""
    have = _size(path)
    if size is not None and have >= size:
        yield have
        return
    try:
        start, chunks = _chunks(address, have)
    except _Restart:
        path.unlink()
        raise _Failure("the server has no bytes behind those that are here") from None
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(start)  # 0 from a server that knows no ranges
        file.seek(start)
        for chunk in chunks:
            file.write(chunk)
            file.flush()
            yield file.tell()
            if size is not None and file.tell() > size:
                return


def _check(path: Path, size: int | None, sha256: str | None) -> None:
    """Raise `_Failure` for a file that isn't what was asked for, and remove it unless it is only too short."""
    found = _size(path)
    if size is not None and found < size:
        raise _Failure(f"it ended after {found} of {size} bytes")
    wrong = f"it has {found} bytes or more, and should have {size}" if size is not None and found > size else None
    if wrong is None and sha256 is not None:
        other = sha256_of(path)
        wrong = None if other == sha256 else f"its bytes have the sha256 {other[:12]}…, and should have {sha256[:12]}…"
    if wrong is not None:
        path.unlink()
        raise _Failure(wrong)


def _chunks(address: str, start: int) -> tuple[int, Iterator[bytes]]:
    """Read bytes from `start` on, or from 0 where the server can't, and say from which of the two."""
    if address.partition("://")[0].lower() in ("http", "https"):
        return _http_chunks(address, start)
    return start, _fsspec_chunks(address, start)


def _http_chunks(address: str, start: int) -> tuple[int, Iterator[bytes]]:
    import requests  # here and below: most who open this file fetch nothing

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = requests.get(address, headers=headers, stream=True, timeout=(CONNECT, SILENCE))
    except requests.RequestException as error:
        raise _Failure(reason_of(error)) from None
    code = response.status_code
    if code in (404, 410):
        response.close()
        raise _Missing
    if code == 416:  # there is nothing behind `start`: what is here is the whole file, or of another one
        response.close()
        if response.headers.get("Content-Range") == f"bytes */{start}":
            return start, iter(())
        raise _Restart
    if code not in (200, 206):
        response.close()
        answer = f"the server answered {code} {response.reason}"
        if code in _PASSING:
            raise _Failure(answer)
        raise Unreachable(f"{address} can't be fetched: {answer}; check the address, and who may read it")
    partial = code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return (start if partial else 0), _http_body(response)


def _http_body(response: "requests.Response") -> Iterator[bytes]:
    """Yield a response's bytes as they arrive, so that a try that breaks off has kept all it got."""
    import urllib3

    promised, got = response.headers.get("Content-Length"), 0
    with response:
        try:
            while chunk := response.raw.read1(CHUNK):
                got += len(chunk)
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Failure(reason_of(error)) from None
    if promised is not None and got < int(promised):
        raise _Failure(f"the server closed after {got} of {promised} bytes")


def _fsspec_chunks(address: str, start: int) -> Iterator[bytes]:
    import fsspec

    protocol = address.partition("://")[0].lower()
    if protocol in _READ_WITH:
        needs(f"an address of {protocol}://", _READ_WITH[protocol])
    try:
        files, name = fsspec.core.url_to_fs(address)
        with files.open(name, "rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise _Missing from None
    except (ImportError, ValueError) as error:  # no such protocol, or its package isn't installed
        raise Unreachable(f"{address} can't be read: {error}; install what reads {protocol}:// with pip") from None
    except Exception as error:  # each file system has errors of its own
        raise _Failure(reason_of(error)) from None
