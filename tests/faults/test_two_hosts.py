"""Two hosts, each a network namespace: training across them, a link that goes down, a wrong address."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.dist, pytest.mark.slow]
HOSTS = ("imgcap-a", "imgcap-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def hosts():
    if os.geteuid() != 0 or not shutil.which("ip") or ip("netns", "add", HOSTS[0]).returncode:
        pytest.skip("network namespaces need root and iproute2")
    ip("netns", "add", HOSTS[1])
    made = ip("link", "add", "imgcap-va", "netns", HOSTS[0], "type", "veth", "peer", "imgcap-vb", "netns", HOSTS[1])
    for host, address, end in zip(HOSTS, ADDRESSES, ("imgcap-va", "imgcap-vb"), strict=True):
        for command in (f"addr add {address}/24 dev {end}", f"link set {end} up", "link set lo up"):
            ip("-n", host, *command.split())
    yield made
    for host in HOSTS:
        ip("netns", "del", host)


@pytest.fixture
def slow_network():
    """A namespace whose own interface passes a gigabit a second."""
    name = "imgcap-slow"
    if os.geteuid() != 0 or not shutil.which("tc") or ip("netns", "add", name).returncode:
        pytest.skip("network namespaces need root and iproute2")
    ip("-n", name, "link", "set", "lo", "up")
    limit = "tc qdisc add dev lo root tbf rate 1gbit burst 1mb latency 50ms"
    limited = subprocess.run(["ip", "netns", "exec", name, *limit.split()], capture_output=True).returncode == 0
    if limited:
        yield name
    ip("netns", "del", name)
    if not limited:
        pytest.skip("this kernel can't limit an interface's rate")


def running_ranks(launcher):
    """The processes that it started, but those that have ended and wait to be asked for their exit code."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    found = children.read_text().split() if children.exists() else []
    return [pid for pid in found if " Z " not in Path(f"/proc/{pid}/stat").read_text()]


@pytest.fixture
def node(launch):
    """Start torchrun on one of the hosts."""
    started = []

    def start(number, run, *overrides, nodes="2", endpoint=ADDRESSES[0] + ":29411", patience=60):
        command = launch(run, *overrides, show=True)
        rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint, "--rdzv_id", "two"]
        rendezvous += [
            "--local_addr",
            ADDRESSES[number],
            "--rdzv_conf",
            f"join_timeout=40,last_call_timeout=5,read_timeout={patience},is_host={int(number == 0)}",
        ]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc_per_node", "1"]
        torchrun += ["--max-restarts", "0", *rendezvous]
        inside = ["ip", "netns", "exec", HOSTS[number], *torchrun, *command[1:]]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": ("imgcap-va", "imgcap-vb")[number]}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(inside, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.exhaustive
def test_training_across_hosts_a_link_down_and_on_with_one(tmp_path, hosts, node, launch, metrics, reach):
    run = tmp_path / "run"
    settings = ["train.max_steps=100000", "checkpoint.every=5", "engine.timeout=8"]
    both = [node(number, run, *settings) for number in (0, 1)]
    reach(run, both[0], 12)
    ip("-n", HOSTS[1], "link", "set", "imgcap-vb", "down")
    deadline = time.monotonic() + 60
    while any(running_ranks(process.pid) for process in both):  # each host's rank ends, though nobody can tell it
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    left = [running_ranks(process.pid) for process in both]
    for process in both:
        process.kill()  # torchrun itself waits for minutes for the store of the other host
    errors = [process.communicate(timeout=30)[1] for process in both]
    assert left == [[], []], (left, errors)
    assert any(re.search(r"error: rank \d has stood still .*look at the network", error) for error in errors), errors
    last = max(metrics(run))
    settings[0] = f"train.max_steps={last + 5}"
    alone = node(0, run, *settings, nodes="1:2", endpoint=ADDRESSES[0] + ":29412")
    _, errors = alone.communicate(timeout=150)
    assert alone.returncode == 0, errors
    assert sorted(metrics(run)) == list(range(1, last + 6))


@pytest.mark.exhaustive
def test_a_wrong_address_is_a_clear_error(tmp_path, hosts, node):
    lost = node(1, tmp_path / "run", "train.max_steps=3", endpoint="10.77.0.9:29413", patience=8)
    _, errors = lost.communicate(timeout=150)
    assert lost.returncode != 0
    assert "10.77.0.9" in errors


@pytest.mark.exhaustive
def test_an_interconnect_that_is_the_bottleneck_is_named_once(tmp_path, slow_network, launch, metrics):
    command = launch(tmp_path / "run", "train.max_steps=14", "model.encoder.train=all", ranks=2, show=True)
    inside = ["ip", "netns", "exec", slow_network, *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(inside, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    told = re.findall(
        r"the interconnect is the bottleneck: exchanging (\d+) MB of gradients takes ([\d.]+) s", ended.stderr
    )
    assert len(told) == 1
    megabytes, seconds = map(float, told[0])
    assert 0.5 * megabytes / 125 < seconds < 4 * megabytes / 125  # of a gigabit a second
    assert metrics(tmp_path / "run")[14]["perf/exchange_share"] > 0.5
