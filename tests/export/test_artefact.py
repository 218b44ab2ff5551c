"""An artefact: whole or not there, true to its run, and found out where a byte has changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from imgcap.errors import UserError
from imgcap.evaluation.results import Evaluation, write_results
from imgcap.export.artefact import export_run
from imgcap.models.captioner import Captioner
from imgcap.models.trained import FILES, load_captioner


@pytest.fixture
def artefact(small_run: Path, tmp_path: Path) -> Path:
    export_run(small_run, tmp_path / "artefact")
    return tmp_path / "artefact"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path) -> None:
    """Change one bit in the middle, in a text to another letter or digit."""
    data = bytearray(path.read_bytes())
    place = next(place for place in range(len(data) // 2, len(data)) if chr(data[place]).isalnum())
    data[place] ^= 1
    path.write_bytes(data)


def test_it_is_the_run(small_run: Path, artefact: Path) -> None:
    run, loaded = load_captioner(small_run), load_captioner(artefact)
    ours, theirs = run.model.state_dict(), loaded.model.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.vocabulary == run.vocabulary
    assert (loaded.step, loaded.config.eval, loaded.config.model.decoder) == (
        7,
        run.config.eval,
        run.config.model.decoder,
    )
    assert not loaded.is_run


def test_it_says_nothing_of_the_machine_that_made_it(artefact: Path, small_run: Path) -> None:
    for name in ("config.json", "README.md", "scores.json"):
        text = (artefact / name).read_text()
        assert "/home/someone" not in text and str(small_run) not in text


def test_an_export_is_reproducible_and_replaces_an_older_one(small_run: Path, artefact: Path) -> None:
    before = contents(artefact)
    (artefact / "programs").mkdir()
    (artefact / "programs/stale.pt2").touch()
    export_run(small_run, artefact)
    assert contents(artefact) == before
    assert [path.name for path in artefact.parent.iterdir()] == ["artefact"]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found_and_its_file_named(artefact: Path, name: str) -> None:
    if name == "scores.json":
        (artefact / name).write_text("{1}")
    else:
        flip(artefact / name)
    with pytest.raises(UserError, match=name) as raised:
        load_captioner(artefact)
    assert "\n" not in str(raised.value) and "export it again" in str(raised.value)


@pytest.mark.parametrize("name", FILES[:3])
def test_a_missing_file_is_named(artefact: Path, name: str) -> None:
    (artefact / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_captioner(artefact)


def test_the_card_may_be_edited_and_the_pictures_removed(artefact: Path) -> None:
    (artefact / "README.md").write_text("mine")
    shutil.rmtree(artefact / "samples", ignore_errors=True)
    load_captioner(artefact)


def test_another_format_is_named(artefact: Path) -> None:
    config = json.loads((artefact / "config.json").read_text())
    (artefact / "config.json").write_text(json.dumps(config | {"format": 9}))
    with pytest.raises(UserError, match="an artefact of format 9, this imgcap reads 1"):
        load_captioner(artefact)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_and_an_older_artefact_stays(
    make_run: Callable[..., Path], artefact: Path, tmp_path: Path, value: float
) -> None:
    def spoil(model: Captioner) -> None:
        model.decoder.output.bias[3] = value

    before = contents(artefact)
    with pytest.raises(UserError, match=r"decoder\.output\.bias of step 7 .* holds 1 numbers that are NaN or infinite"):
        export_run(make_run(tmp_path / "spoilt", edit=spoil), artefact)
    assert contents(artefact) == before


def test_a_full_disk_leaves_nothing_half(small_run: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("4m")
    with pytest.raises(OSError, match="No space left"):  # which a command makes one line and exit code 2
        export_run(small_run, disk / "artefact")
    assert list(disk.iterdir()) == []


def test_what_others_have_put_into_an_artefact_is_not_removed(small_run: Path, artefact: Path) -> None:
    """Such as .git, in a clone of the hub's."""
    (artefact / ".git").mkdir()
    before = contents(artefact)
    with pytest.raises(UserError, match=r"holds \.git, which no export wrote; take it out, or name another folder"):
        export_run(small_run, artefact)
    assert contents(artefact) == before and (artefact / ".git").is_dir()


