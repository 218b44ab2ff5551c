"""The server as a process: behind a proxy, at an address of IPv6, and what visitors drop goes with it."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from imgcap.captioning.page.server import uploads_folder

PATIENCE = 120


@pytest.mark.slow
def test_it_asks_no_proxy_for_itself_and_leaves_no_uploads(
    models: tuple[Path, Path], good: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="needs gradio: pip install 'imgcap[page]'")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "imgcap", "serve", str(models[0]), "--host", "::1", "--port", str(port)]
    nobody = "http://127.0.0.1:9"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(tmp_path)}
    environment |= dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), nobody)
    with subprocess.Popen(
        [*command, "--device", "cpu"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert f"http://[::1]:{port}/" in line, line + process.stdout.read()
            upload(f"http://[::1]:{port}/gradio_api/upload", next(iter(good.values())))
            (folder,) = tmp_path.iterdir()
            assert [path for path in folder.rglob("*") if path.suffix == next(iter(good.values())).suffix]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE)
    assert list(tmp_path.iterdir()) == []


def upload(address: str, picture: Path) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{picture.name}"\r\n\r\n'
    body = head.encode() + picture.read_bytes() + b"\r\n--x--\r\n"
    request = urllib.request.Request(address, body, {"Content-Type": "multipart/form-data; boundary=x"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE) as answer:
        assert answer.status == 200


def test_uploads_of_a_page_that_was_killed_go_and_those_of_one_that_lives_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    killed = tmp_path / "imgcap-page-killed"
    killed.mkdir()
    (killed / "mine.jpg").touch()
    (tmp_path / "gradio").mkdir()  # somebody else's
    with uploads_folder() as first:
        (first / "a.jpg").touch()
        assert not killed.exists()
        with uploads_folder() as second:
            assert second != first and (first / "a.jpg").exists()
        assert not second.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["gradio"]
