"""What is saved comes back; what was damaged never does."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from imgcap.checkpoint import layout
from imgcap.checkpoint.layout import MODEL, RECORD, STATE, TRAINING, Record, newest_checkpoint
from imgcap.checkpoint.load import load_checkpoint, load_checkpoint_folder
from imgcap.checkpoint.save import point_at_best, save_checkpoint
from imgcap.errors import UserError


def save(root: Path, step: int, keep: int = 3, best: bool = False) -> Path:
    model = {"weight": torch.full((4, 3), float(step)), "steps": torch.tensor(step)}
    training = {"optimiser": {"moment": torch.arange(5.0) + step}, "rates": [4e-4, None, "cosine"]}
    return save_checkpoint(root, step, model, training, {"epoch": step // 10, "best": -1.5}, keep, best)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    folder = save(tmp_path, 1234)
    assert folder == tmp_path / "step-00001234" == newest_checkpoint(tmp_path)
    assert (tmp_path / "latest").read_text().strip() == folder.name
    assert names(folder) == sorted([MODEL, TRAINING, STATE, RECORD])
    for loaded in (load_checkpoint(tmp_path), load_checkpoint_folder(folder)):
        assert (loaded.step, loaded.path, loaded.state) == (1234, folder, {"epoch": 123, "best": -1.5})
        assert torch.equal(loaded.model["weight"], torch.full((4, 3), 1234.0))
        assert torch.equal(loaded.training["optimiser"]["moment"], torch.arange(5.0) + 1234)
        assert loaded.training["rates"] == [4e-4, None, "cosine"]


def test_an_optimiser_and_half_precision_survive(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    half = {"half": torch.randn(7).bfloat16(), "transposed": torch.randn(2, 5).T, "empty": torch.zeros(0)}
    save_checkpoint(tmp_path, 1, {**layer.state_dict(), **half}, {"optimiser": optimiser.state_dict()}, {}, keep=1)
    loaded = load_checkpoint(tmp_path)
    assert all(torch.equal(loaded.model[name], tensor) for name, tensor in half.items())
    other = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters())
    other.load_state_dict(loaded.training["optimiser"])
    for mine, theirs in zip(optimiser.state.values(), other.state.values(), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_tied_weights_are_two_equal_tensors(tmp_path: Path) -> None:
    weight = torch.randn(6, 4)
    save_checkpoint(tmp_path, 1, {"embed": weight, "output": weight, "view": weight[2:]}, {}, {}, keep=1)
    model = load_checkpoint(tmp_path).model
    assert torch.equal(model["embed"], weight) and torch.equal(model["output"], weight)
    assert torch.equal(model["view"], weight[2:])


def test_nothing_saved(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None and newest_checkpoint(tmp_path) is None
    with pytest.raises(UserError, match="no checkpoint in"):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="no checkpoint folder"):
        load_checkpoint_folder(tmp_path / "step-00000001")


@pytest.mark.parametrize("name", [MODEL, TRAINING, STATE, RECORD])
def test_no_flipped_bit_passes(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    whole = path.read_bytes()
    for position in range(0, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        assert load_checkpoint(tmp_path).step == 1
        message = capsys.readouterr().err
        assert "step-00000002" in message and name in message
    path.write_bytes(whole)
    assert load_checkpoint(tmp_path).step == 2 and not capsys.readouterr().err


@pytest.mark.parametrize("name", [MODEL, TRAINING, STATE, RECORD])
def test_truncated_empty_and_missing_files_are_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    whole = (folder / name).read_bytes()
    for part in (whole[: len(whole) // 2], whole[:-1], b""):
        (folder / name).write_bytes(part)
        assert load_checkpoint(tmp_path).step == 1
        assert name in capsys.readouterr().err
        with pytest.raises(UserError, match=name):
            load_checkpoint_folder(folder)
    (folder / name).unlink()
    assert load_checkpoint(tmp_path).step == 1
    assert f"{name} is missing" in capsys.readouterr().err


def test_all_damaged(tmp_path: Path) -> None:
    (save(tmp_path, 1) / MODEL).write_bytes(b"")
    (save(tmp_path, 2) / RECORD).write_text("{}")
    assert newest_checkpoint(tmp_path) is not None
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["step-00000099", "", "../..", "\udcff"])
def test_pointers_to_nowhere(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1)
    for pointer in ("latest", "best"):
        (tmp_path / pointer).write_bytes(text.encode(errors="surrogateescape"))
    assert load_checkpoint(tmp_path).step == load_checkpoint(tmp_path, "best").step == 1
    save(tmp_path, 2)
    assert (tmp_path / "latest").read_text().strip() == "step-00000002"


def test_a_malicious_pickle_is_not_executed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 2)
    mark = tmp_path / "executed"

    class Malice:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(mark),)

    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        write(Malice(), folder / TRAINING)
        (folder / RECORD).write_text(Record.of(folder, order=7).text())  # the attacker mends the hashes too
        assert load_checkpoint(tmp_path).step == 1
        with pytest.raises(UserError, match=TRAINING):
            load_checkpoint_folder(folder)
    assert not mark.exists()


def test_training_state_that_could_not_be_loaded_is_refused_at_once(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(pickle.UnpicklingError):
        save_checkpoint(tmp_path, 2, {}, {"path": Path("x")}, {}, keep=2)
    assert names(tmp_path) == ["latest", "step-00000001"]


def test_retention_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, keep=2, best=step == 2)
    assert names(tmp_path) == ["best", "latest", "step-00000002", "step-00000005", "step-00000006"]
    assert load_checkpoint(tmp_path, "best").step == 2 and load_checkpoint(tmp_path).step == 6
    save(tmp_path, 7, keep=2, best=True)
    assert names(tmp_path) == ["best", "latest", "step-00000006", "step-00000007"]


def test_a_damaged_best_falls_back_to_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    save(tmp_path, 3)
    (best / STATE).unlink()
    assert load_checkpoint(tmp_path, "best").step == 3
    assert best.name in capsys.readouterr().err


def test_a_run_that_went_back_goes_on_from_what_it_saved_last(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, keep=2)
    save(tmp_path, 15, keep=2)  # resumed from a copy of step 10
    assert load_checkpoint(tmp_path).step == 15
    save(tmp_path, 20, keep=2)
    assert names(tmp_path) == ["latest", "step-00000015", "step-00000020"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save_checkpoint(tmp_path, 5, {"weight": torch.ones(1)}, {}, {"again": True}, keep=2, best=True)
    assert names(tmp_path) == ["best", "latest", "step-00000005"]
    assert load_checkpoint(tmp_path, "best").state == {"again": True}


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    save(tmp_path, 5, keep=1, best=True)
    (tmp_path / "step-00000005").rename(tmp_path / "step-00000005.replaced")
    assert load_checkpoint(tmp_path).step == load_checkpoint(tmp_path, "best").step == 5
    save(tmp_path, 5, keep=1)
    assert names(tmp_path) == ["best", "latest", "step-00000005"]


def test_leftovers_of_a_killed_save_are_removed_by_the_next(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    shutil.copytree(folder, tmp_path / ".saving-step-00000002")
    (tmp_path / ".saving-step-00000002" / RECORD).unlink()
    (tmp_path / ".saving-latest").write_text("step-")
    assert load_checkpoint(tmp_path).step == 1
    save(tmp_path, 3)
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000003"]


def test_the_record_is_what_the_design_says(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    files = json.loads((folder / RECORD).read_text())["files"]
    assert set(files) == {MODEL, TRAINING, STATE}
    assert all(set(entry) == {"bytes", "sha256"} for entry in files.values())
    assert all((folder / name).stat().st_size == entry["bytes"] for name, entry in files.items())


def test_the_best_goes_back_with_the_run(tmp_path: Path) -> None:
    """A run that goes on from an earlier checkpoint saves the later steps anew, with other weights."""
    for step, best in ((100, True), (200, True), (300, True)):
        save(tmp_path, step, best=best)
    assert point_at_best(tmp_path, 200) and load_checkpoint(tmp_path, "best").step == 200
    save(tmp_path, 300)
    save(tmp_path, 400, keep=1)
    assert load_checkpoint(tmp_path, "best").step == 200
    (tmp_path / "step-00000200").rename(tmp_path / "step-00000200.replaced")  # as a kill in a save of it leaves it
    assert point_at_best(tmp_path, 200) and load_checkpoint(tmp_path, "best").step == 200
    assert not point_at_best(tmp_path, 100) and layout.read_pointer(tmp_path, layout.BEST) is None
