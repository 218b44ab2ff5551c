"""The encoder, the optimiser and the checkpoint, each beside its floor and the usual way.

Dimensions: B images, C colour channels, H W pixels.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imgcap.checkpoint.load import load_checkpoint
from imgcap.checkpoint.save import save_checkpoint
from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.config.training import OptimConfig
from imgcap.models.captioner import Captioner
from imgcap.models.precision import autocast, set_float32_matmul
from imgcap.training.optim.groups import build_optimizer
from tools.bench.decoder import DECODER, VOCABULARY
from tools.bench.timing import PRECISIONS, alternate, ceilings, row, timed

MODEL = ModelConfig(encoder=EncoderConfig(name="resnet50", weights=None), decoder=DECODER)
OPTIONS = {"images": 16, "image-size": 224, "compile": (False, "also compiled")}  # of the encoder


def bench_encoder(arguments: argparse.Namespace) -> dict[str, Any]:
    """The frozen encoder, a ResNet-50, against torchvision's own under autocast."""
    device, size = arguments.device, arguments.image_size
    encoder = Captioner(MODEL, VOCABULARY).encoder.to(device)
    usual = torchvision.models.resnet50(weights=None).to(device).eval()
    images_BCHW = torch.randint(256, (arguments.images, 3, size, size), dtype=torch.uint8, device=device)
    channels_last_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        usual(images_BCHW[:1].float())
    operations = counter.get_total_flops() * arguments.images

    @torch.no_grad()
    def usual_forward(precision: str) -> None:
        set_float32_matmul(precision)
        with autocast(device, precision):
            usual(images_BCHW.float() / 255)

    def our_forward(forward: Callable[[Tensor], Tensor], precision: str) -> None:
        set_float32_matmul(precision)
        with autocast(device, precision):
            encoder.fold()
            forward(channels_last_BCHW)

    rows, ours = [], {"ours": encoder.forward}
    if arguments.compile:
        ours["ours, compiled"] = torch.compile(encoder.forward, dynamic=False)
    for precision in PRECISIONS[device.type]:  # one after the other: each folds the weights in its own dtype
        runs = {"usual": partial(usual_forward, precision)}
        runs |= {name: partial(our_forward, forward, precision) for name, forward in ours.items()}
        seconds = alternate({name: timed(run, device) for name, run in runs.items()}, arguments.repeats)
        floor = {"floor_ms": ceilings(device).floor_ms(precision, operations)}
        for name, values in seconds.items():
            rows.append(row(f"{name}, {precision}", values, arguments.images, "images", seconds["usual"]) | floor)
    return {"rows": rows}


def bench_optimiser(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fused optimiser, AdamW over the decoder's weights, against torch's loop over tensors."""
    model = Captioner(MODEL, VOCABULARY).to(arguments.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    loop = torch.optim.AdamW(parameters, foreach=False, fused=False)
    runs = {"usual, a loop": loop.step, "fused": build_optimizer(model, OptimConfig()).step}
    seconds = alternate({name: timed(run, arguments.device) for name, run in runs.items()}, arguments.repeats)
    moved = 7 * sum(parameter.nbytes for parameter in parameters)  # weight, gradient and two moments; three written
    floor = {"floor_ms": ceilings(arguments.device).floor_ms("fp32", moved=moved)}
    return {"rows": [row(name, values, 1, "steps") | floor for name, values in seconds.items()]}


def bench_checkpoint(arguments: argparse.Namespace) -> dict[str, Any]:
    """Saving and verified loading of a checkpoint, beside torch.save, which neither hashes nor waits for the disk."""
    model = Captioner(MODEL, VOCABULARY)
    optimiser = build_optimizer(model, OptimConfig())
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    weights, training = model.state_dict(), {"optimizer": optimiser.state_dict()}
    with TemporaryDirectory() as folder:
        root, usual = Path(folder) / "checkpoints", Path(folder) / "usual.pt"
        runs: dict[str, Callable[[], object]] = {
            "usual save": lambda: torch.save((weights, training), usual),
            "save": lambda: save_checkpoint(root, 1, weights, training, {}, keep=1, best=False),
            "usual load": lambda: torch.load(usual),
            "load": lambda: load_checkpoint(root),
        }
        timers = {name: timed(run, torch.device("cpu")) for name, run in runs.items()}
        seconds = alternate(timers, arguments.repeats)
        megabytes = round(usual.stat().st_size / 1e6)
    return {"rows": [row(name, values, megabytes, "MB") for name, values in seconds.items()], "MB": megabytes}
