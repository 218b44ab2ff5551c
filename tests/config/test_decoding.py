"""The options of decoding: written once, and read from there by flags, controls and signature."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from imgcap.commands.caption import add_decoding
from imgcap.config.decoding import METHODS, OPTIONS, SHARED, DecodeOptions, methods_of
from imgcap.config.evaluation import EvalConfig
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
        ({"method": "sample", "temperature": float("inf")}, "temperature=inf must be above 0"),
    ],
)
def test_other_mistakes_are_one_line_too(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DecodeOptions(**options)


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
