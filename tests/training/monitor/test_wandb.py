"""`log.wandb`, offline: what is logged is in W&B's own file, and a resumed run is the same run."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imgcap.config.load import load_config
from imgcap.errors import UserError
from imgcap.training.monitor.writers import Monitor

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No word to a server, and nothing of the user's own account."""
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "NETRC": tmp_path / "none"}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield
    wandb.teardown()  # it reads the environment once a process


def records(path: Path) -> Iterator[Any]:
    """The messages in a .wandb file: LevelDB's log format, blocks of 32 KB of records (checksum, size, kind, bytes)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, message = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        message += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(message)
            yield record
            message = b""


def finished(path: Path) -> list[Any]:
    """The messages of a run that wandb's own process has written to its end, for which `finish` may not wait."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = list(records(path))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.2)
    raise AssertionError("wandb wrote no end")


def items(entry: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in entry}


def start(run: Path, rewind: int, steps: range, loss: float) -> None:
    monitor = Monitor(run, tensorboard=False, wandb=True)
    monitor.rewind(rewind)
    monitor.config(load_config(None, ["optim.lr=7e-4"]), rewind)
    for step in steps:
        monitor.scalars(step, 0, {"train/loss": loss + step, "train/batch_hash": 2**63 - step})
    monitor.scalars(step, 0, {"val/CIDEr": 0.5})
    monitor.image("val/samples", Image.new("RGB", (31, 17), (200, 30, 90)), step)
    monitor.close()


def test_values_pictures_and_settings_reach_one_run(tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    start(run, 0, range(1, 6), loss=1.0)
    start(run, 3, range(4, 8), loss=2.0)
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    assert len(files) == 2, "each start has a file"
    logged: dict[int, dict[str, Any]] = {}
    for path in files:
        found = finished(path)
        (begun,) = (record.run for record in found if record.HasField("run"))
        assert begun.run_id == (run / "wandb-id").read_text() and begun.display_name == "tiny"
        assert begun.project == "imgcap"
        (axis,) = (record.metric for record in found if record.HasField("metric"))
        assert (axis.glob_name, axis.step_metric) == ("*", "step")
        told = [record.config for record in found if record.HasField("config")]
        told += [record.run.config for record in found if record.HasField("run")]  # where it came before that one
        settings = {key: value for config in told for key, value in items(config.update).items()}
        assert settings["optim"]["lr"] == 7e-4
        for record in found:
            if record.HasField("history"):
                line = items(record.history.item)
                logged.setdefault(line["step"], {}).update(line)
    assert {step: line["train/loss"] for step, line in logged.items()} == {
        **{step: 1.0 + step for step in (1, 2, 3)},
        **{step: 2.0 + step for step in (4, 5, 6, 7)},
    }
    assert all(line["train/batch_hash"] == 2**63 - step for step, line in logged.items())
    assert logged[7]["val/CIDEr"] == 0.5
    pictures = sorted(run.glob("wandb/offline-run-*/files/media/images/val/samples*.png"))
    with Image.open(pictures[0]) as picture:
        assert picture.size == (31, 17) and len(pictures) == 2
    assert not (run / "tensorboard").exists()


def test_an_account_that_is_missing_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match=r"run wandb login, set WANDB_MODE=offline .* or set log\.wandb=false"):
        Monitor(tmp_path / "run", tensorboard=False, wandb=True)
