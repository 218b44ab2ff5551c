"""The calculated exchange: its formulas at their limits and against examples by hand, its gradients against a model."""

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.models.captioner import Captioner
from imgcap.training.engines.state import parameter_counts
from tools.bench import exchange
from tools.bench.exchange import (
    Gradients,
    Network,
    Way,
    all_reduce_seconds,
    at_the_end,
    efficiency,
    exposed_seconds,
    in_buckets,
    micro_batches_for,
    networks,
    ready_gradients,
    sent_bytes,
)

MB = 2**20
EVENLY = [Gradients(MB, (number + 1) / 40) for number in range(40)]  # 4 MB each in float32


def slow(gpus: int, rate: float = 1e9) -> Network:
    """A host a GPU and so few bytes a second that latency hardly counts."""
    return Network(gpus, gpus, math.inf, rate, 0.0)


def given(**options: Any) -> argparse.Namespace:
    defaults = {
        name.replace("-", "_"): value[0] if isinstance(value, tuple) else value
        for name, value in exchange.OPTIONS.items()
    }
    return argparse.Namespace(**defaults | options)


def test_a_ring_sends_nothing_alone_its_size_between_two_and_never_twice_its_size() -> None:
    assert [sent_bytes(gpus, 64.0) for gpus in (1, 2, 8, 64)] == [0, 64, 112, 126]


def test_one_gpu_waits_for_nothing() -> None:
    assert all_reduce_seconds(slow(1), 1e12) == 0
    assert efficiency(1.0, exposed_seconds(slow(1), EVENLY, 1.0, 4)) == 1


def test_a_network_without_limit_leaves_the_latency_of_its_hops() -> None:
    boundless = Network(8, 1, math.inf, math.inf, 0.0)
    assert all_reduce_seconds(boundless, 1e12) == pytest.approx(exchange.RING_BASE + 14 * exchange.RING_INSIDE)
    assert all_reduce_seconds(Network(8, 1, 1e9, math.inf, 0.0), 1e9) == pytest.approx(1.75, rel=1e-3)


