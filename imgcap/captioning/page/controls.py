"""The page's controls of decoding: one for each of the `DecodeOptions`, shown where it means something."""

from collections.abc import Sequence
from typing import Any

from imgcap.config.decoding import METHODS, OPTIONS, DecodeOptions, methods_of

_SPOKEN = {"beam": "Beam", "greedy": "Greedy", "sample": "Sampling", "diverse": "Diverse"}
_OF_A_METHOD = {
    "beam": "Beams",
    "best": "Captions shown",
    "groups": "Groups (0: one a beam)",
    "diversity": "Diversity",
    "samples": "Samples",
    "temperature": "Temperature",
    "top_p": "Top p",
    "top_k": "Top k (0: all words)",
    "seed": "Seed",
}
_OF_ALL = {
    "length_penalty": "Length penalty",
    "min_length": "Words at least",
    "no_repeat_ngram": "Never twice: n words in a row (0: off)",
}
_WORDS = {"required": "Words that must occur", "banned": "Words that must not"}
_UNK = "Unknown words: captions may have holes"
_OPTIONS = {option.name: option for option in OPTIONS}
_NONE_IS_0 = ("groups", "top_k")
_AT_MOST = {"beam": 20, "best": 20, "groups": 20, "samples": 20}  # the page is for looking
_STEPS = {"top_p": 0.05}  # of other fractions 0.1


def _range_of(name: str) -> dict[str, Any]:
    """Settings of a number's control: a whole number's precision, or a fraction's step, and its bounds."""
    option = _OPTIONS[name]
    if option.type == "int":
        whole = {"minimum": 0 if name in _NONE_IS_0 else option.least, "precision": 0}
        return whole | ({"maximum": _AT_MOST[name]} if name in _AT_MOST else {})
    least = option.least if option.above is None else option.above + 0.01
    fraction = {"minimum": least, "step": _STEPS.get(name, 0.1)}
    return fraction | ({} if option.most is None else {"maximum": option.most})


def add_controls(gradio: Any, start: DecodeOptions) -> dict[str, Any]:
    """Add the controls where the page is being laid out; return them by option. They begin as `start` has them."""

    def add(name: str, kind: Any, **settings: Any) -> None:
        controls[name] = kind(visible=start.method in methods_of(name), min_width=120, elem_id=name, **settings)

    def numbers(labels: dict[str, str]) -> None:
        with gradio.Row():
            for name, label in labels.items():
                value, settings = start.width if name == "beam" else getattr(start, name) or 0, _range_of(name)
                if "maximum" in settings:
                    settings["maximum"] = max(settings["maximum"], value)
                add(name, gradio.Number, value=value, label=label, **settings)

    def show(chosen: str) -> list[Any]:
        return [gradio.update(visible=chosen in methods_of(name)) for name in controls if name != "method"]

    controls: dict[str, Any] = {}
    with gradio.Accordion("Decoding"):
        choices = [(_SPOKEN[name], name) for name in METHODS]
        add("method", gradio.Radio, choices=choices, value=start.method, container=False)
        numbers(_OF_A_METHOD)
        with gradio.Accordion("Length and words", open=False):
            numbers(_OF_ALL)
            for name, label in _WORDS.items():
                add(name, gradio.Textbox, value="", label=label, placeholder="with spaces between", max_lines=1)
            add("unk", gradio.Checkbox, value=bool(start.unk), label=_UNK)
    method, *others = controls.values()
    method.change(show, method, others, queue=False, show_progress="hidden", api_visibility="private")
    return controls


def chosen_options(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Turn what the controls say into options of `PictureCaptioner.caption`: those of the method; none where empty."""
    said = dict(zip(names, values, strict=True))
    options = {name: value for name, value in said.items() if said["method"] in methods_of(name)}
    for name in _WORDS.keys() & options.keys():
        options[name] = tuple(options[name].split())
    for name in _NONE_IS_0:
        options[name] = options.get(name) or None
    return options
