"""`imgcap.load(...).caption(...)`: every sort of picture, one or many, and what is none."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import save_run

import imgcap
from imgcap.captioning.captioner import PictureCaptioner
from imgcap.config.model import LSTMConfig
from imgcap.errors import UserError

WORDS = ["a", "the", "red", "blue", "green", "dog", "cat", "bird", "ball", "runs", "sits", "flies", "on", "under"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random, sharp weights: what it says depends on the picture."""
    encoder = "model.encoder={name: resnet18, weights: none, output_stride: 16, train: all}"
    return save_run(
        tmp_path_factory.mktemp("run"), WORDS, encoder, "data={image_size: 48, max_tokens: 7}", "eval.beam=3"
    )


@pytest.fixture(scope="module")
def captioner(run: Path) -> PictureCaptioner:
    return imgcap.load(run, "cpu")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((90, 60), Image.Resampling.BILINEAR).save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


def photos(count: int) -> list[Image.Image]:
    random = np.random.default_rng(1)
    blots = [Image.fromarray(random.integers(0, 256, (4, 6, 3)).astype(np.uint8)) for _ in range(count)]
    return [blot.resize((90, 60), Image.Resampling.BILINEAR) for blot in blots]


def test_every_form_of_a_picture_gets_the_same_caption(captioner: PictureCaptioner, photo: Path) -> None:
    picture = Image.open(photo)
    pixels_HWC = np.asarray(picture)
    image_CHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1)
    floats = [pixels_HWC / 255, image_CHW / 255, image_CHW.double() / 255]
    forms = [str(photo), photo, picture, pixels_HWC, image_CHW, *floats]
    captions = captioner.caption(forms)
    assert captions[0].text
    for caption in captions:
        assert (caption.text, caption.score) == (captions[0].text, pytest.approx(captions[0].score, abs=1e-6))
    grey = picture.convert("L")
    as_pixels = np.asarray(grey)
    found = captioner.caption([grey, as_pixels, as_pixels[..., None], torch.from_numpy(as_pixels.copy())[None]])
    assert len({caption.text for caption in found}) == 1


def test_one_or_many_in_any_batches(captioner: PictureCaptioner) -> None:
    pictures = photos(7)
    expected = captioner.caption(pictures)
    assert len({caption.score for caption in expected}) == 7
    pixels_BHWC = np.stack([np.asarray(picture) for picture in pictures])
    images_BCHW = torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2)
    one_each = [captioner.caption(picture)[0] for picture in pictures]
    for found in (
        captioner.caption(iter(pictures), batch_size=3),
        captioner.caption(pixels_BHWC),
        captioner.caption(images_BCHW, batch_size=1),
        one_each,
    ):
        assert [caption.text for caption in found] == [caption.text for caption in expected]
        assert [caption.score for caption in found] == pytest.approx([caption.score for caption in expected], abs=1e-5)
    assert captioner.caption([]) == []


def test_tokens_and_attention_belong_together(captioner: PictureCaptioner) -> None:
    for caption in captioner.caption(photos(3), attention=True):
        assert caption.text.split() == [token for token in caption.tokens if not token.startswith("<")]
        assert caption.attention is not None and caption.attention.shape == (len(caption.tokens), 3, 3)
        assert caption.attention.sum((1, 2)) == pytest.approx(np.ones(len(caption.tokens)), abs=1e-5)
    assert captioner.caption(photos(1))[0].attention is None


