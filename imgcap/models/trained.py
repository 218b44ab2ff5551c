"""Trained captioners, loaded from the folder of a run, from an artefact, or by a name on the Hugging Face hub.

A run folder holds `config.yaml`, `vocab.json` and `checkpoints/`. An artefact is what `imgcap.export` writes of one:
`model.safetensors`, `vocab.json`, `scores.json` and `config.json`, which says what the model is, how it decodes, and
the sha256 of the others. Nothing is unpickled and no pretrained weights are fetched: all weights are in the checkpoint.

Every command opens its models here, so one model says the same through all of them: it computes as it was scored, in
`train.precision` and with the stages folded that were frozen in training.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from imgcap.checkpoint.layout import DamagedCheckpoint, newest_checkpoint, seal_of, verify
from imgcap.checkpoint.load import Checkpoint, load_checkpoint
from imgcap.config.load import load_config
from imgcap.config.run import Config
from imgcap.errors import UserError, nearest, reason_of
from imgcap.files.hub import download, is_hub_name
from imgcap.models.captioner import Captioner
from imgcap.models.precision import autocast, set_float32_matmul
from imgcap.shards.identity import SetIdentity
from imgcap.text.vocabulary import Vocabulary

ARTEFACT_FORMAT = 1
WEIGHTS, VOCABULARY, SCORES, MANIFEST = "model.safetensors", "vocab.json", "scores.json", "config.json"
SECTIONS = ("name", "model", "data", "eval", "train")
FILES = [WEIGHTS, VOCABULARY, SCORES, MANIFEST]  # what is read of one
_EMBEDDING = "decoder.embedding.weight"
Which = Literal["best", "latest"]  # checkpoint of a run


@dataclass(frozen=True)
class LoadedCaptioner:
    """A captioner in eval mode, its words, and the configuration it was trained with."""

    model: Captioner
    vocabulary: Vocabulary
    config: Config
    path: Path
    step: int  # of training
    trained_on: SetIdentity | None = None  # data.shards of its training; none where an older imgcap didn't note it
    objective: str | None = None  # of its training, as scores are signed with it; none: cross-entropy

    @property
    def is_run(self) -> bool:
        return (self.path / "config.yaml").is_file()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context of the model's GPU, and of the precision that it was trained and scored in: its only one."""
        precision = self.config.train.precision
        set_float32_matmul(precision)  # each time: this process may have another model too
        on_gpu = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with on_gpu, autocast(self.device, precision):
            yield


def open_trained(
    name: Path | str,
    device: torch.device | str = "cpu",
    which: Which = "best",
    overrides: Sequence[str] = (),
    revision: str | None = None,
) -> LoadedCaptioner:
    """Load a run or an artefact from its folder, or an artefact from the hub, as user/name.

    `which` is for runs, `revision` for the hub, and `overrides` are dotted keys of its configuration. Raises
    `UserError` where something is missing or damaged, or doesn't fit together.
    """
    path = Path(os.path.expanduser(name))
    if not path.exists() and is_hub_name(str(name)) and not _models_in(path.parent):  # beside others it is misspelt
        path = Path(download(str(name), FILES, revision))
    return load_captioner(path, device, which, overrides)


def load_captioner(
    path: Path | str, device: torch.device | str = "cpu", which: Which = "best", overrides: Sequence[str] = ()
) -> LoadedCaptioner:
    """Load a run or an artefact from its folder; see `open_trained`."""
    path = Path(path)
    config = config_of(path, overrides)
    weights: Mapping[str, Tensor]
    if (path / MANIFEST).is_file():
        weights, step, trained_on, objective = _artefact_weights(path)
    else:
        if newest_checkpoint(path / "checkpoints") is None:
            raise UserError(
                f"no checkpoint in {path}/checkpoints yet, where one comes every checkpoint.every="
                f"{config.checkpoint.every}; wait for it, or go on with imgcap train --config {path}/config.yaml"
            )
        saved = load_checkpoint(path / "checkpoints", which)
        weights, step, trained_on = saved.model, saved.step, _set_of(saved, path)
        objective = saved.state.get("objective")
    vocabulary = Vocabulary.load(path / VOCABULARY)
    model = _fit(weights, config, vocabulary, path)
    return LoadedCaptioner(model.to(device).eval(), vocabulary, config, path, step, trained_on, objective)


