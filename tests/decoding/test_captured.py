"""Captured searches, as far as a CPU has them: the same captions from static tensors, in graphs kept and left."""

import gc
import weakref

import pytest
import torch
from naive_search import DECODERS, NAMES, named, tiny
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from imgcap.config.decoding import DecodeOptions
from imgcap.config.model import AttentionLSTMConfig, DecoderConfig
from imgcap.decoding import captured
from imgcap.decoding.captured import CapturedSteps
from imgcap.decoding.constraints import Constraints
from imgcap.decoding.ensemble import Ensemble
from imgcap.decoding.frontier import Banks, Frontier, Groups, Likeliest, Samples
from imgcap.decoding.generate import generate
from imgcap.decoding.hypotheses import Hypotheses
from imgcap.decoding.live import advance, begin
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.build import build_decoder
from imgcap.models.kernels import graphs
from imgcap.models.kernels.gpu import dispatch
from imgcap.types import EOS, PAD, SOS

CPU = torch.device("cpu")
WORDS = 30
LENGTH = 9
METHODS = {
    "beam": DecodeOptions(beam=5, best=3),
    "greedy": DecodeOptions(method="greedy"),
    "wider than the vocabulary": DecodeOptions(beam=40, best=40, length_penalty=0.3),
    "n-gram": DecodeOptions(beam=3, best=3, min_length=3, no_repeat_ngram=2, banned=("w05", "<unk>")),
    "longest n-gram": DecodeOptions(beam=2, no_repeat_ngram=LENGTH + 3),
    "required": DecodeOptions(beam=3, best=2, required=("w05", "w14")),
    "diverse": DecodeOptions(method="diverse", beam=6, best=6, groups=3),
    "sample": DecodeOptions(method="sample", samples=4, seed=3),
    "sample cut": DecodeOptions(method="sample", samples=3, top_k=9, top_p=0.8, temperature=0.7, no_repeat_ngram=1),
}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> CapturedSteps:
    """Captured steps of this test alone, with graphs of down to one image, for searches where `DEVICES` has the CPU."""
    own = CapturedSteps(CPU)
    monkeypatch.setattr("imgcap.decoding.search.captured_steps", lambda device: own)
    monkeypatch.setattr(captured, "SMALLEST", 1)
    return own


def images(count: int, seed: int, width: int = 10) -> Tensor:
    return torch.randn(count, 4, width, generator=torch.Generator().manual_seed(seed))


def both(
    monkeypatch: pytest.MonkeyPatch,
    decoders: list[Decoder],
    features_BPE: list[Tensor],
    options: DecodeOptions,
    attention: bool = False,
) -> tuple[Hypotheses, Hypotheses]:
    """The plain search's captions and the captured one's."""
    found = []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(captured, "DEVICES", devices)
        keys = torch.arange(len(features_BPE[0])) * 7
        found.append(generate(decoders, features_BPE, options, named(WORDS), LENGTH, attention, image_keys=keys))
    return found[0], found[1]


