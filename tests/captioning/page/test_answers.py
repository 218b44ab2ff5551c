"""What the page answers to a file and a choice of decoding, without a browser or gradio."""

import base64
import io
import re
import socket
import sys
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imgcap
from imgcap.captioning.page.controls import chosen_options
from imgcap.captioning.page.server import Limits, Page, check_address
from imgcap.errors import UserError
from imgcap.pictures.attention import OPAQUE, light, pale
from imgcap.pictures.opening import open_picture


@pytest.fixture(scope="module")
def page(models: tuple[Path, Path]) -> Page:
    return Page({path.name: imgcap.load(path, "cpu") for path in models}, Limits())


class Texts(HTMLParser):
    """The text of each element of a class, in order."""

    def __init__(self, answer: str, of: str):
        super().__init__()
        self.of, self.depth, self.found = of, 0, list[str]()
        self.feed(answer)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.depth:
            self.depth += 1
        elif self.of in (dict(attrs).get("class") or "").split():
            self.depth = 1
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= bool(self.depth)

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.found[-1] += data


def texts(answer: str, of: str) -> list[str]:
    return Texts(answer, of).found


def pictures(answer: str, kind: str) -> list[Image.Image]:
    """The pictures of a kind that an answer carries."""
    return [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(rf"data:image/{kind};base64,([\w+/=]+)", answer)
    ]


def test_every_sort_of_picture_gets_the_captions_of_imgcap_load(page: Page, good: dict[str, Path]) -> None:
    seen = set()
    for path in good.values():
        found = [captioner.caption(path)[0] for captioner in page.captioners.values()]
        answer = page.answer(str(path), {"method": "beam"})
        assert texts(answer, "caption") == [caption.text for caption in found]
        assert texts(answer, "score") == [f"{caption.score:.3f}" for caption in found]
        seen.add(found[0].text)
    assert len(seen) > 2, "it says the same of every picture"


def test_pictures_are_shown_upright_and_on_white(page: Page, good: dict[str, Path]) -> None:
    for path in good.values():
        shown, ground = pictures(page.answer(str(path), {}), "jpeg")
        assert shown.size == ground.size == (90, 60), path
        faded = np.asarray(ground, dtype=int) - np.asarray(pale(open_picture(path, 400)), dtype=int)
        assert abs(faded).mean() < 6, path
        difference = np.asarray(shown, dtype=int) - np.asarray(open_picture(path, 400), dtype=int)
        assert abs(difference).mean() < 6, path
    shown, _ = pictures(page.answer(str(good["alpha"]), {}), "jpeg")
    assert np.asarray(shown)[:, :40].min() > 240


def test_what_is_no_picture_gets_a_reason(page: Page, bad: dict[str, tuple[Path, str]]) -> None:
    for path, reason in bad.values():
        assert texts(page.answer(str(path), {}), "refused") == [reason]


