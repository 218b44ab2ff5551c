"""Write an artefact: one folder that needs no run, no shards and no pickle. `imgcap.models.trained` reads it."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor

import imgcap
from imgcap.checkpoint.layout import fingerprints, seal_of
from imgcap.checkpoint.save import put_in_place, without_sharing
from imgcap.config.decoding import DecodeOptions
from imgcap.errors import UserError, needs
from imgcap.evaluation.results import scores_of, write_json
from imgcap.evaluation.signature import parts_decided_by
from imgcap.export.card import model_card
from imgcap.export.graphs import trace, write_onnx, write_programs
from imgcap.files.durable import sync, write_whole
from imgcap.models.trained import (
    ARTEFACT_FORMAT,
    FILES,
    MANIFEST,
    SCORES,
    VOCABULARY,
    WEIGHTS,
    LoadedCaptioner,
    load_captioner,
)
from imgcap.text.tokeniser import Tokeniser

CARD = "README.md"  # in no fingerprint: its owner may edit it
OWNED = SAMPLES, ONNX, PROGRAMS = ("samples", "onnx", "programs")  # subfolders, each written anew
# What an image goes through and a caption may be; where the run's own shards lie is nobody else's business.
_DATA_KEYS = {"image_size", "interpolation", "captions_per_image", "max_tokens", "language"}
_SHEET = re.compile(r"^(?P<label>.+)-(?P<step>\d{8,})\.png$")


def export_run(
    run: Path, out: Path, which: Literal["best", "latest"] = "best", onnx: bool = False, programs: bool = False
) -> tuple[int, dict[str, str]]:
    """Write the artefact of a run's best (or latest) checkpoint to `out`, whole or not at all; replaces an older one.

    Returns the checkpoint's step, and why scores are left out, by label: they are of another checkpoint, or came about
    otherwise. Raises `UserError` for what is no sound run, for weights that aren't finite, and where `out` is or holds
    something else already.
    """
    if onnx:
        needs("--onnx", "onnx", "onnxscript")  # torch's exporter imports them
    loaded = load_captioner(run, which=which)
    if not loaded.is_run:
        raise UserError(f"{run} is an artefact already; name the run that it came from")
    weights = without_sharing(loaded.model.state_dict())
    _check_finite(weights, f"step {loaded.step} of {run}")
    config = loaded.config
    decided = parts_decided_by(DecodeOptions.like_evaluation(config.eval), config.data, config.train.precision)
    scores, others = scores_of(run, loaded.step, decided)
    with _whole_folder(out) as folder:
        write_whole(folder / WEIGHTS, safetensors.torch.save(weights))
        loaded.vocabulary.save(folder / VOCABULARY)
        write_json(folder / SCORES, scores)
        pictures = _copy_samples(run / "samples", folder / SAMPLES, loaded.step)
        graphs = trace(loaded) if onnx or programs else []
        if onnx:
            write_onnx(graphs, folder / ONNX)
        if programs:
            write_programs(graphs, folder / PROGRAMS)
        written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        write_json(folder / MANIFEST, _manifest(loaded, fingerprints(folder, written)))
        (folder / CARD).write_text(model_card(out.resolve().name, loaded, scores, pictures), encoding="utf-8")
    return loaded.step, others


def _manifest(loaded: LoadedCaptioner, files: Mapping[str, Any]) -> dict[str, Any]:
    config = loaded.config.model_dump(mode="json")
    config["model"]["encoder"]["weights"] = None  # they are in the artefact
    content = {
        "format": ARTEFACT_FORMAT,
        "made_by": f"imgcap {imgcap.__version__}",
        "name": config["name"],
        "step": loaded.step,
        **({"shards": loaded.trained_on.for_others().as_json()} if loaded.trained_on else {}),
        **({"objective": loaded.objective} if loaded.objective else {}),
        "model": config["model"],
        "encoder": {"made_by": loaded.model.encoder.made_by, "sha256": loaded.model.encoder.sha256()},
        "data": {key: value for key, value in config["data"].items() if key in _DATA_KEYS},
        "tokeniser": Tokeniser(loaded.config.data.language).name,
        "eval": config["eval"],
        "train": {"precision": config["train"]["precision"]},  # scores come about in it
        "files": files,
    }
    return {**content, "seal": seal_of(content)}


def _check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in weights.items():
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            raise UserError(
                f"{name} of {source} holds {wrong} numbers that are NaN or infinite; export another checkpoint "
                "(--which latest or best), or train again with --debug to find where they come from"
            )


def _copy_samples(source: Path, target: Path, step: int) -> dict[str, int]:
    """Copy of each sort of sheet the one of this step, else the newest; returns the steps by file name."""
    found: dict[str, dict[int, Path]] = {}
    for path in source.glob("*.png"):
        if match := _SHEET.match(path.name):
            found.setdefault(match["label"], {})[int(match["step"])] = path
    copied = {}
    for label, sheets in sorted(found.items()):
        target.mkdir(exist_ok=True)
        shown = step if step in sheets else max(sheets)
        shutil.copyfile(sheets[shown], target / f"{label}.png")
        copied[f"{SAMPLES}/{label}.png"] = shown
    return copied


def _refuse_others(out: Path) -> None:
    """Raise `UserError` for a folder that is no artefact, or holds what no export wrote: all in it would be gone."""
    try:
        is_artefact = "made_by" in json.loads((out / MANIFEST).read_bytes())  # another format's and a damaged one's too
    except (OSError, ValueError, TypeError, RecursionError):
        is_artefact = False
    if not is_artefact:
        raise UserError(f"{out} is there already and is no artefact; name another folder with --out")
    if strange := sorted({path.name for path in out.iterdir()} - {*FILES, CARD, *OWNED}):
        raise UserError(
            f"the artefact {out} holds {strange[0]}, which no export wrote; take it out, or name another folder"
        )


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Context of a folder to fill, which gets its name when all is on the disk; until then an older artefact stays."""
    out = out.resolve()
    if out.exists() and (out.is_file() or any(out.iterdir())):
        _refuse_others(out)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            sync(path)
        put_in_place(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
