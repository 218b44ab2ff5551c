"""`metrics.jsonl` and TensorBoard say the same, and a resumed run has each step once."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.api_pb2 import STATUS_RUNNING, STATUS_SUCCESS, ListSessionGroupsRequest
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from imgcap.config.load import load_config
from imgcap.errors import UserError
from imgcap.training.monitor.writers import METRICS, Monitor, read_metrics, shown_as


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def tensorboard_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def test_losses_come_first_and_names_are_grouped() -> None:
    """By TensorBoard's order, that of names."""
    names = (
        "data/images_skipped",
        "optim/lr",
        "perf/images_per_s",
        "train/accuracy",
        "train/grad_norm",
        "train/images",
    )
    names += ("train/loss", "train/objective", "val/BLEU-4", "val/CIDEr", "val/loss")
    assert sorted(map(shown_as, names)) == [
        "1 loss/train", "1 loss/train (what is minimised)", "1 loss/val", "2 scores/val BLEU-4", "2 scores/val CIDEr",
        "3 words/share predicted right", "4 optimiser/grad norm", "4 optimiser/lr", "5 speed/images per s",
        "6 data/images", "6 data/images skipped",
    ]  # fmt: skip


def test_jsonl_equals_tensorboard(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=True, wandb=False, enabled=True)
    generator = np.random.default_rng(0)
    for step in range(10, 60, 10):
        values = {"train/loss": float(generator.normal()), "train/batch_hash": int(generator.integers(2**63))}
        monitor.scalars(step, step // 30, {**values, "optim/lr": 4e-4 / step})
        if step % 20 == 0:
            monitor.scalars(step, step // 30, {"val/CIDEr": float(generator.random())})
    monitor.close()
    lines, events = lines_of(tmp_path), tensorboard_of(tmp_path)
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50]
    assert [line["epoch"] for line in lines] == [0, 0, 1, 1, 1]
    names = {name for line in lines for name in line} - {"step", "epoch"}
    assert names == {"train/loss", "train/batch_hash", "optim/lr", "val/CIDEr"}
    names.remove("train/batch_hash")  # no quantity, so no curve
    assert {shown_as(name) for name in names} == set(events.Tags()["scalars"])
    for name in names:
        in_jsonl = [(line["step"], np.float32(line[name])) for line in lines if name in line]
        assert in_jsonl == [(event.step, np.float32(event.value)) for event in events.Scalars(shown_as(name))]


def test_a_batch_hash_is_exact_in_jsonl(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=False, wandb=False)
    monitor.scalars(1, 0, {"train/batch_hash": 2**63 - 1})
    monitor.close()
    assert lines_of(tmp_path) == [{"step": 1, "epoch": 0, "train/batch_hash": 2**63 - 1}]
    assert not (tmp_path / "tensorboard").exists()


def test_each_call_is_in_the_file_when_it_returns(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=False, wandb=False)
    monitor.scalars(1, 0, {"a": 1.5})
    assert lines_of(tmp_path) == [{"step": 1, "epoch": 0, "a": 1.5}]
    monitor.scalars(1, 0, {"b": 2.5})
    monitor.scalars(1, 0, {"b": 2})  # shorter than what it replaces
    assert lines_of(tmp_path) == [{"step": 1, "epoch": 0, "a": 1.5, "b": 2}]
    monitor.scalars(2, 0, {"a": math.inf, "b": math.nan})
    assert lines_of(tmp_path)[1] == {"step": 2, "epoch": 0, "a": None, "b": None}, "JSON has no infinity and no NaN"
    monitor.close()


def test_rewind_leaves_each_step_once(tmp_path: Path) -> None:
    first = Monitor(tmp_path, tensorboard=True, wandb=False)
    for step in range(1, 8):
        first.scalars(step, 0, {"train/loss": float(step)})
    first.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 8, "ep')  # a power cut
    resumed = Monitor(tmp_path, tensorboard=True, wandb=False)
    resumed.rewind(4)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]
    for step in range(5, 10):
        resumed.scalars(step, 1, {"train/loss": 10.0 + step})
    resumed.close()
    expected = [(step, float(step)) for step in range(1, 5)] + [(step, 10.0 + step) for step in range(5, 10)]
    assert [(line["step"], line["train/loss"]) for line in lines_of(tmp_path)] == expected
    assert [(event.step, event.value) for event in tensorboard_of(tmp_path).Scalars("1 loss/train")] == expected
    assert not list(tmp_path.glob("*.tmp"))


