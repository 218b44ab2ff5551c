"""The collectives over real gloo ranks, and alone."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from imgcap.errors import UserError
from imgcap.ranks.collectives import SharedCounter, broadcast_object, from_main, gather_objects, sum_across_ranks
from imgcap.ranks.world import close_ranks, init_ranks

RANKS = 3
PROGRAM = f"""
import torch
from imgcap.ranks.collectives import *
from imgcap.ranks.world import close_ranks, init_ranks
world = init_ranks("cpu")
assert world.world_size == {RANKS} and world.is_main == (world.rank == 0)
assert sum_across_ranks(torch.tensor([world.rank, 1])).tolist() == [sum(range({RANKS})), {RANKS}]
gathered = gather_objects({{"rank": world.rank}})
assert gathered == ([{{"rank": r}} for r in range({RANKS})] if world.is_main else None)
assert broadcast_object(f"from {{world.rank}}") == "from 0"
try:
    on_main(lambda: 1 / 0)
except (ZeroDivisionError, RuntimeError) as error:
    assert "division" in str(error)
else:
    raise AssertionError("what fails on rank 0 fails everywhere")
on_main(lambda: None)
assert from_main(lambda: f"by {{world.rank}}") == "by 0"
counter = SharedCounter("claims")
claims = gather_objects([counter.add(1) for _ in range(world.rank, 5)])
assert claims is None or sorted(number for rank in claims for number in rank) == list(range(1, 13))
close_ranks()
print("rank", world.rank, "is done")
"""


@pytest.mark.dist
def test_collectives_between_ranks(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(RANKS), script]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert all(f"rank {rank} is done" in result.stdout for rank in range(RANKS))


def test_a_single_process_needs_no_group():
    world = init_ranks("cpu")
    assert (world.rank, world.world_size, world.is_main) == (0, 1, True)
    assert sum_across_ranks(torch.tensor([5])).item() == 5
    assert gather_objects("alone") == ["alone"]
    assert broadcast_object(7) == from_main(lambda: 7) == 7
    assert [SharedCounter("claims").add(2), (counter := SharedCounter("claims")).add(1)] == [2, 1]
    assert counter.add(3) == 4
    close_ranks()


def test_a_port_in_use_is_one_clear_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(UserError, match=f"{port}.*--master_port"):
            init_ranks("cpu")
