"""The page itself: its layout, what it answers, and the server that shows it.

Gradio makes the page and keeps the queue. It never decodes a picture: it hands over the file that was dropped, which is
held against the limits before any of its pixels are.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from imgcap.captioning.page import cards
from imgcap.captioning.page.controls import add_controls, chosen_options
from imgcap.captioning.page.style import CHOOSE, CSS, LOOK
from imgcap.config.decoding import DecodeOptions
from imgcap.errors import UserError, needs
from imgcap.files.locks import Lock
from imgcap.pictures.formats import SUFFIXES
from imgcap.pictures.opening import MAX_PIXELS, UnreadableImage, check_header, decode, open_picture

if TYPE_CHECKING:
    from imgcap.captioning.captioner import PictureCaptioner

SHOWN, THUMBNAIL = 800, 160  # pixels of the longer side
MAX_EXAMPLES = 24
WAITING = 100  # in the queue; who comes then is told to come back
_UPLOADS = "imgcap-page-"  # folder of what was dropped on a page; then what mkdtemp adds
KEPT = 24 * 3600  # seconds until an uploaded file is deleted


@dataclass(frozen=True)
class Limits:
    """Limits of a picture: MiB of its file, and millions of pixels. Raises `UserError` where they make no sense."""

    megabytes: float = 20.0
    megapixels: float = 40.0

    def __post_init__(self) -> None:
        if not self.megabytes > 0:
            raise UserError(f"--max-mb {self.megabytes:g} must be above 0")
        if not 0 < self.megapixels <= MAX_PIXELS // 10**6:
            raise UserError(
                f"--max-megapixels {self.megapixels:g} must be above 0 and at most {MAX_PIXELS // 10**6}, "
                "beyond which imgcap decodes nothing"
            )

    def __str__(self) -> str:
        return f"at most {self.megabytes:g} MB and {self.megapixels:g} megapixels"


def check_address(host: str, port: int) -> None:
    """Raise `UserError` where gradio is missing, or where this address can't be listened at."""
    needs("the web page", "gradio")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((host, port))
        except OSError as error:  # in use, below 1024, not of this machine: the system says which
            raise UserError(
                f"can't listen at port {port} of {host}: {error.strerror}; choose another with --port or --host"
            ) from None


def serve(
    captioners: "Mapping[str, PictureCaptioner]",
    host: str,
    port: int,
    examples: Sequence[Path] = (),
    limits: Limits | None = None,
    share: bool = False,
) -> None:
    """Show the page at this address until the process is ended; `captioners` by the names they have on it.

    Each request runs alone, so that one picture is captioned at a time. `check_address` comes first. Raises `UserError`
    where an example is no picture, or the port was taken meanwhile.
    """
    with uploads_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        _serve(Page(captioners, limits or Limits()), host, port, examples[:MAX_EXAMPLES], share)


