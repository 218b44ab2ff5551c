"""Which device a process computes on, and by what its ranks meet: on machines with GPUs that torch is told of."""

import pytest
import torch
from untrained import save_run

from imgcap.captioning.loading import load
from imgcap.errors import UserError
from imgcap.ranks import world
from imgcap.ranks.world import choose_device, init_ranks


@pytest.fixture
def machine(monkeypatch):
    """Let torch find so many GPUs, and this process be one of several on its machine."""

    def has(gpus, local_rank=0, processes=1, **settings):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        numbers = {"LOCAL_RANK": local_rank, "RANK": local_rank, "LOCAL_WORLD_SIZE": processes, "WORLD_SIZE": processes}
        for name, value in (numbers | settings).items():
            monkeypatch.setenv(name, str(value))

    return has


@pytest.mark.parametrize(
    "asked, gpus, local_rank, chosen",
    [
        (None, 1, 0, "cuda:0"),
        ("cuda", 1, 0, "cuda:0"),
        ("cuda:0", 1, 0, "cuda:0"),
        (None, 4, 2, "cuda:2"),
        ("cuda", 4, 2, "cuda:2"),
        ("cuda:1", 4, 2, "cuda:1"),
        ("cpu", 4, 2, "cpu"),
        (None, 0, 2, "cpu"),
    ],
)
def test_a_process_takes_its_own_gpu_or_what_it_is_told(machine, asked, gpus, local_rank, chosen):
    machine(gpus, local_rank, processes=local_rank + 1)
    assert choose_device(asked) == torch.device(chosen)


@pytest.mark.parametrize(
    "asked, gpus, told",
    [
        ("cuda", 0, "cuda was asked for, and torch finds no GPUs on this machine"),
        ("cuda:0", 0, "cuda:0 was asked for, and torch finds no GPUs"),
        ("cuda:1", 1, "cuda:1 was asked for, and torch finds 1 GPU on this machine"),
        ("cuda:7", 4, "torch finds 4 GPUs"),
        ("gpu", 1, "'gpu' is no device; give cpu, cuda"),
        ("meta", 1, "'meta' is no device"),
        ("cuda:one", 1, "'cuda:one' is no device"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(machine, tmp_path, asked, gpus, told):
    machine(gpus)
    save_run(tmp_path / "run", ["a", "dog"])
    for refuse in (choose_device, init_ranks, lambda device: load(tmp_path / "run", device)):
        with pytest.raises(UserError, match=told):
            refuse(asked)


def test_more_processes_than_gpus_share_them_over_gloo_alone(machine):
    machine(2, local_rank=2, processes=3)
    with pytest.raises(UserError, match=r"3 processes.*2 GPUs; lower --nproc_per_node, or set IMGCAP_BACKEND=gloo"):
        choose_device()
    machine(2, local_rank=2, processes=3, IMGCAP_BACKEND="gloo")
    assert choose_device() == choose_device("cuda") == torch.device("cuda:0")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    "device, asked, backend",
    [("cuda", "", "nccl"), ("cuda", "gloo", "gloo"), ("cpu", "", "gloo"), ("cpu", "gloo", "gloo")],
)
def test_ranks_meet_by_what_their_device_has(machine, monkeypatch, device, asked, backend):
    """Nothing but the meeting itself is left out: no GPU is here to hold it."""
    machine(1, RANK=0, WORLD_SIZE=2, IMGCAP_BACKEND=asked, MASTER_ADDR="127.0.0.1", MASTER_PORT=1)
    met, set_to = {}, []
    monkeypatch.setattr(torch.cuda, "set_device", set_to.append)
    monkeypatch.setattr(world.distributed, "rendezvous", lambda *_, **__: iter([(None, 0, 2)]))
    monkeypatch.setattr(world.distributed, "PrefixStore", lambda prefix, store: store)
    monkeypatch.setattr(world.distributed, "init_process_group", lambda name, **given: met.update(given, name=name))
    monkeypatch.setattr(world.Watchdog, "start", lambda self: None)
    joined = init_ranks(device)
    world._watchdogs.clear()
    assert met["name"] == backend and joined.device.type == device
    assert met["device_id"] == (torch.device("cuda:0") if backend == "nccl" else None)
    assert set_to == ([torch.device("cuda:0")] if device == "cuda" else [])


def test_a_backend_that_is_none_is_one_line(machine):
    machine(0, processes=2, IMGCAP_BACKEND="mpi")
    with pytest.raises(UserError, match="IMGCAP_BACKEND=mpi is none to choose"):
        init_ranks("cpu")
