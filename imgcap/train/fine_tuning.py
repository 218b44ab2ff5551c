"""A run that begins with the weights of another one, or of an artefact: `init_from`.

The source counts until the run has a checkpoint. From then on the run's own folder says what model and vocabulary
it has, so that it goes on where the source is gone.
"""

import json
import sys
from pathlib import Path

from imgcap import checkpoint
from imgcap.config.run import Config
from imgcap.errors import UserError, is_main_process
from imgcap.models import Captioner, build_captioner
from imgcap.models.artefact import config_of, load_captioner
from imgcap.models.transfer import transferred
from imgcap.shards import TokenCounts
from imgcap.text import Vocabulary, adapted

# Keys of the model that change no weight's name, shape or meaning.
FREE = {"encoder": ("weights", "train", "output_stride", "recompute"), "decoder": ("dropout",)}


def adopted_decoder(config: Config, resume: str) -> list[str]:
    """The type of the source's decoder as an override, where `config` doesn't say one."""
    if "type" in config.model.decoder.model_fields_set:
        return []
    return [f"model.decoder.type={config_of(_origin(config, resume)).model.decoder.type}"]


def adopted_model(config: Config, resume: str) -> str:
    """The source's model section as an override, with what `config` itself says of it; UserError where it can't."""
    origin = _origin(config, resume)
    given = config.model_dump(mode="json", exclude_unset=True).get("model", {})
    model = config_of(origin).model.model_dump(mode="json")
    differing = [
        f"model.{part}.{key} is {value}, there {model[part][key]}"
        for part, keys in given.items()
        for key, value in keys.items()
        if key not in FREE[part] and key in model[part] and value != model[part][key]
    ]
    if differing:
        raise UserError(
            f"the weights of {origin} are those of another model: {'; '.join(differing)}; leave these keys out, or "
            "train anew without init_from"
        )
    return f"model={json.dumps({part: keys | given.get(part, {}) for part, keys in model.items()})}"


def adapted_vocabulary(own: Vocabulary, counts: TokenCounts, config: Config, resume: str) -> Vocabulary:
    """With `init_from`, what the run goes on with by `vocab.adapt`; `own` is what the data has by itself.

    Adapting what is adapted changes nothing, so that a resumed run finds its own vocabulary again.
    """
    if config.init_from is None:
        return own
    trained = Vocabulary.load(_origin(config, resume) / "vocab.json")
    return adapted(trained, own, counts.counts, config.vocab.adapt)


def initial_captioner(config: Config, vocabulary: Vocabulary) -> Captioner:
    """What a new run begins with: its source's weights, or random ones behind a pretrained encoder."""
    if config.init_from is None:
        return build_captioner(config.model, len(vocabulary))
    source = load_captioner(config.init_from)
    if is_main_process():
        known = len(set(vocabulary.words) & set(source.vocabulary.words))
        trained = "" if source.step is None else f", step {source.step}"
        told = f"begins with {config.init_from}{trained}, which knows {known:,} of the {len(vocabulary):,} words"
        print(told, file=sys.stderr, flush=True)
    return transferred(source, config.model, vocabulary)


def _origin(config: Config, resume: str) -> Path:
    assert config.init_from is not None
    if config.init_from.resolve() == config.run_path.resolve():
        raise UserError(
            f"init_from={config.init_from} is this run itself; choose another name=, or leave init_from out"
        )
    begun = resume != "no" and checkpoint.newest(config.run_path / "checkpoints") is not None
    return config.run_path if begun else config.init_from