def assert_equal(plain: Hypotheses, static: Hypotheses) -> None:
    assert torch.equal(plain.tokens_BWL, static.tokens_BWL)
    assert torch.equal(plain.lengths_BW, static.lengths_BW)
    torch.testing.assert_close(static.scores_BW, plain.scores_BW, rtol=1e-5, atol=1e-5)
    assert (plain.attention_BLP is None) == (static.attention_BLP is None)
    if plain.attention_BLP is not None:
        torch.testing.assert_close(static.attention_BLP, plain.attention_BLP)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("config", "attention"),
    list(zip(DECODERS, [True, True, False, True, True], strict=True)),
    ids=NAMES,
)
def test_captions_are_those_of_the_plain_search(
    config: DecoderConfig, attention: bool, method: str, steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of images, again with the same graphs, other pictures, and weights that have changed."""
    decoder, _ = tiny(config, seed=2, vocabulary=WORDS, sharp=12)
    for round_, count in enumerate((3, 9, 3, 1, 5, 9)):
        if round_ == 2:
            with torch.no_grad():
                for weight in decoder.parameters():
                    weight.mul_(0.9)
                decoder.output.bias[EOS] += 2.0  # captions end sooner
        features_BPE = images(count, seed=round_)
        assert_equal(*both(monkeypatch, [decoder], [features_BPE], METHODS[method], attention))
    sizes = {len(kept.live.images_R) for kept in steps.kept}
    assert sizes >= {1, 4, 8, 16}


def test_an_ensemble_of_unlike_decoders(steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = [tiny(config, seed, WORDS, 10 + seed, 8)[0] for seed, config in enumerate(DECODERS)]
    for count in (5, 6):
        features = [images(count, seed=10 * count + own, width=10 + own) for own in range(len(decoders))]
        for method in ("beam", "n-gram", "required", "sample"):
            assert_equal(*both(monkeypatch, decoders, features, METHODS[method]))
    assert len({id(kept) for kept in steps.kept}) == len(steps.kept) <= captured.KEPT


def test_in_mixed_precision_and_without_are_other_graphs(steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = tiny(DECODERS[2], seed=2, vocabulary=WORDS, sharp=12)
    for enabled in (False, True, False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert_equal(*both(monkeypatch, [decoder], [images(5, 1)], METHODS["beam"]))
    dtypes = {kept.live.state.states[0].hidden_LBKH.dtype for kept in steps.kept}
    assert dtypes == {torch.float32, torch.bfloat16}


def test_what_was_found_stays_when_others_search(steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = tiny(DECODERS[1], seed=2, vocabulary=WORDS, sharp=12)
    _, first = both(monkeypatch, [decoder], [images(8, 0)], METHODS["beam"], attention=True)
    kept = [tensor.clone() for tensor in vars(first).values()]
    both(monkeypatch, [decoder], [images(8, 1)], METHODS["beam"], attention=True)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(vars(first).values(), kept, strict=True))


def test_graphs_are_kept_from_search_to_search_and_not_too_many(
    steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, _ = tiny(DECODERS[1], seed=2, vocabulary=WORDS, sharp=12)
    both(monkeypatch, [decoder], [images(4, 0)], METHODS["beam"])
    before = list(steps.kept)
    both(monkeypatch, [decoder], [images(3, 1)], DecodeOptions(beam=5, length_penalty=0.2))
    assert set(map(id, before)) <= set(map(id, steps.kept))
    for beam in range(1, captured.KEPT + 2):
        both(monkeypatch, [decoder], [images(2, 0)], DecodeOptions(beam=beam))
    assert len(steps.kept) == captured.KEPT
    assert steps.kept[0].live.log_prob_RW.shape[1] == captured.KEPT + 1, "those used last stay"


def test_what_a_graph_holds_makes_another_graph(steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = tiny(DECODERS[1], seed=2, vocabulary=WORDS, sharp=12)

    def used() -> object:
        assert_equal(*both(monkeypatch, [decoder], [images(1, 0)], METHODS["beam"]))
        return steps.kept[0]

    first = used()
    assert used() is first
    decoder.output.weight = torch.nn.Parameter(decoder.output.weight + 1)
    moved = used()
    assert moved is not first
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert used() not in (first, moved)
    decoder.train()
    decoder.dropout.p = 0.0
    assert used() not in (first, moved) and len(steps.kept) == 4


def test_a_decoder_that_is_no_more_takes_its_graphs_with_it(
    steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, other = (tiny(DECODERS[1], seed, vocabulary=WORDS, sharp=12)[0] for seed in (1, 2))
    both(monkeypatch, [decoder, other], [images(4, 0)] * 2, METHODS["beam"])
    both(monkeypatch, [other], [images(4, 0)], METHODS["beam"])
    static = weakref.ref(next(kept for kept in steps.kept if len(kept.members) == 2))
    gone = weakref.ref(decoder)
    gc.disable()  # nothing may wait for it
    try:
        del decoder
        assert gone() is None and static() is None
    finally:
        gc.enable()
    assert steps.kept and all(len(kept.members) == 1 for kept in steps.kept)


def test_a_search_goes_on_without_graphs_where_none_can_be_captured(
    steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fourth call of each graph fails, as a capture may, before it has computed anything."""
    call, calls = graphs.Graph.__call__, {}

    def fails(graph: graphs.Graph) -> object:
        calls[graph] = calls.get(graph, 0) + 1
        if calls[graph] > 3:
            raise graphs.NotCaptured("operation not permitted")
        return call(graph)

    monkeypatch.setattr(graphs.Graph, "__call__", fails)
    captured._say.cache_clear()
    decoder, _ = tiny(DECODERS[1], seed=2, vocabulary=WORDS, sharp=12)
    for seed in range(5):
        assert_equal(*both(monkeypatch, [decoder], [images(5, seed)], METHODS["beam"]))
    assert max(calls.values()) == 4, "what failed once is not tried again"
    assert capsys.readouterr().err == "searching without CUDA graphs, more slowly: operation not permitted\n"


def test_the_host_looks_once_in_several_steps(steps: CapturedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = tiny(DECODERS[1], seed=2, vocabulary=WORDS, sharp=12)
    with torch.no_grad():
        decoder.output.bias[EOS] += 1000.0  # one step is enough
    taken = []
    monkeypatch.setattr(captured, "advance", lambda *step: taken.append(step[2]) or advance(*step))
    both(monkeypatch, [decoder], [images(4, 0)], METHODS["greedy"])
    assert taken == [False] * captured.LOOK


CONSTRAINTS = {"min_length": 2, "no_repeat_ngram": 2}


@pytest.mark.parametrize("last", [False, True], ids=["step", "last"])
@pytest.mark.parametrize("method", ["beam", "groups", "banks", "samples", "samples cut"])
@pytest.mark.parametrize("config", [*DECODERS, AttentionLSTMConfig(gate=True, layers=2)])
def test_a_step_reads_nothing_on_the_host_and_stays_on_the_device(
    config: DecoderConfig, method: str, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of a GPU without one: they have no values, so that a host read raises, as does one that is elsewhere."""
    monkeypatch.setattr(dispatch, "DEVICES", frozenset())  # kernels want values
    with FakeTensorMode(), torch.no_grad(), torch.device("cuda"):
        sizes = {"embed_dim": 6, "hidden_dim": 8} | ({"attention_dim": 5} if config.attends else {})
        decoder = build_decoder(config.model_copy(update=sizes), WORDS, 10).eval()
        frontiers: dict[str, Frontier] = {
            "beam": Likeliest(5),
            "groups": Groups(2, 2, 0.5),
            "banks": Banks(3, torch.tensor([5, 6]), LENGTH),
            "samples": Samples(torch.rand(4, 3, LENGTH)),
            "samples cut": Samples(torch.rand(4, 3, LENGTH), 0.7, 9, 0.8),
        }
        constraints = Constraints(torch.tensor([PAD, SOS]), **CONSTRAINTS)
        ensemble, features = Ensemble([decoder, decoder]), [torch.zeros(4, 7, 10)] * 2
        live = begin(ensemble, features, frontiers[method], constraints, LENGTH, 0.7, True, whole_beam=True)
        with torch.device("cpu"):  # what a step makes has to name its device
            after = advance(live, ensemble, last)
        fields = graphs.tree_flatten(live)[0], graphs.tree_flatten(after)[0]
        for before, now in zip(*fields, strict=True):
            if isinstance(before, Tensor):
                assert (now.shape, now.dtype, now.device) == (before.shape, before.dtype, before.device)
                assert now.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            int(after.open().sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures need a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_captures_on_a_gpu_find_the_plain_search_s_captions(
    method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = CapturedSteps(torch.device("cuda", torch.cuda.current_device()))
    monkeypatch.setattr("imgcap.decoding.search.captured_steps", lambda device: own)
    captured._say.cache_clear()
    decoder = tiny(DECODERS[2], seed=2, vocabulary=WORDS, sharp=12)[0].to(own.device)
    for seed, count in enumerate((20, 17, 20, 5, 20)):
        features_BPE = images(count, seed).to(own.device)
        found = []
        for devices in ((), ("cuda",)):
            monkeypatch.setattr(captured, "DEVICES", devices)
            found.append(generate([decoder], [features_BPE], METHODS[method], named(WORDS), LENGTH, attention=True))
        assert_equal(*found)
    assert any(graph._graph is not None for kept in own.kept for graph in kept._graphs.values())  # type: ignore[attr-defined]
    assert not capsys.readouterr().err
