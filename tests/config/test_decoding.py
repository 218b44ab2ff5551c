"""The options of decoding: written once, and read from there by flags, controls and signature."""

import argparse
import pickle
import shlex
from pathlib import Path
from typing import Any

import pytest

from imgcap.commands.decoding_flags import add_decoding, as_typed, told_by_flags
from imgcap.config.decoding import METHODS, OPTIONS, SHARED, DecodeOptions, OptionMistake, methods_of
from imgcap.config.evaluation import EvalConfig
from imgcap.config.load import load_config
from imgcap.errors import UserError

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NAMES = [option.name for option in OPTIONS]


def test_every_option_is_said_once_and_in_one_line() -> None:
    assert list(DecodeOptions.model_fields) == NAMES
    for option in OPTIONS:
        assert option.description and "\n" not in option.description
        assert set(option.methods) <= set(METHODS) and option.methods == methods_of(option.name)
    assert len({option.description for option in OPTIONS}) == len(OPTIONS)


def test_what_evaluation_shares_has_the_same_range_and_default() -> None:
    for name in SHARED:
        ours, theirs = DecodeOptions.model_fields[name], EvalConfig.model_fields[name]
        if name != "beam":
            assert (ours.default, ours.description, ours.metadata) == (
                theirs.default,
                theirs.description,
                theirs.metadata,
            )
    assert DecodeOptions().width == EvalConfig().beam


@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_the_ends_of_a_range_are_refused_beyond(option: Any) -> None:
    beyond = [option.above, None if option.least is None else option.least - 1, option.most and option.most + 1]
    for value in beyond:
        if value is not None:
            with pytest.raises(UserError, match=f"^{option.name}={value} "):
                DecodeOptions(**{"method": option.methods[0], option.name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beem": 3}, "no option 'beem' of decoding; the nearest is 'beam'"),
        ({"beam": "many"}, "beam='many' is not allowed; it is a whole number, at least 1, or null"),
        ({"banned": "dog"}, "banned='dog' is not allowed; it is a list$"),
        ({"beam": float("inf")}, "beam=inf is not allowed; it is a whole number, at least 1, or null"),
        ({"beam": 0, "min_length": -1}, "^beam=0 is too low; it is at least 1; min_length=-1 is too low; it is at "),
        ({"{beam}": 3}, "no option '{beam}' of decoding"),
    ],
)
def test_other_mistakes_are_one_line_too(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DecodeOptions(**options)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("option", [option for option in OPTIONS if option.type == "float"], ids=lambda each: each.name)
def test_fractions_are_finite(option: Any, value: float) -> None:
    with pytest.raises(OptionMistake, match=f"^{option.name}={value} must be a finite number, such as ") as caught:
        DecodeOptions(**{"method": option.methods[0], option.name: value})
    DecodeOptions(**{"method": option.methods[0], option.name: float(str(caught.value).rpartition(" ")[2])})


def test_a_penalty_of_the_configuration_is_finite() -> None:
    for value in ("inf", "nan"):
        with pytest.raises(UserError, match=r"^eval\.length_penalty on the command line must be a number, at least 0"):
            load_config(None, [f"eval.length_penalty={value}"])


@pytest.mark.parametrize("option", OPTIONS, ids=NAMES)
def test_a_flag_is_written_as_it_is_typed(option: Any) -> None:
    values = {"choice": METHODS, "words": (("dog", "<unk>", "it's"),), "int": (3, -1), "float": (0.5, 1e-7, -2.0)}
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    for value in values.get(option.type, (True,)):
        read = getattr(parser.parse_args(shlex.split(as_typed(option.name, value))), option.name)
        assert (tuple(read) if isinstance(read, list) else read) == value
    assert as_typed("beam") == "--beam" and as_typed("temperature", 0.0) == "--temperature 0"


@pytest.mark.parametrize(
    ("options", "python", "flags"),
    [
        ({"top_k": 0}, "top_k=0 is too low", "--top-k 0 is too low; it is at least 1"),
        ({"length_penalty": 1e3}, "length_penalty=1000.0 is", "--length-penalty 1000 is too large; it is below 100"),
        (
            {"method": "sample", "required": ("dog",)},
            "required=('dog',) is for method=beam or greedy; leave it out with method=sample",
            "--require dog is for --method beam or greedy; leave it out with --method sample",
        ),
        (
            {"required": ("a cat", "dog"), "banned": ("dog",)},
            "'dog' is both banned and required; leave it out of banned or required",
            "'dog' is both banned and required; leave it out of --ban or --require",
        ),
        (
            {"unk": True, "banned": ("<unk>",)},
            "<unk> is both banned and allowed; leave it out of banned",
            "<unk> is both banned and allowed; leave it out of --ban",
        ),
        ({"best": 6}, "best=6 is more than", "--best 6 is more than the beam of 5; raise --beam to 6"),
        ({"beam": 0, "min_length": -1}, "beam=0 is too low", "--beam 0 is too low; it is at least 1; --min-length -1 "),
        (
            {"method": "sample", "temperature": 0.0},
            "temperature=0.0 must be above 0; for the likeliest word take method=greedy",
            "--temperature 0 must be above 0; for the likeliest word take --method greedy",
        ),
    ],
)
def test_a_mistake_names_the_option_in_python_and_the_flag_where_one_was_typed(
    options: dict[str, Any], python: str, flags: str
) -> None:
    with pytest.raises(OptionMistake) as caught:
        DecodeOptions(**options)
    assert str(caught.value).startswith(python) and str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(UserError) as told, told_by_flags():
        DecodeOptions(**options)
    assert str(told.value).startswith(flags)


def test_a_signature_names_what_differs() -> None:
    assert DecodeOptions.like_evaluation(EvalConfig(), unk=True).signed() == {"beam": 5, "length_penalty": 1.0}
    told = DecodeOptions.like_evaluation(EvalConfig(beam=3, length_penalty=0, no_repeat_ngram=2), unk=True).signed()
    assert list(told.items()) == [("beam", 3), ("length_penalty", 0.0), ("no_repeat_ngram", 2)]
    drawn = DecodeOptions(method="sample", samples=2, seed=4).signed()
    assert drawn == {"length_penalty": 1.0, "method": "sample", "samples": 2, "seed": 4, "unk": "never"}


def test_unknown_words_are_for_scores_alone() -> None:
    assert not DecodeOptions.like_evaluation(EvalConfig()).unk
    assert DecodeOptions.like_evaluation(EvalConfig(unk=True)).unk
    with pytest.raises(UserError, match="<unk> is both banned and allowed"):
        DecodeOptions(unk=True, banned=("<unk>",))


def test_every_option_has_a_flag_and_a_control() -> None:
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    assert set(vars(parser.parse_args([]))) == set(NAMES)
    assert all(len(line) < 120 for line in parser.format_help().splitlines())
    gradio = pytest.importorskip("gradio")
    from imgcap.captioning.page.controls import add_controls

    with gradio.Blocks():
        assert set(add_controls(gradio, DecodeOptions())) == set(NAMES)
