"""Mistakes about encoders, as `imgcap train` answers them: one line that says what there is instead, exit code 2."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

TIMM = "timm/vit_tiny_patch16_224"
MISTAKES = [
    (
        "model.encoder.name=resnet5O",
        "model.encoder.name=resnet5O is no encoder; the nearest is resnet50 (imgcap encoders lists all; timm's "
        "networks are named timm/... (pip install 'imgcap[timm]'))",
    ),
    (
        "model.encoder.name=timm/convnext_atoo",
        "model.encoder.name=timm/convnext_atoo is no encoder; the nearest is timm/convnext_atto (imgcap encoders "
        "lists all)",
    ),
    (
        "model.encoder.weights=HERE/resnet18.pth model.encoder.name=densenet121",
        "model.encoder.weights=HERE/resnet18.pth does not fit densenet121: it lacks features.conv0.weight (604 such); "
        "give a state dict of torchvision's densenet121",
    ),
    (
        f"model.encoder.weights=HERE/resnet18.pth model.encoder.name={TIMM} data.image_size=224",
        f"model.encoder.weights=HERE/resnet18.pth does not fit {TIMM}: it lacks cls_token (150 such); "
        "give a state dict of timm's vit_tiny_patch16_224",
    ),
    (
        "model.encoder.weights=HERE/astray.safetensors",
        "model.encoder.weights=HERE/astray.safetensors: bn1.bias holds numbers that are NaN or infinite (1 such "
        "tensors); take weights from before they went astray",
    ),
    (
        "model.encoder.name=vit_b_32 data.image_size=96",
        "data.image_size=96: vit_b_32 takes pictures of 224 pixels; set data.image_size=224",
    ),
    (
        f"model.encoder.name={TIMM} data.image_size=96",
        f"data.image_size=96: {TIMM} takes pictures of 224 pixels; set data.image_size=224, or "
        "model.encoder.input_size=96 too",
    ),
    (
        f"model.encoder={{name: {TIMM},input_size: 100}} data.image_size=100",
        f"model.encoder.input_size=100: {TIMM} takes a multiple of 16 pixels",
    ),
    ("model.encoder.name=densenet121 data.image_size=8", "data.image_size=8 is none that densenet121 takes ("),
    (
        "model.encoder.name=mobilenet_v2 train.unfreeze={layer4: 1}",
        "train.unfreeze.layer4: mobilenet_v2 has no stage 'layer4'; the nearest is 'stage4' (there are none, "
        "last_block, all, stage1, stage2, stage3, stage4, stage5)",
    ),
    (
        f"model.encoder.name={TIMM} data.image_size=224 train.unfreeze={{layer4: 1}}",
        f"train.unfreeze.layer4: {TIMM} has no stage 'layer4'; the nearest is 'stage4' (there are none, ",
    ),
    (
        "model.encoder.tokens=all",
        "model.encoder.tokens=all is for networks with a class token; resnet18 gives a grid alone",
    ),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of ResNet-18, and with those of a training that went astray."""
    folder = tmp_path_factory.mktemp("weights")
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, folder / "resnet18.pth")
    save_file(state | {"bn1.bias": torch.full((64,), math.nan)}, folder / "astray.safetensors")
    return folder


@pytest.mark.parametrize(("given", "line"), MISTAKES, ids=[given for given, _ in MISTAKES])
def test_a_mistake_is_one_line(
    given: str, line: str, here: Path, shards: Path, tiny: list[str], tmp_path: Path, command: Callable[..., Any]
) -> None:
    if "timm/" in given:
        pytest.importorskip("timm")
    settings = [setting.replace("HERE", str(here)).replace(":", ": ") for setting in given.replace(": ", ":").split()]
    ended = command("imgcap", "train", *tiny, f"data.shards={shards}", f"run_dir={tmp_path}/run", *settings)
    assert ended.mistake.startswith(f"error: {line.replace('HERE', str(here))}"), ended.mistake
    assert not (tmp_path / "run").exists()