def config_of(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run or an artefact; `overrides` are dotted keys of it."""
    if (path / MANIFEST).is_file():
        manifest = _read_manifest(path)
        return load_config(None, [*(f"{name}={json.dumps(manifest[name])}" for name in SECTIONS), *overrides])
    if (path / "config.yaml").is_file():
        return load_config(path / "config.yaml", list(overrides))
    found = "no config.yaml or config.json" if path.is_dir() else "no folder"
    raise UserError(f"{path} is no run and no artefact ({found} there); {_instead(path)}")


def _models_in(folder: Path) -> list[str]:
    """The runs and artefacts that lie in a folder, by name."""
    with suppress(OSError):
        return sorted(str(path.parent) for name in (MANIFEST, "config.yaml") for path in folder.glob(f"*/{name}"))
    return []


def _instead(path: Path) -> str:
    """Name what there is in place of what is no model."""
    if inside := _models_in(path):
        return f"name one of those in it, such as {inside[0]}"
    there = [*_models_in(path.parent), *_models_in(Path("runs"))]
    return f"the nearest is {nearest(str(path), there)}" if there else "name a folder like runs/demo"


def _set_of(saved: Checkpoint, run: Path) -> SetIdentity | None:
    """The set that a checkpoint was trained on; one of 0.1.0 says so in its plan, unless it mixed several."""
    if noted := SetIdentity.from_json(saved.state.get("shards")):
        return noted
    data = config_of(run).data
    sha256 = saved.state.get("plan", {}).get("manifest_sha256")
    return SetIdentity(Path(data.shards).name, sha256, data.shards) if sha256 and not data.also else None


def _artefact_weights(path: Path) -> tuple[Mapping[str, Tensor], int, SetIdentity | None, str | None]:
    """Weights of an artefact, the step that they are of, its set and objective, after a look at all that is read."""
    manifest = _read_manifest(path)
    try:  # the graphs are checked by what runs them, and the pictures are for people
        verify(path, {name: manifest["files"][name] for name in (WEIGHTS, VOCABULARY, SCORES)})
    except DamagedCheckpoint as reason:
        raise UserError(f"{path} is a damaged artefact: {reason}; fetch it anew, or export it again") from None
    trained_on = SetIdentity.from_json(manifest.get("shards"))
    return safetensors.torch.load_file(path / WEIGHTS), manifest["step"], trained_on, manifest.get("objective")


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read an artefact's config.json; UserError where it is of another format or not as it was written."""
    try:
        content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, seal = content["format"], content.pop("seal", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"is not that of an artefact ({reason_of(error)}); export it again"
        raise UserError(f"{path}/{MANIFEST} {told}") from None
    if version != ARTEFACT_FORMAT:
        maker = content.get("made_by", "another imgcap")
        raise UserError(
            f"{path} is an artefact of format {version}, this imgcap reads {ARTEFACT_FORMAT}; it was made by {maker}: "
            "install that one, or export it again with this one"
        )
    if seal != seal_of(content):
        raise UserError(
            f"{path} is a damaged artefact: {MANIFEST} has changed since it was written; "
            "fetch it anew, or export it again"
        )
    return content


def _fit(weights: Mapping[str, Tensor], config: Config, vocabulary: Vocabulary, path: Path) -> Captioner:
    trained = len(weights[_EMBEDDING]) if _EMBEDDING in weights else len(vocabulary)
    if trained != len(vocabulary):
        raise UserError(
            f"{path}/vocab.json has {len(vocabulary)} entries and the model was trained with {trained}; "
            "restore the vocab.json that belongs to it"
        )
    try:
        model = Captioner(config.model, len(vocabulary))
        model.encoder.check_size(config.data.image_size)
    except UserError as error:
        raise UserError(f"the model that {path} describes can't be built: {error}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n", 2)[1:2]).strip() or str(error)
        raise UserError(
            f"the weights in {path} are not those of the model its configuration describes ({reason}); "
            "use the configuration it was trained with"
        ) from None
    return model