def test_beam_and_length_penalty_are_heeded(captioner: PictureCaptioner) -> None:
    pictures = photos(6)
    greedy, default, wide = (captioner.caption(pictures, beam) for beam in (1, None, 8))
    assert [caption.score for caption in default] == [caption.score for caption in captioner.caption(pictures, 3)]
    assert sum(caption.score for caption in wide) > sum(caption.score for caption in greedy)
    plain = captioner.caption(pictures, 3, length_penalty=0.0)
    assert all(raw.score <= caption.score for raw, caption in zip(plain, default, strict=True))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("notes.txt", r"notes\.txt can't be captioned: not an image"),
        ("nowhere.jpg", r"nowhere\.jpg can't be captioned: cannot be read: No such file"),
        (".", "can't be captioned: cannot be read: Is a directory"),
        ("http://127.0.0.1:9/a.jpg", "pass urls=True"),
        (torch.randn(3, 8, 8), "picture 0 can't be captioned: floats go from 0 to 1"),
        (torch.full((3, 8, 8), torch.nan), "floats go from 0 to 1"),
        (torch.zeros(8, 8, 3), r"a tensor is \(C, H, W\)"),
        (np.zeros((3, 8, 8), np.uint8), r"an array is \(H, W, C\)"),
        (np.zeros((8, 8, 3), np.int64), "these are int64"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        ([None], "picture 0 can't be captioned: 'NoneType' is no picture"),
        (None, "picture 0 can't be captioned: 'NoneType' is no picture"),
        (7, "picture 0 can't be captioned: 'int' is no picture"),
        (io.BytesIO(), "picture 0 can't be captioned: 'BytesIO' is no picture"),
        (b"raw", "picture 0 can't be captioned: not an image"),
        (b"", "picture 0 can't be captioned: zero bytes"),
        (Path("a\0b"), "can't be captioned: its name holds a NUL"),
        ({"image": "a.jpg"}, "picture 0 can't be captioned: 'dict' is no picture"),
        (memoryview(b"raw"), "picture 0 can't be captioned: not an image"),
        (Image.new("RGB", (0, 4)), "picture 0 can't be captioned: it has no pixels"),
        (Image.new("F", (4, 4), -1), "picture 0 can't be captioned: grey is 0 to 65,535"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), "these are complex64"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), "these are bool"),
        (torch.zeros(3, 8, 8, device="meta"), "a tensor without plain values"),
        (torch.zeros(3, 8, 8).to_sparse(), "a tensor without plain values"),
        (np.zeros((8, 8), object), "these are object"),
        (np.uint8(7), "'uint8' is no picture"),
    ],
)
def test_what_is_no_picture_is_named(captioner: PictureCaptioner, tmp_path: Path, bad: object, reason: str) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    if isinstance(bad, str) and "://" not in bad:
        bad = tmp_path / bad
    with pytest.raises(UserError, match=reason):
        captioner.caption(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("close", [lambda image: image.close(), lambda image: image.__exit__()])
def test_a_closed_picture_is_named_closed(
    captioner: PictureCaptioner, photo: Path, close: Callable[[Image.Image], object]
) -> None:
    image = Image.open(photo)
    close(image)
    with pytest.raises(UserError, match="picture 0 can't be captioned: it was closed before it was read"):
        captioner.caption(image)


def test_a_picture_that_pillow_opens_lazily_is_found_cut(captioner: PictureCaptioner, photo: Path) -> None:
    cut = io.BytesIO(photo.read_bytes()[:-100])
    with pytest.raises(UserError, match="picture 1 can't be captioned: truncated or damaged image"):
        captioner.caption([Image.open(photo), Image.open(cut)])


def test_small_floats_are_those_of_float32(captioner: PictureCaptioner) -> None:
    whole = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert captioner.caption(whole) == captioner.caption(whole.float())


@pytest.fixture
def server(photo: Path) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = photo.read_bytes() if self.path == "/photo.jpg" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_addresses_are_fetched_where_that_is_asked_for(captioner: PictureCaptioner, photo: Path, server: str) -> None:
    assert captioner.caption(f"{server}/photo.jpg", urls=True) == captioner.caption(photo)
    with pytest.raises(UserError, match=r"gone\.jpg can't be captioned: there is nothing at this address"):
        captioner.caption([photo, f"{server}/gone.jpg"], urls=True)


def test_attention_of_a_decoder_without_it_is_refused(captioner: PictureCaptioner) -> None:
    loaded = captioner.loaded
    model = loaded.config.model.model_copy(update={"decoder": LSTMConfig()})
    other = type(loaded)(**{**vars(loaded), "config": loaded.config.model_copy(update={"model": model})})
    with pytest.raises(UserError, match="needs a decoder that attends"):
        PictureCaptioner(other).caption(photos(1), attention=True)


def test_importing_the_package_does_not_wait_for_torch() -> None:
    check = "import imgcap, sys; assert callable(imgcap.load); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize("device", ["toaster", "cpu:x"])
def test_a_device_that_there_is_not(run: Path, device: str) -> None:
    with pytest.raises(UserError, match="is no device"):
        imgcap.load(run, device)


def test_a_file_in_memory_is_opened_by_pillow(captioner: PictureCaptioner, photo: Path) -> None:
    assert captioner.caption(Image.open(io.BytesIO(photo.read_bytes())))[0].text == captioner.caption(photo)[0].text
