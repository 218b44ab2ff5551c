"""What `tensorboard --logdir RUN/tensorboard` shows of a run, by TensorBoard's own reader."""

import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imgcap.training.monitor.writers import shown_as


@pytest.mark.slow
def test_tensorboard_shows_scalars_captioned_images_and_the_configuration(tmp_path, launch):
    run = tmp_path / "run"
    settings = ["log.tensorboard=true", "train.max_steps=4", "eval.every=2", "eval.metrics=[BLEU]"]
    result = launch(run, *settings)
    assert result.returncode == 0, result.stderr
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    events = EventAccumulator(str(run / "tensorboard"), size_guidance=everything).Reload()

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line} - {"step", "epoch", "train/batch_hash"}
    assert {shown_as(name) for name in names} == set(events.Tags()["scalars"])
    assert {"train/loss", "train/grad_norm", "train/teacher_forcing", "val/loss", "val/BLEU-4"} < names
    for name in names:
        logged = [(line["step"], np.float32(line[name])) for line in lines if name in line]
        shown = [(event.step, np.float32(event.value)) for event in events.Scalars(shown_as(name))]
        np.testing.assert_equal(shown, logged, err_msg=name)

    assert set(events.Tags()["images"]) == {"val/samples", "val/attention"}
    for step, image in zip((2, 4), events.Images("val/samples"), strict=True):
        assert image.step == step
        shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
        with Image.open(run / "samples" / f"val-{step:08d}.png") as sheet:
            np.testing.assert_array_equal(shown, np.asarray(sheet.convert("RGB")))
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 100, "a sheet without pictures"

    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert yaml.safe_load(text.strip("`")) == yaml.safe_load((run / "config.yaml").read_text())
