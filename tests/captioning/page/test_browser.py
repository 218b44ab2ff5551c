"""The page as its users have it: the real command, in Chromium, with no way to any other machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import imgcap

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0  # seconds, on a busy machine

pytestmark = pytest.mark.browser


def eventually(found: Callable[[], Any], what: str) -> Any:
    """What `found` returns, once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE:g} s: {what}")


def element_of(driver: Any, selector: str, holding: str = "") -> Any:
    """The first element of a selector whose text holds this, once it is there."""

    def found() -> Any:
        elements = driver.find_elements("css selector", selector)
        return next((element for element in elements if holding in text_of(element)), None)

    return eventually(found, f"{selector} {holding!r}")


def text_of(element: Any) -> str:
    return str(element.get_property("textContent"))


class Server(NamedTuple):
    """The command as a process."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def await_ready(self) -> None:
        """Until it says where the page is; it imports torch and gradio first."""
        end = time.monotonic() + 3 * PATIENCE
        while self.address not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def assert_alive(self) -> None:
        assert self.process.poll() is None, self.log.read_text()
        with urllib.request.urlopen(self.address, timeout=PATIENCE) as answer:
            assert answer.status == 200


class Visitor(NamedTuple):
    """Someone at the page."""

    driver: Any

    def drop(self, path: Path) -> None:
        """Drop a file, in place of what was dropped before."""
        for button in self.driver.find_elements("css selector", "#picture button[aria-label='Clear']"):
            button.click()
        element_of(self.driver, "#result .empty")
        element_of(self.driver, "#picture input[type=file]").send_keys(str(path))

    def captions(self) -> list[str]:
        element_of(self.driver, "#result .cards")
        return [text_of(found) for found in self.driver.find_elements("css selector", ".caption")]


@pytest.fixture(scope="module")
def server(
    models: tuple[Path, Path], good: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    pytest.importorskip("gradio", reason="needs gradio: pip install 'imgcap[page]'")
    folder = tmp_path_factory.mktemp("served")
    (folder / "examples").mkdir()
    shutil.copy(good["turned"], folder / "examples")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "tools/demo.py", *map(str, models), "--port", str(port), "--max-mb", "1"]
    command += ["--examples", str(folder / "examples"), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    log = folder / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True)
    yield Server(process, f"http://127.0.0.1:{port}/", log)
    process.terminate()
    process.wait(timeout=PATIENCE)


@pytest.fixture(scope="module")
def visitor(server: Server) -> Iterator[Visitor]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    nowhere_else = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,900", nowhere_else):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    try:
        server.await_ready()
        driver.get(server.address)
        yield Visitor(driver)
    finally:
        driver.quit()


@pytest.mark.parametrize("sort", ["plain", "alpha", "turned"])
def test_pictures_get_the_captions_of_imgcap_load(
    visitor: Visitor, server: Server, models: tuple[Path, Path], good: dict[str, Path], sort: str
) -> None:
    visitor.drop(good[sort])
    assert visitor.captions() == [imgcap.load(path, "cpu").caption(good[sort])[0].text for path in models]
    shown = element_of(visitor.driver, ".picture").size
    assert shown["width"] / shown["height"] == pytest.approx(90 / 60, rel=0.02)
    server.assert_alive()


@pytest.mark.parametrize("sort", ["text", "truncated", "huge"])
def test_what_is_no_picture_gets_a_reason(
    visitor: Visitor, server: Server, bad: dict[str, tuple[Path, str]], sort: str
) -> None:
    path, reason = bad[sort]
    visitor.drop(path)
    assert text_of(element_of(visitor.driver, "#result .refused")) == reason
    server.assert_alive()


def test_a_file_that_is_too_large_is_not_taken(visitor: Visitor, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(1_100_000))
    visitor.drop(path)
    message = text_of(element_of(visitor.driver, ".toast-body", holding="large.jpg"))
    assert "exceed the maximum allowed size" in message
    server.assert_alive()


def test_after_all_that_it_captions_as_before(
    visitor: Visitor, server: Server, models: tuple[Path, Path], good: dict[str, Path]
) -> None:
    """Chosen from the examples this time; then with another search, in two directions, word by word."""
    driver = visitor.driver
    driver.refresh()
    element_of(driver, ".examples button").click()
    english, arabic = (imgcap.load(path, "cpu") for path in models)
    assert visitor.captions() == [model.caption(good["turned"])[0].text for model in (english, arabic)]
    directions = [
        caption.value_of_css_property("direction") for caption in driver.find_elements("css selector", ".caption")
    ]
    assert directions == ["ltr", "rtl"]

    word = element_of(driver, ".word")
    heat = element_of(driver, ".heat")
    assert heat.value_of_css_property("background-image") == "none"
    word.click()
    assert word.get_attribute("data-heat") in heat.value_of_css_property("background-image")

    element_of(driver, "#method label:nth-child(2)").click()
    eventually(lambda: not driver.find_elements("css selector", "#beam"), "greedy search has no beams")
    driver.execute_script("arguments[0].click()", element_of(driver, "#caption"))
    greedy = english.caption(good["turned"], method="greedy")[0]
    element_of(driver, ".best", holding=f"{greedy.text}{greedy.score:.3f}")
    server.assert_alive()
    assert "Traceback" not in server.log.read_text()


def test_the_page_asks_nothing_of_other_machines(visitor: Visitor, server: Server) -> None:
    events = [json.loads(entry["message"])["message"] for entry in visitor.driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((server.address, "data:", "blob:"))] == []