@pytest.mark.parametrize("gpus", [2, 8, 64, 1024])
def test_more_bytes_gpus_or_hosts_never_take_less(gpus: int) -> None:
    for size in (0.0, 1e3, 1e6, 1e9):
        assert all_reduce_seconds(slow(gpus), size) <= all_reduce_seconds(slow(gpus), 2 * size + 1)
        assert all_reduce_seconds(slow(gpus), size) <= all_reduce_seconds(slow(2 * gpus), size)
        together = Network(gpus, max(1, gpus // 8), math.inf, 1e9, 0.0)
        assert all_reduce_seconds(together, size) <= all_reduce_seconds(slow(gpus), size) + 1e-12


def test_a_tree_s_latency_grows_by_the_logarithm_of_the_hosts() -> None:
    few, many = (all_reduce_seconds(slow(gpus), 8.0) for gpus in (64, 1024))
    assert many - few == pytest.approx(2 * 4 * exchange.TREE_BETWEEN, rel=1e-6)


def test_buckets_hold_every_gradient_and_are_ready_with_their_last() -> None:
    buckets = in_buckets(EVENLY[::-1], 25 * MB)
    assert [bucket.numbers // MB for bucket in buckets] == [7, 7, 7, 7, 7, 5]
    assert [bucket.ready for bucket in buckets] == pytest.approx([0.175, 0.35, 0.525, 0.7, 0.875, 1.0])
    assert in_buckets(EVENLY, math.inf) == at_the_end(EVENLY) == [Gradients(40 * MB, 1.0)]


def test_what_is_exchanged_at_the_end_is_waited_for_from_beginning_to_end() -> None:
    network = slow(8)
    waits = exposed_seconds(network, at_the_end(EVENLY), 1.0, 4)
    assert waits == pytest.approx(all_reduce_seconds(network, 160 * MB))
    assert waits == pytest.approx(sent_bytes(8, 160 * MB) / 1e9, rel=1e-2)


def test_overlap_hides_all_but_the_last_bucket_where_the_network_keeps_up() -> None:
    network, buckets = slow(8, rate=1e10), in_buckets(EVENLY, 25 * MB)
    last = all_reduce_seconds(network, 4 * buckets[-1].numbers)
    assert exposed_seconds(network, buckets, 1.0, 4) == pytest.approx(last)


def test_two_buckets_by_hand_where_the_network_does_not_keep_up() -> None:
    buckets = [Gradients(250_000_000, 0.5), Gradients(125_000_000, 1.0)]  # 1 and 0.5 s between two GPUs
    waits = exposed_seconds(slow(2), buckets, 1.0, 4)  # the first ends at 1.5 s, the second at 2
    assert waits == pytest.approx(1.0, abs=1e-3)
    assert exposed_seconds(slow(2), buckets, 1.0, 2) == pytest.approx(0.25, abs=1e-3)  # 1, and 1.25
    assert efficiency(1.0, waits) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("exposed", [0.0, 0.1, 1 / 9, 0.12, 3.7])
def test_so_many_micro_batches_are_enough_and_fewer_are_not(exposed: float) -> None:
    count = micro_batches_for(1.0, exposed)
    assert efficiency(1.0, exposed, count) >= exchange.GOOD - 1e-9
    assert count == 1 or efficiency(1.0, exposed, count - 1) < exchange.GOOD


def test_networks_are_what_the_options_say() -> None:
    found = networks(given(gpus=[2, 24], share=0.5))
    assert set(found["NVLink"]) == {2, 4, 8} and {network.hosts for network in found["NVLink"].values()} == {1}
    assert found["NVLink"][8].bandwidth == 370e9
    assert found["InfiniBand, 1 a host"][2].bandwidth == 25e9  # half of 400 Gbit/s
    assert (found["InfiniBand, 8 a host"][24].hosts, found["InfiniBand, 8 a host"][24].bandwidth) == (3, 200e9)
    assert found["Ethernet, 8 a host"][24].bandwidth == pytest.approx(25e9 / 8 / 2)
    assert found["Ethernet, 8 a host"][8].bandwidth == 370e9


def test_scaling_stops_where_the_last_efficient_number_is() -> None:
    by_gpus = {gpus: slow(gpus) for gpus in (2, 4, 8, 16)}
    step = 9 * sent_bytes(4, 160 * MB) / 1e9 + 0.01  # 90 % with four
    way = Way("evenly", EVENLY, step, overlap=False)
    assert exchange._scales_to(way, by_gpus, 25.0, 4) == 4
    assert exchange._scales_to(way, by_gpus, 25.0, 2) == 16


@pytest.mark.parametrize("trains", ["none", "all"])
def test_the_gradients_are_those_of_the_model_in_the_order_of_its_backward(trains: str) -> None:
    found = ready_gradients(trains, 1)
    encoder = EncoderConfig(weights=None, train=trains)
    model = Captioner(ModelConfig(encoder=encoder, decoder=exchange.DECODER), exchange.WORDS)
    assert sum(each.numbers for each in found) == parameter_counts(model)[0]
    assert all(0 < each.ready <= 1 for each in found)
    assert [each.ready for each in found] == sorted(each.ready for each in found)
    first_convolution = 64 * 3 * 7 * 7
    assert (found[-1].numbers == first_convolution) == (trains == "all")


def test_the_command_calculates_every_way_over_every_network(command: Callable[..., Any]) -> None:
    ended = command("tools/bench.py", "exchange", "--gpus", "8", "64", "--images", "1", "--target-ms", "6")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 4 * (1 + 4 + 2)  # eight by NVLink and by two networks, 64 by these and in hosts of eight
    assert found["formats"] == ["fp32", "bf16"]
    for row in rows.values():
        assert row["efficiency"][0] <= row["efficiency"][1] <= 1
        assert ("hidden_ms" in row) == ("eager" in row["name"])
    ethernet = rows["decoder, target, 6 ms, Ethernet, 8 a host, 64 GPUs"]
    assert ethernet["efficiency"][0] < 0.9 and ethernet["micro_batches"][0] > ethernet["micro_batches"][1] > 1