@pytest.mark.parametrize("config", ['{"architectures": ["BertModel"]}', "[]", "{"])
def test_a_model_of_another_library_is_not_written_over(small_run: Path, tmp_path: Path, config: str) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text(config)
    (tmp_path / "bert/pytorch_model.bin").write_text("precious")
    with pytest.raises(UserError, match="is there already and is no artefact"):
        export_run(small_run, tmp_path / "bert")
    assert (tmp_path / "bert/pytorch_model.bin").read_text() == "precious"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_artefact_is_not_written_over(small_run: Path, tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    if kind == "folder":
        other.mkdir()
    mine = other / "mine.txt" if kind == "folder" else other
    mine.write_text("mine")
    with pytest.raises(UserError, match="is there already and is no artefact"):
        export_run(small_run, other)
    assert mine.read_text() == "mine"


def test_only_scores_of_the_exported_checkpoint_come_along(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for split, step, bleu in (("test", 7, 0.25), ("val", 9, 0.5)):
        evaluation = Evaluation(
            split, {"BLEU-4": bleu}, loss=1.5, signature=f"split:{split}", captions=[], images=[], diversity={}
        )
        write_results(run, evaluation, step)
    step, others = export_run(run, tmp_path / "artefact")
    assert (step, others) == (7, {"val": "is not known to be of step 7"})
    scores = json.loads((tmp_path / "artefact" / "scores.json").read_text())
    assert scores == {"test": {"BLEU-4": 0.25, "loss": 1.5, "signature": "split:test", "diversity": {}}}
    card = (tmp_path / "artefact" / "README.md").read_text()
    assert "| test | 0.250 | 1.500 |" in card and "`split:test`" in card


def test_sample_pictures_are_those_of_the_checkpoint(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "samples").mkdir()
    for name, grey in (("val-00000007", 1), ("val-00000009", 2), ("val-attention-00000004", 3), ("notes", 4)):
        Image.new("L", (4, 4), grey).save(run / "samples" / f"{name}.png")
    export_run(run, tmp_path / "artefact")
    found = {path.name: Image.open(path).getpixel((0, 0)) for path in (tmp_path / "artefact" / "samples").iterdir()}
    assert found == {"val.png": 1, "val-attention.png": 3}
    card = (tmp_path / "artefact" / "README.md").read_text()
    assert "(samples/val.png)" in card and "val-attention, as of step 4" in card


@pytest.mark.parametrize(
    "signature, reason",
    [
        ("split:test|beam:1|length_penalty:1.0", "beam:1, and the run has beam:3"),
        ("split:test|beam:3|no_repeat_ngram:2", "no_repeat_ngram:2, and the run has no no_repeat_ngram"),
        ("split:test|beam:3|precision:bf16", "precision:bf16, and the run has precision:fp32"),
        ("split:test|beam:3|length_penalty:1.0|max_words:7|input:48px-bilinear|unk:never|precision:fp32", None),
    ],
)
def test_scores_that_came_about_otherwise_stay_with_the_run(
    make_run: Callable[..., Path], tmp_path: Path, signature: str, reason: str | None
) -> None:
    """An artefact decodes as its run's configuration has it, and would not get them again."""
    run = make_run(tmp_path / "run")
    write_results(run, Evaluation("test", {"BLEU-4": 0.25}, 1.5, signature, captions=[], images=[], diversity={}), 7)
    _, others = export_run(run, tmp_path / "artefact")
    assert others == ({"test": f"came about with {reason}"} if reason else {})
    assert bool(json.loads((tmp_path / "artefact" / "scores.json").read_text())) == (reason is None)


def test_the_card_names_a_split_and_every_score(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for label, scores, elsewhere in (("other-test", {"BLEU-4": 0.1}, "x"), ("val-first-4", {"CIDEr": 0.5}, None)):
        signature = f"split:{label.split('-')[bool(elsewhere)]}|beam:3"
        found = Evaluation("", scores, 1.5, signature, captions=[], images=[], diversity={}, trained_on=elsewhere)
        write_results(run, found, 7, label)
    export_run(run, tmp_path / "artefact")
    card = (tmp_path / "artefact" / "README.md").read_text()
    assert "--split val" in card
    assert "| split | BLEU-4 | loss | CIDEr |" in card and "| val-first-4 | – | 1.500 | 0.500 |" in card


def test_it_is_told_that_no_checkpoint_was_the_best(
    make_run: Callable[..., Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    assert command("imgcap", "export", run, "--out", tmp_path / "artefact").stderr == ""
    (run / "checkpoints" / "best").unlink()
    exported = command("imgcap", "export", run, "--out", tmp_path / "artefact")
    assert exported.stderr == f"no checkpoint of {run} was evaluated yet; the newest is taken\n"