def test_an_evaluation_that_is_redone_at_the_last_step_has_one_line(tmp_path: Path) -> None:
    """As after a stop around an evaluation: the run goes on from the very step whose scores are written already."""
    first = Monitor(tmp_path, tensorboard=False, wandb=False)
    first.scalars(3, 0, {"train/loss": 3.0})
    first.scalars(4, 0, {"train/loss": math.inf, "val/CIDEr": 0.25})
    first.close()
    for _ in range(2):
        resumed = Monitor(tmp_path, tensorboard=False, wandb=False)
        resumed.rewind(4)
        resumed.scalars(4, 0, {"val/CIDEr": 0.5})
        assert lines_of(tmp_path) == [
            {"step": 3, "epoch": 0, "train/loss": 3.0},
            {"step": 4, "epoch": 0, "train/loss": None, "val/CIDEr": 0.5},
        ]
        resumed.close()
    resumed = Monitor(tmp_path, tensorboard=False, wandb=False)
    resumed.rewind(4)
    resumed.scalars(5, 1, {"train/loss": 5.0})
    resumed.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [3, 4, 5]


def test_a_torn_last_line_is_written_over(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"step": 1, "epoch": 0}\n{"step": 2, "ep')
    monitor = Monitor(tmp_path, tensorboard=False, wandb=False)
    monitor.scalars(2, 0, {"a": 1.0})
    monitor.close()
    assert lines_of(tmp_path) == [{"step": 1, "epoch": 0}, {"step": 2, "epoch": 0, "a": 1.0}]


def test_rewinding_a_new_run_is_nothing(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path / "run", tensorboard=False, wandb=False)
    monitor.rewind(0)
    monitor.scalars(1, 0, {"a": 1.0})
    monitor.close()
    assert [line["step"] for line in read_metrics(tmp_path / "run" / METRICS)] == [1]


def test_images_and_texts_reach_tensorboard(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=True, wandb=False)
    picture = Image.new("RGB", (31, 17), (200, 30, 90))
    monitor.image("val/samples", picture, 3)
    monitor.image("val/samples", np.asarray(picture), 4)
    monitor.text("config", "name: demo", 0)
    monitor.close()
    events = tensorboard_of(tmp_path)
    images = events.Images("val/samples")
    assert [(image.step, image.width, image.height) for image in images] == [(3, 31, 17), (4, 31, 17)]
    assert images[0].encoded_image_string == images[1].encoded_image_string
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert text == b"name: demo"


@pytest.mark.parametrize("starts", [1, 2])
def test_hparams_has_the_main_values_and_the_last_scores(tmp_path: Path, starts: int) -> None:
    """As TensorBoard's own plugin reads them."""
    for start in range(starts):
        monitor = Monitor(tmp_path, tensorboard=True, wandb=False)
        monitor.rewind(2 * start)
        monitor.config(load_config(None, ["optim.lr=7e-4", "model.encoder.weights=none"]), 2 * start)
        for step in (2 * start + 1, 2 * start + 2):
            monitor.scalars(step, 0, {"train/loss": 1.0, "val/CIDEr": step / 8, "val/BLEU-4": 0.25, "val/loss": 2.0})
        monitor.close()
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "tensorboard")).Reload()
    provider = MultiplexerDataProvider(runs, "")
    context = Context(TBContext(data_provider=provider))
    wanted = ListSessionGroupsRequest(start_index=0, slice_size=9, allowed_statuses=[STATUS_SUCCESS, STATUS_RUNNING])
    [group] = Handler(RequestContext(), context, "", wanted).run().session_groups
    values = {name: value.number_value or value.string_value for name, value in group.hparams.items()}
    assert values["optim.lr"] == 7e-4 and values["model.encoder.weights"] == "none"
    assert {"model.decoder.type", "train.global_batch", "data.image_size", "seed"} < set(values)
    scores = {metric.name.tag: metric.value for metric in group.metric_values}
    assert scores == {"2 scores/val CIDEr": starts / 4, "2 scores/val BLEU-4": 0.25, "1 loss/val": 2.0}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=True, wandb=False, enabled=False)
    monitor.rewind(0)
    monitor.scalars(1, 0, {"a": 1.0})
    monitor.text("a", "b", 1)
    monitor.image("a", Image.new("RGB", (2, 2)), 1)
    monitor.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("enabled", [True, False])
def test_wandb_without_its_package_is_said_clearly(
    tmp_path: Path, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match=r"pip install 'imgcap\[wandb\]'"):
        Monitor(tmp_path, tensorboard=True, wandb=True, enabled=enabled)
