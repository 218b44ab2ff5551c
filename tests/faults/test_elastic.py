"""A run goes on with fewer ranks in mid-epoch, in the same order; other checkpoints than sound ones are passed over."""

import shutil
import signal

import pytest

from imgcap.checkpoint.layout import Record

pytestmark = [pytest.mark.dist, pytest.mark.slow]
TWELVE = ["train.global_batch=12", "train.max_steps=60", "data.workers=2"]
ZERO = ["engine.name=deepspeed", "engine.zero_stage=2"]
TRANSFORMER = ["model.decoder={type: transformer, layers: 2, width: 16, heads: 2, feedforward: 24, image_layers: 1}"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "engine, decoder, worlds",
    [([], [], (4, 3, 2, 1)), (ZERO, [], (4, 2)), ([], TRANSFORMER, (4, 2, 1))],
    ids=["ddp", "zero2", "transformer"],
)
def test_fewer_ranks_in_mid_epoch_see_the_same_batches(tmp_path, launch, metrics, reach, engine, decoder, worlds):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert launch(whole, *TWELVE, *decoder, "model.decoder.dropout=0").returncode == 0
    settings = [*TWELVE, *engine, *decoder, "model.decoder.dropout=0"]
    for ranks in worlds[:-1]:
        done = max(metrics(run), default=0)
        process = launch(run, *settings, ranks=ranks, torchrun=() if ranks > 1 else ("--max-restarts", "0"), wait=False)
        reach(run, process, done + 7)  # 5 steps an epoch
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert (run / "PREEMPTED").exists()
    ended = launch(run, *settings, ranks=worlds[-1])
    assert ended.returncode == 0, ended.stderr
    found, expected = metrics(run), metrics(whole)
    assert sorted(found) == sorted(expected) == list(range(1, 61))
    for step, values in expected.items():
        assert found[step]["train/batch_hash"] == values["train/batch_hash"]
        assert found[step]["train/loss"] == pytest.approx(values["train/loss"], rel=1e-4)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return tmp_path_factory.mktemp("sound") / "run"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda newest: (newest / "training.pt").write_bytes((newest / "training.pt").read_bytes()[:-100]),
    "flipped": lambda newest: flip(newest / "model.safetensors"),
    "missing": lambda newest: (newest / "state.json").unlink(),
    "astray": lambda newest: (newest.parent / "latest").write_text("step-99999999\n"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_passed_over_by_name(tmp_path, sound, launch, metrics, same, damage):
    settings = ["train.max_steps=12", "checkpoint.every=6", "checkpoint.keep=2"]
    if not sound.exists():
        assert launch(sound, *settings).returncode == 0
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    newest = run / "checkpoints" / "step-00000012"
    DAMAGE[damage](newest)
    ended = launch(run, *settings)
    assert ended.returncode == 0, ended.stderr
    assert (f"passed over checkpoint {newest}" in ended.stderr) == (damage != "astray")
    same(metrics, run, sound)


def test_where_no_checkpoint_is_sound_the_run_is_refused(tmp_path, sound, launch):
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    for folder in (run / "checkpoints").glob("step-*"):
        flip(folder / "training.pt")
    ended = launch(run, "train.max_steps=12")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: every checkpoint in")


MALICIOUS = b"cos\nsystem\n(S'touch %s'\ntR."


@pytest.mark.parametrize("victim", ["checkpoint", "vocabulary"])
def test_a_malicious_pickle_is_refused_and_runs_no_code(tmp_path, sound, launch, victim):
    run, proof = tmp_path / "run", tmp_path / "executed"
    shutil.copytree(sound, run)
    pickle = MALICIOUS % str(proof).encode()
    if victim == "vocabulary":
        (run / "vocab.json").write_bytes(pickle)
    else:
        for folder in (run / "checkpoints").glob("step-*"):  # a record that fits: whoever wrote it knows the format
            (folder / "training.pt").write_bytes(pickle)
            (folder / "files.json").write_text(Record.of(folder, 0).text())
    ended = launch(run, "train.max_steps=12", "checkpoint.every=6")
    assert ended.returncode == 2 and not proof.exists()
    assert ended.stderr.splitlines()[-1].startswith("error: ")
