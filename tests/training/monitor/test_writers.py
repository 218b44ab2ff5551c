"""`metrics.jsonl` and TensorBoard say the same, and a resumed run has each step once."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imgcap.errors import UserError
from imgcap.training.monitor.writers import METRICS, Monitor, read_metrics


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / METRICS).read_text().splitlines()]


def tensorboard_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


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
    assert names == set(events.Tags()["scalars"]) == {"train/loss", "train/batch_hash", "optim/lr", "val/CIDEr"}
    for name in names:
        in_jsonl = [(line["step"], np.float32(line[name])) for line in lines if name in line]
        assert in_jsonl == [(event.step, np.float32(event.value)) for event in events.Scalars(name)]


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
    assert [(event.step, event.value) for event in tensorboard_of(tmp_path).Scalars("train/loss")] == expected
    assert not list(tmp_path.glob("*.tmp"))


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
