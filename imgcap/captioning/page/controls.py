"""The page's controls of decoding: one for each of the `DecodeOptions`, shown where it means something."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgcap.decoding.options import DecodeOptions, methods_of

METHODS = [("Beam", "beam"), ("Greedy", "greedy"), ("Sampling", "sample"), ("Diverse", "diverse")]
_OF_A_METHOD: dict[str, dict[str, Any]] = {
    "beam": {"label": "Beams", "minimum": 1, "maximum": 20, "precision": 0},
    "best": {"label": "Captions shown", "minimum": 1, "maximum": 20, "precision": 0},
    "groups": {"label": "Groups (0: one a beam)", "minimum": 0, "maximum": 20, "precision": 0},
    "diversity": {"label": "Diversity", "minimum": 0, "step": 0.1},
    "samples": {"label": "Samples", "minimum": 1, "maximum": 20, "precision": 0},
    "temperature": {"label": "Temperature", "minimum": 0.01, "step": 0.1},
    "top_p": {"label": "Top p", "minimum": 0.01, "maximum": 1, "step": 0.05},
    "top_k": {"label": "Top k (0: all words)", "minimum": 0, "precision": 0},
    "seed": {"label": "Seed", "minimum": 0, "precision": 0},
}
_OF_ALL: dict[str, dict[str, Any]] = {
    "length_penalty": {"label": "Length penalty", "minimum": 0, "step": 0.1},
    "min_length": {"label": "Words at least", "minimum": 0, "precision": 0},
    "no_repeat_ngram": {"label": "Never twice: n words in a row (0: off)", "minimum": 0, "precision": 0},
}
_WORDS = {"required": "Words that must occur", "banned": "Words that must not"}
_NONE_IS_0 = ("groups", "top_k")


def add_controls(gradio: Any, start: DecodeOptions) -> dict[str, Any]:
    """Components by option, put where the page is being laid out; they begin as `start` has them."""

    def add(name: str, kind: Any, **settings: Any) -> None:
        controls[name] = kind(visible=start.method in methods_of(name), min_width=120, elem_id=name, **settings)

    def numbers(options: Mapping[str, dict[str, Any]]) -> None:
        with gradio.Row():
            for name, settings in options.items():
                value = start.width if name == "beam" else getattr(start, name) or 0
                if "maximum" in settings:
                    settings = settings | {"maximum": max(settings["maximum"], value)}
                add(name, gradio.Number, value=value, **settings)

    def show(chosen: str) -> list[Any]:
        return [gradio.update(visible=chosen in methods_of(name)) for name in controls if name != "method"]

    controls: dict[str, Any] = {}
    with gradio.Accordion("Decoding"):
        add("method", gradio.Radio, choices=METHODS, value=start.method, container=False)
        numbers(_OF_A_METHOD)
        with gradio.Accordion("Length and words", open=False):
            numbers(_OF_ALL)
            for name, label in _WORDS.items():
                add(name, gradio.Textbox, value="", label=label, placeholder="with spaces between", max_lines=1)
    method, *others = controls.values()
    method.change(show, method, others, queue=False, show_progress="hidden", api_visibility="private")
    return controls


def chosen_options(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What the controls say, as options for `PictureCaptioner.caption`: those of the method; none where left empty."""
    said = dict(zip(names, values, strict=True))
    options = {name: value for name, value in said.items() if said["method"] in methods_of(name)}
    for name in _WORDS.keys() & options.keys():
        options[name] = tuple(options[name].split())
    for name in _NONE_IS_0:
        options[name] = options.get(name) or None
    return options
