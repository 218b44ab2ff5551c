"""A run that begins with the weights of another one, or of an artefact: `init_from`.

The source counts until the run has a checkpoint. From then on the run's own folder says what model and vocabulary
it has, so that it goes on where the source is gone.
"""

import json
import sys
from pathlib import Path

from imgcap.config.model import ModelConfig
from imgcap.config.run import Config
from imgcap.errors import UserError, is_main_process
from imgcap.models.captioner import Captioner, build_captioner
from imgcap.models.encoders.networks import input_of
from imgcap.models.trained import config_of, load_captioner
from imgcap.models.transfer import transferred
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.resumption import Resumption

# Keys of the model that change no weight's name, shape or meaning.
FREE = {"encoder": ("weights", "train", "output_stride", "tokens", "drop_path", "recompute"), "decoder": ("dropout",)}


def origin(init_from: Path | None, resumption: Resumption) -> Path | None:
    """Folder of the model and vocabulary that the run has: its own once it has begun, else `init_from`, if any."""
    if init_from is None:
        return None
    if init_from.resolve() == resumption.run.resolve():
        raise UserError(f"init_from={init_from} is this run itself; choose another name=, or leave init_from out")
    return resumption.run if resumption.begun else init_from


def adopted_decoder(config: ModelConfig, trained: Path) -> list[str]:
    """The type of the decoder of `trained` as an override, where `config` doesn't say one."""
    if "type" in config.decoder.model_fields_set:
        return []
    return [f"model.decoder.type={config_of(trained).model.decoder.type}"]


def adopted_model(config: ModelConfig, trained: Path) -> str:
    """The model section of `trained` as an override, with what `config` says itself; UserError where they differ."""
    given = config.model_dump(mode="json", exclude_unset=True)
    model = config_of(trained).model.model_dump(mode="json")
    differing = [
        f"model.{part}.{key} is {value}, there {model[part][key]}"
        for part, keys in given.items()
        for key, value in keys.items()
        if key not in FREE[part] and key in model[part] and value != model[part][key]
    ]
    if differing:
        raise UserError(
            f"the weights of {trained} are those of another model: {'; '.join(differing)}; leave these keys out, or "
            "train anew without init_from"
        )
    return f"model={json.dumps({part: keys | given.get(part, {}) for part, keys in model.items()})}"


def adopted_input(config: Config, trained: Path | None) -> list[str]:
    """What pictures the encoder takes, as overrides of the keys of `data` that `config` doesn't set itself.

    A network that takes any size begins with that of its library's weights, another with what `trained`, if any, had.
    """
    own = input_of((config if trained is None else config_of(trained)).model.encoder)
    size, interpolation = own.size, own.interpolation
    if trained is not None:
        data = config_of(trained).data
        size, interpolation = size if own.any_size else data.image_size, data.interpolation
    own_values = {"image_size": size, "interpolation": interpolation}
    return [f"data.{key}={value}" for key, value in own_values.items() if key not in config.data.model_fields_set]


def initial_captioner(
    config: ModelConfig, init_from: Path | None, vocabulary: Vocabulary
) -> tuple[Captioner, str | None]:
    """Build what a new run begins with, and say what it was trained for where that isn't cross-entropy alone.

    It has its source's weights, or random ones behind a pretrained encoder.
    """
    if init_from is None:
        return build_captioner(config, len(vocabulary)), None
    source = load_captioner(init_from)
    if is_main_process():
        known = len(set(vocabulary.words) & set(source.vocabulary.words))
        told = f"which knows {known:,} of the {len(vocabulary):,} words"
        print(f"begins with {init_from}, step {source.step}, {told}", file=sys.stderr, flush=True)
    return transferred(source, config, vocabulary), source.objective
