"""Training from a set behind an address: the same batches as from the folder, and a named end where it is gone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import HostileServer

from imgcap.config.data import DataConfig
from imgcap.data.dataset import TrainDataset
from imgcap.data.loader import PlanSampler, TrainLoader, reading
from imgcap.data.plan import Plan, split_batch
from imgcap.data.prefetch import block_of_cache, prefetching
from imgcap.files.fetch import Unreachable, fetch
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """60 scenes in shards of a few each."""
    folder = tmp_path_factory.mktemp("many") / "set"
    command = [sys.executable, "tools/build_shards.py", "demo", "--out", folder, "--limit", "60", "--workers", "1"]
    subprocess.run([*command, "--shard-mb", "0.05"], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def server(many):
    server = HostileServer(many)
    yield server
    server.close()


def hashes(metrics, run):
    return [values["train/batch_hash"] for _, values in sorted(metrics(run).items())]


@pytest.mark.dist
@pytest.mark.slow
def test_a_run_goes_on_in_mid_epoch_on_other_ranks_with_the_same_batches(tmp_path, launch, metrics, many, server):
    block = 2
    size = max(shard.bytes for shard in ShardReader(many, "train").shards)
    settings = ["data.workers=1", "train.max_steps=20", "checkpoint.every=5", "model.decoder.dropout=0"]
    local = launch(tmp_path / "local", *settings, f"data.shards={many}", f"data.block={block}")
    assert local.returncode == 0, local.stderr
    remote = [
        f"data.shards={server.url}",
        f"data.cache={tmp_path / 'cache'}",
        f"data.cache_gb={2.4 * block * size / 1e9}",
    ]
    server.faults = ["503", "cut", "wrong", "slow"]
    first = launch(tmp_path / "run", *settings, *remote, "train.max_steps=10", ranks=2)
    assert first.returncode == 0, first.stderr
    then = launch(tmp_path / "run", *settings, *remote)
    assert then.returncode == 0, then.stderr
    assert hashes(metrics, tmp_path / "run") == hashes(metrics, tmp_path / "local")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.whole")) <= 2.4 * block * size


@pytest.fixture
def loader(server, tmp_path, monkeypatch):
    """Of one rank with two workers, that reads blocks of two shards ahead."""
    monkeypatch.setattr(sys.modules[fetch.__module__], "PAUSE", 0.01)
    place = Place(server.url, tmp_path / "cache")
    reader = ShardReader(place, "train")
    plan, accumulation = Plan(0, reader.shard_counts, 4, reader.manifest_sha256, block=2), split_batch(4, None, 1)
    words = Vocabulary.build(TokenCounts.load(place).counts)
    dataset = TrainDataset(reader, words, DataConfig(image_size=32, augment="off"), 0)
    return TrainLoader(dataset, PlanSampler(plan, 0, 1, accumulation, 0, 100), 2, False, prefetching([reader], plan, 0))


def test_a_server_that_goes_away_ends_the_loader_with_its_name(server, loader):
    with reading(loader) as batches:
        next(batches)
        server.always = "503"
        with pytest.raises(
            Unreachable, match=rf"^{server.url}/train-\d+\.tar can't be fetched.*answered 503"
        ) as raised:
            for _ in range(99):
                next(batches)
    assert "Traceback" not in str(raised.value)


def test_the_next_block_is_fetched_while_this_one_is_read(server, loader):
    with reading(loader) as batches:
        next(batches)
        deadline = time.monotonic() + 20
        while len({path for path, _ in server.asked if path.endswith(".tar")}) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        fetched = [path for path, _ in server.asked if path.endswith(".tar")]
        assert len(fetched) == len(set(fetched)) < len(loader.dataset.reader.shards)


def test_the_block_follows_from_the_cache(many, server, tmp_path):
    def block(cache_gb):
        return block_of_cache(ShardReader(Place(server.url, tmp_path, cache_gb), "train"))

    sizes = [shard.bytes for shard in ShardReader(many, "train").shards]
    assert block(20) is None and block_of_cache(ShardReader(many, "train")) is None
    assert block(4.2 * max(sizes) / 1e9) == 2 and block(0.5 * max(sizes) / 1e9) == 1