def test_pixels_over_the_limit_are_never_decoded(
    page: Page, bad: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    assert "40,000,000" in page.answer(str(bad["huge"][0]), {})


def test_names_of_files_are_text(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    path.write_text("no picture")
    answer = page.answer(str(path), {})
    assert "<img" not in answer and path.name in unescape(answer)


def test_each_word_carries_the_heat_of_its_attention(page: Page, good: dict[str, Path]) -> None:
    path = good["plain"]
    (caption,) = page.captioners["english"].caption(path, attention=True)
    answer = page.answer(str(path), {})
    assert texts(answer, "word") == caption.tokens  # the other model doesn't attend
    assert caption.attention is not None
    assert [text.startswith("where the model looked") for text in texts(answer, "scale")] == [True, False]
    for layer, map_XY in zip(pictures(answer, "png"), caption.attention, strict=True):
        alpha = np.asarray(layer.getchannel("A"), dtype=float) / 255
        assert abs(alpha - OPAQUE * light(map_XY, layer.size)).max() <= 0.5 / 255 + 1e-6
        rows, columns = np.unravel_index(alpha.argmax(), alpha.shape), np.unravel_index(map_XY.argmax(), map_XY.shape)
        scale = np.array(alpha.shape) / map_XY.shape
        assert (np.floor(rows / scale) == columns).all(), "the heat is elsewhere than the attention"


def test_options_reach_the_search(page: Page, good: dict[str, Path]) -> None:
    path, english = good["plain"], page.captioners["english"]
    options = {"method": "diverse", "beam": 4, "groups": 2, "best": 3, "banned": ("dog",)}
    (caption,) = english.caption(path, **options)
    alone = Page({"english": english}, Limits())
    answer = alone.answer(str(path), options)
    assert texts(answer, "caption") == [caption.text]
    assert texts(answer, "best") == [f"{caption.text}{caption.score:.3f}"]
    assert caption.others
    assert texts(answer, "others") == ["".join(f"{other.caption}{other.score:.3f}" for other in caption.others)]


def test_a_model_that_cannot_do_as_asked_says_so_on_its_card(page: Page, good: dict[str, Path]) -> None:
    answer = page.answer(str(good["plain"]), {"method": "beam", "required": ("dog",)})
    assert "dog" in texts(answer, "caption")[0].split()
    (reason,) = texts(answer, "refused")
    assert reason.startswith("the vocabulary has no word 'dog'")
    (reason, _) = texts(page.answer(str(good["plain"]), {"method": "beam", "beam": 2, "best": 3}), "refused")
    assert "raise beam to 3" in reason


def test_controls_give_the_options_of_their_method_only() -> None:
    names = ["method", "beam", "samples", "top_k", "groups", "required", "banned", "length_penalty"]
    said = [5, 2, 0, 0, "red dog", "", 0.5]
    beam = chosen_options(names, ["beam", *said])
    assert {name: value for name, value in beam.items() if value is not None} == {
        "method": "beam",
        "beam": 5,
        "required": ("red", "dog"),
        "banned": (),
        "length_penalty": 0.5,
    }
    sample = chosen_options(names, ["sample", *said])
    assert sample["samples"] == 2 and sample["top_k"] is None and not {"beam", "required"} & sample.keys()


@pytest.mark.parametrize(("limits", "option"), [((0, 40), "--max-mb 0"), ((20, 90), "--max-megapixels 90")])
def test_limits_make_sense(limits: tuple[float, float], option: str) -> None:
    with pytest.raises(UserError, match=option):
        Limits(*limits)


def test_a_port_in_use_and_a_missing_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgcap.errors.importlib.util.find_spec", lambda name: True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"can't listen at port {port} of 127.0.0.1: Address already in use"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'imgcap\[page\]'"):
        check_address("127.0.0.1", port)


def test_pictures_of_many_visitors_are_captioned_one_at_a_time(
    page: Page, good: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'imgcap[page]'")
    client = pytest.importorskip("gradio_client")
    answer, inside, together = page.answer, list[str | None](), list[int]()

    def counted(path: str | None, decoding: dict[str, Any]) -> str:
        inside.append(path)
        time.sleep(0.1)
        together.append(len(inside))
        inside.pop()
        return answer(path, decoding)

    monkeypatch.setattr(page, "answer", counted)
    blocks = page.laid_out(gradio, [])
    _, address, _ = blocks.launch(quiet=True, prevent_thread_lock=True, ssr_mode=False)
    try:
        visitor = client.Client(address, verbose=False)
        file = client.handle_file(good["plain"])
        jobs = [visitor.submit(file, api_name="/caption") for _ in range(4)]
        captions = {tuple(texts(job.result(timeout=30), "caption")) for job in jobs}
    finally:
        blocks.close(verbose=False)
    assert captions == {tuple(texts(answer(str(good["plain"]), {"method": "beam"}), "caption"))}
    assert together == [1] * 4