@contextmanager
def uploads_folder() -> Iterator[Path]:
    """Context of a folder for what visitors drop, which goes with the page.

    Those of pages that were killed go too: nobody holds their locks.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_UPLOADS}*"):
        with suppress(OSError):  # another user's
            if Lock(left / ".lock").acquire(wait=False):
                shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_UPLOADS, dir=parent))
    with Lock(folder / ".lock"):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _serve(page: "Page", host: str, port: int, examples: Sequence[Path], share: bool) -> None:
    gradio = _gradio(host)
    blocks = page.laid_out(gradio, examples)
    blocks.queue(max_size=WAITING)
    try:
        _, address, public = blocks.launch(
            server_name=f"[{host}]" if ":" in host else host,  # as in an address
            server_port=port,
            share=share,
            max_file_size=int(page.limits.megabytes * 2**20),
            allowed_paths=[str(path.resolve()) for path in examples],
            theme=_theme(gradio),
            css=CSS,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(
            f"can't listen at port {port} of {host} any more: {error}; choose another with --port"
        ) from None
    print(f"{', '.join(page.captioners)}: {address}", flush=True)
    if share:
        print(f"for anyone who has the link: {public}" if public else "no public link could be made", flush=True)
    while blocks.is_running:  # gradio's own loop tells of Ctrl-C in words of its own
        time.sleep(0.1)


class Page:
    """The web page: what it answers to a picture, and where things stand on it."""

    def __init__(self, captioners: "Mapping[str, PictureCaptioner]", limits: Limits):
        assert captioners, "a page has a model"
        self.captioners, self.limits = captioners, limits

    def answer(self, path: str | None, decoding: Mapping[str, Any]) -> str:
        """HTML that answers a dropped file: a card for each model, or a message that says what is wrong with it."""
        if path is None:
            return cards.HTML.empty()
        try:
            picture = self._shown(Path(path))
        except UnreadableImage as reason:
            return cards.HTML.message(f"{Path(path).name} can't be captioned: {reason}")
        return cards.result(picture, [self._card(name, path, decoding) for name in self.captioners])

    def laid_out(self, gradio: Any, examples: Sequence[Path]) -> Any:
        """Lay out the page as gradio's blocks."""
        first = next(iter(self.captioners.values())).loaded.config
        with gradio.Blocks(title="imgcap", analytics_enabled=False, fill_width=True, delete_cache=(3600, KEPT)) as page:
            gradio.HTML(cards.HTML.title(), apply_default_css=False)
            with gradio.Row(equal_height=False):
                with gradio.Column(scale=1, min_width=300):
                    file = gradio.File(label="Picture", file_types=list(SUFFIXES), height=140, elem_id="picture")
                    hint = cards.HTML.hint(f"JPEG, PNG, WebP, BMP, GIF or TIFF, {self.limits}")
                    gradio.HTML(hint, apply_default_css=False)
                    if examples:
                        self._add_examples(gradio, examples, file)
                    controls = add_controls(gradio, DecodeOptions.like_evaluation(first.eval))
                    button = gradio.Button("Caption", variant="primary", elem_id="caption")
                with gradio.Column(scale=3, min_width=320):
                    result = gradio.HTML(cards.HTML.empty(), js_on_load=LOOK, apply_default_css=False, elem_id="result")

            def answer(path: str | None, *values: Any) -> str:
                return self.answer(path, chosen_options(list(controls), values))

            inputs = [file, *controls.values()]
            gradio.on([file.change, button.click], answer, inputs, result, api_name="caption", concurrency_limit=1)
        return page

    def _shown(self, path: Path) -> Image.Image:
        """Open a picture as the page shows it: within the limits, upright, RGB, and not large."""
        data = path.read_bytes()
        check_header(data, int(self.limits.megapixels * 1e6))
        return _within(decode(data, SHOWN // 2), SHOWN)

    def _card(self, name: str, path: str, decoding: Mapping[str, Any]) -> str:
        captioner = self.captioners[name]
        config = captioner.loaded.config
        decoder = config.model.decoder
        about = f"{config.model.encoder.name}, {decoder.type.replace('_', ' ')}, step {captioner.loaded.step:,}"
        try:
            (caption,) = captioner.caption(path, attention=decoder.attends, **decoding)
        except UserError as reason:  # of options, and of words that this vocabulary lacks
            return cards.HTML.refusal(name, about, str(reason))
        return cards.card(name, about, caption)

    def _add_examples(self, gradio: Any, examples: Sequence[Path], file: Any) -> None:
        """Add thumbnails of the examples; a click on one drops its file."""
        thumbnails = []
        for path in examples:
            try:
                thumbnails.append(_within(open_picture(path, THUMBNAIL), THUMBNAIL))
            except UnreadableImage as reason:
                raise UserError(f"the example {path} is no picture ({reason}); take it out of the folder") from None
        shown = cards.thumbnails(thumbnails)
        strip = gradio.HTML(shown, js_on_load=CHOOSE, apply_default_css=False, elem_id="examples")

        def choose(event: Any) -> str:
            return str(examples[event.index].resolve())

        choose.__annotations__["event"] = gradio.EventData  # by this gradio knows what to pass
        strip.select(choose, None, file, queue=False, show_progress="hidden", api_visibility="private")


def _within(picture: Image.Image, side: int) -> Image.Image:
    picture.thumbnail((side, side))
    return picture


def _theme(gradio: Any) -> Any:
    """Gradio's own theme, with the fonts of whoever looks: no page waits for a font."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gradio.themes.Default(primary_hue="amber", neutral_hue="stone", radius_size="lg", **fonts)


def _gradio(host: str) -> Any:
    """Import gradio, told before to report nothing to anyone, and to ask no proxy for the page's own address."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost,127.0.0.1,::1", host]))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import gradio

    return gradio
