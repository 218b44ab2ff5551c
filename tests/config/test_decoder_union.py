"""`model.decoder` is one of several sections, by its type: what is read, dropped, refused, and in which words."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imgcap.config.load import as_yaml, load_config
from imgcap.config.model import DECODERS, AttentionLSTMConfig, LSTMConfig, TransformerConfig
from imgcap.config.run import Config
from imgcap.errors import UserError

FLAT = {  # what config.yaml and config.json of 0.1.0 hold, whatever the type
    "type": "attention_lstm",
    "layers": 1,
    "embed_dim": 512,
    "hidden_dim": 512,
    "attention_dim": 512,
    "query": "before",
    "attention": "additive",
    "dropout": 0.5,
    "init_state": "mean",
    "gate": True,
    "output": "linear",
    "feature_dim": None,
    "image_layers": 0,
}


def read(*overrides: str, decoder: dict[str, Any] | None = None, tmp_path: Any = None) -> Config:
    if decoder is None:
        return load_config(None, list(overrides))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"model": {"decoder": decoder}}))
    return load_config(path, list(overrides))


def refusal(*overrides: str, **options: Any) -> str:
    with pytest.raises(UserError) as raised:
        read(*overrides, **options)
    return str(raised.value)


flat_sections = st.fixed_dictionaries(
    {},
    optional={
        "layers": st.integers(1, 4),
        "embed_dim": st.integers(1, 2048),
        "attention_dim": st.integers(1, 2048),
        "dropout": st.floats(0, 0.99),
        "init_state": st.sampled_from(["zeros", "mean"]),
        "gate": st.booleans(),
        "output": st.sampled_from(["linear", "deep"]),
        "feature_dim": st.none() | st.integers(1, 2048),
        "image_layers": st.integers(0, 4),
    },
)


@given(st.sampled_from(list(DECODERS)), flat_sections)
def test_a_flat_section_reads_as_before(kind: str, changed: dict[str, Any]) -> None:
    written = FLAT | changed | {"type": kind}
    decoder = Config.model_validate({"model": {"decoder": written}}).model.decoder
    assert type(decoder) is DECODERS[kind]
    defaults = {name: field.default for name, field in DECODERS[kind].model_fields.items()}
    assert decoder.model_dump() == {key: written.get(key, default) for key, default in defaults.items()}
    again = Config.model_validate(yaml.safe_load(as_yaml(Config.model_validate({"model": {"decoder": written}}))))
    assert again.model.decoder == decoder


def test_without_a_type_it_attends() -> None:
    assert read().model.decoder == AttentionLSTMConfig()
    assert read("model.decoder={gate: false}").model.decoder == AttentionLSTMConfig(gate=False)
    assert read("model.decoder.image_layers=2").model.decoder == AttentionLSTMConfig(), "a key of the other LSTM"
    assert "type" not in read("model.decoder.gate=false").model.decoder.model_fields_set


def test_an_override_changes_the_type_of_a_file(tmp_path) -> None:
    attending = {"type": "attention_lstm", "layers": 2, "gate": False, "attention_dim": 64, "output": "deep"}
    assert read("model.decoder.type=lstm", decoder=attending, tmp_path=tmp_path).model.decoder == LSTMConfig(layers=2)
    plain = {"type": "lstm", "image_layers": 2, "hidden_dim": 64}
    found = read("model.decoder.type=attention_lstm", "model.decoder.gate=false", decoder=plain, tmp_path=tmp_path)
    assert found.model.decoder == AttentionLSTMConfig(hidden_dim=64, gate=False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["type=gru"],
            "model.decoder.type on the command line must be one of lstm, attention_lstm, transformer; found 'gru'",
        ),
        (
            ["type=[lstm]"],
            "model.decoder.type on the command line must be one of lstm, attention_lstm, transformer; found [lstm]",
        ),
        (
            ["type=lstm", "attention=dot"],
            "the command line: model.decoder.attention=dot is for type=attention_lstm; leave",
        ),
        (
            ["type=lstm", "query=after"],
            "model.decoder.query=after is for type=attention_lstm; leave it out with type=lstm",
        ),
        (["attention=dot"], "the command line: model.decoder.attention=dot is for query=after; with query=before"),
        (["type=lstm", "gate=maybe"], "model.decoder.gate on the command line must be true or false; found 'maybe'"),
        (
            ["type=lstm", "attention_dim=0"],
            "model.decoder.attention_dim on the command line must be a whole number, at",
        ),
        (["image_layers=-1"], "model.decoder.image_layers on the command line must be a whole number, at"),
        (["layers=0"], "model.decoder.layers on the command line must be a whole number, at least 1; found '0'"),
        (["type=lstm", "image_layer=1"], "unknown key model.decoder.image_layer on the command line; the nearest"),
        (["heads=2"], "model.decoder.heads on the command line is no key of type=attention_lstm, which has layers, "),
        (["type=transformer", "hidden_dim=64"], "hidden_dim on the command line is no key of type=transformer, which"),
        (["head=8"], "unknown key model.decoder.head on the command line; the nearest valid one is model.decoder."),
    ],
)
def test_mistakes_are_named_without_the_type_in_the_key(overrides: list[str], message: str) -> None:
    found = refusal(*(f"model.decoder.{override}" for override in overrides))
    assert message in found and "decoder.lstm" not in found and "decoder.attention_lstm" not in found


def test_keys_of_others_in_a_transformer_s_own_file_are_refused(tmp_path) -> None:
    """Where the type stands beside them; what another file's type had before an override changed it goes."""
    found = refusal(decoder={"type": "transformer", "embed_dim": 64}, tmp_path=tmp_path)
    assert (
        found.startswith("model.decoder.embed_dim in ") and "is no key of type=transformer, which has layers" in found
    )
    changed = read("model.decoder.type=transformer", decoder={"type": "lstm", "embed_dim": 64}, tmp_path=tmp_path)
    assert changed.model.decoder == TransformerConfig()


def test_what_is_no_section_is_refused() -> None:
    assert "model.decoder on the command line" in refusal("model.decoder=5")
    assert "model.decoder.type" in refusal("model.decoder={type: null}")


def test_a_file_with_a_mistake_is_named(tmp_path) -> None:
    found = refusal(decoder=FLAT | {"type": "lstm", "query": "after"}, tmp_path=tmp_path)
    assert found.startswith(f"{tmp_path}/config.yaml:14: model.decoder.query=after is for type=attention_lstm")
