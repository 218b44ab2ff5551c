"""The decoders against the papers' equations, step by step, and against torch's own LSTM."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from untrained import predict

from imgcap.config.model import AttentionLSTMConfig, EncoderConfig, ModelConfig
from imgcap.models.captioner import Captioner
from imgcap.models.decoders.base import Decoder
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.forcing import unroll
from imgcap.models.decoders.lstm_stack import LSTMStackDecoder
from imgcap.models.kernels.dropout import Dropout
from imgcap.types import EOS, PAD, SOS, Forcing

B, K, T, V, P, E = 3, 4, 7, 23, 6, 10
SIZES = {"embed_dim": 8, "hidden_dim": 9, "attention_dim": 5, "dropout": 0.0}


def decoder(**options: object) -> Decoder:
    torch.manual_seed(0)
    built = build_decoder(ModelConfig(decoder=SIZES | options).decoder, V, E)
    for parameter in built.parameters():  # initial zeros would hide a bias that is used twice or not at all
        nn.init.normal_(parameter, std=0.3)
    return built


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and captions of every length; the last caption of the last image is missing."""
    random = torch.Generator().manual_seed(1)
    features_BPE = torch.randn(B, P, E, generator=random)
    tokens_BKT = torch.full((B, K, T), PAD)
    for row in range(B * K - 1):
        words = torch.randint(4, V, (row % (T - 1),), generator=random)
        tokens_BKT.view(-1, T)[row, : len(words) + 2] = torch.tensor([SOS, *words.tolist(), EOS])
    return features_BPE, tokens_BKT


def naive_attention(
    w: dict[str, torch.Tensor], options: dict, features_PE: torch.Tensor, h: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The context and the weights of one step."""
    energies = []
    for cell_E in features_PE:
        cell_A = w["attention.features.weight"] @ cell_E + w["attention.features.bias"]
        query_A = w["attention.query.weight"] @ h
        if options.get("attention") == "dot":
            energies.append(sum(cell_A * query_A) / len(cell_A) ** 0.5)
        else:
            energies.append(
                w["attention.score.weight"][0] @ torch.tanh(cell_A + query_A) + w["attention.score.bias"][0]
            )
    alpha_P = torch.stack(energies).exp() / sum(energy.exp() for energy in energies)
    z = sum(alpha * cell_E for alpha, cell_E in zip(alpha_P, features_PE, strict=True))
    if options.get("gate", True):
        z = z / (1 + torch.exp(-(w["gate.weight"] @ h + w["gate.bias"])))
    return z, alpha_P


def naive_unroll(
    weights: dict[str, torch.Tensor], options: dict, features_PE: torch.Tensor, tokens: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One caption of one image, word by word, from the equations of Xu et al. 2015 (sections 3.1.2 and 4.2).

    With query: after, the recurrence of Luong et al. 2015 (section 3.1) in their place.
    """
    after = options.get("query") == "after"
    w, hidden_dim = weights, weights["cells.0.weight_hh"].shape[1]
    if "feature_dim" in options:
        embed, bias = w["embed_features.weight"], w["embed_features.bias"]
        features_PE = torch.stack([(embed @ cell_E + bias).clamp(min=0) for cell_E in features_PE])
    layers = options.get("layers", 1)
    mean_E = sum(features_PE) / len(features_PE)
    h = [torch.zeros(hidden_dim) for _ in range(layers)]
    c = [torch.zeros(hidden_dim) for _ in range(layers)]
    if options.get("init_state", "mean") == "mean":
        all_h = torch.tanh(w["init_hidden.weight"] @ mean_E + w["init_hidden.bias"])
        all_c = torch.tanh(w["init_cell.weight"] @ mean_E + w["init_cell.bias"])
        h = [all_h[layer * hidden_dim : (layer + 1) * hidden_dim] for layer in range(layers)]
        c = [all_c[layer * hidden_dim : (layer + 1) * hidden_dim] for layer in range(layers)]
    logits, attention = [], []
    for token in tokens[:-1]:
        word = w["embedding.weight"][token]
        if not after:
            z, alpha_P = naive_attention(w, options, features_PE, h[-1])
        x = word if after else torch.cat([word, z])
        for layer in range(layers):
            names = [f"cells.{layer}.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            w_ih, w_hh, b_ih, b_hh = (w[name] for name in names)
            i, f, g, o = (w_ih @ x + b_ih + w_hh @ h[layer] + b_hh).view(4, hidden_dim)
            c[layer] = torch.sigmoid(f) * c[layer] + torch.sigmoid(i) * torch.tanh(g)
            h[layer] = x = torch.sigmoid(o) * torch.tanh(c[layer])
        if after:
            z, alpha_P = naive_attention(w, options, features_PE, h[-1])
        readout = h[-1]
        if options.get("output") == "deep" or after:
            readout = w["output_hidden.weight"] @ h[-1] + w["output_context.weight"] @ z
            readout = word + readout if options.get("output") == "deep" else torch.tanh(readout)
        logits.append(w["output.weight"] @ readout + w["output.bias"])
        attention.append(alpha_P)
    return torch.stack(logits), torch.stack(attention)


VARIANTS = [
    {"type": "attention_lstm"},
    {"type": "attention_lstm", "layers": 2},
    {"type": "attention_lstm", "output": "deep"},
    {"type": "attention_lstm", "layers": 2, "output": "deep", "gate": False},
    {"type": "attention_lstm", "layers": 3, "init_state": "zeros", "gate": False},
    {"type": "attention_lstm", "feature_dim": 7, "output": "deep"},
    {"type": "attention_lstm", "query": "after"},
    {"type": "attention_lstm", "query": "after", "layers": 2, "attention": "dot", "output": "deep"},
    {"type": "attention_lstm", "query": "after", "attention": "dot", "gate": False, "init_state": "zeros"},
]
LSTMS = [*VARIANTS, {"type": "lstm"}, {"type": "lstm", "layers": 2, "image_layers": 2}]
TRANSFORMERS = [
    {"type": "transformer", "layers": 2, "width": 8, "heads": 2, "feedforward": 12, "image_layers": 1},
    {"type": "transformer", "layers": 1, "width": 8, "heads": 4, "tie_embeddings": False, "grid_positions": False},
]
ALL = [*LSTMS, *TRANSFORMERS]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@torch.no_grad()
def test_unroll_follows_the_papers(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    logits_BKTV, attention_BKTP = predict(model, features_BPE, tokens_BKT)
    for b in range(B):
        for k in range(K):
            expected = naive_unroll(model.state_dict(), options, features_BPE[b], tokens_BKT[b, k].tolist())
            torch.testing.assert_close((logits_BKTV[b, k], attention_BKTP[b, k]), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_unroll_is_show_attend_and_tell_at_full_size() -> None:
    torch.manual_seed(0)
    model = build_decoder(AttentionLSTMConfig(dropout=0.0), 1000, 2048)
    features_BPE, tokens_BKT = torch.randn(1, 49, 2048).relu(), torch.randint(4, 1000, (1, 2, 8))
    logits_BKTV, _ = predict(model, features_BPE, tokens_BKT)
    for k in range(2):
        expected, _ = naive_unroll(model.state_dict(), {}, features_BPE[0], tokens_BKT[0, k].tolist())
        torch.testing.assert_close(logits_BKTV[0, k], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_lstm_is_torchs_lstm_after_the_image(layers: int) -> None:
    model, (features_BPE, tokens_BKT) = decoder(type="lstm", layers=layers, image_layers=2), batch()
    reference = nn.LSTM(SIZES["embed_dim"], SIZES["hidden_dim"], layers, batch_first=True)
    for layer, cell in enumerate(model.cells):
        for name, parameter in cell.named_parameters():
            getattr(reference, f"{name}_l{layer}").copy_(parameter)
    first, second, projection = [module for module in model.image if isinstance(module, nn.Linear)]
    image_BE = features_BPE.mean(1)
    image_BD = projection(second(first(image_BE).relu()).relu())
    words_NTD = model.embedding(tokens_BKT[..., :-1]).flatten(0, 1)
    inputs = torch.cat([image_BD.repeat_interleave(K, 0)[:, None], words_NTD], dim=1)
    expected = model.output(reference(inputs)[0][:, 1:]).unflatten(0, (B, K))
    logits_BKTV, attention = predict(model, features_BPE, tokens_BKT)
    assert attention is None
    torch.testing.assert_close(logits_BKTV, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", ALL, ids=str)
@torch.no_grad()
def test_steps_give_what_unroll_gives(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    logits_BKTV, attention_BKTP = predict(model, features_BPE, tokens_BKT)
    state = model.init(features_BPE, K, T)
    for t in range(T - 1):
        logits_BKV, state, attention_BKP = model.step(state, tokens_BKT[..., t])
        torch.testing.assert_close(logits_BKV, logits_BKTV[:, :, t], atol=1e-5, rtol=0)
        if attention_BKTP is not None:
            torch.testing.assert_close(attention_BKP, attention_BKTP[:, :, t], atol=1e-6, rtol=0)


class FixedDropout(Dropout):
    """Drops the same third of the entries of every row, so that two ways to compute drop the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.tensor([0.0, 1.5, 1.5]).repeat(x.shape[-1])[: x.shape[-1]]


@pytest.mark.parametrize("options", LSTMS, ids=str)
@pytest.mark.parametrize("cells", [P, T * K], ids=["few cells", "more cells than steps"])
def test_the_function_over_all_steps_has_the_plain_loops_values_and_gradients(options: dict, cells: int) -> None:
    """Also through attention, as its penalty asks, and with dropout between layers."""
    model, (_, tokens_BKT) = decoder(**options).double().train(), batch()
    model.dropout = FixedDropout(1 / 3)
    features_BPE = torch.randn(B, cells, E, dtype=torch.float64, requires_grad=True)
    results = [
        values_and_gradients(model, partial(read, model), features_BPE, tokens_BKT)
        for read in (LSTMStackDecoder.read, type(model).read)
    ]
    torch.testing.assert_close(results[0], results[1])


def values_and_gradients(
    model: Decoder, read: Callable, features_BPE: torch.Tensor, tokens_BKT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[torch.Tensor, ...]]:
    """Logits and attention of the steps that predict a word, and gradients of all that the decoder reads."""
    readout_BKTR, attention_BKTP = read(model.init(features_BPE, K, T), tokens_BKT)
    predicts_BKT1 = (tokens_BKT[..., 1:] != PAD)[..., None]
    logits_BKTV = model.output(readout_BKTR) * predicts_BKT1
    loss = logits_BKTV.square().sum()
    if attention_BKTP is not None:
        attention_BKTP = attention_BKTP * predicts_BKT1
        loss = loss + 7 * (1 - attention_BKTP.sum(2)).square().sum()
    learning = [features_BPE, *model.parameters()]
    return logits_BKTV, attention_BKTP, torch.autograd.grad(loss, learning, allow_unused=True)


@pytest.mark.parametrize("options", ALL, ids=str)
def test_what_lies_behind_a_captions_end_is_not_computed_and_not_missed(options: dict, monkeypatch) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options).double().train(), batch()
    model.dropout = FixedDropout(1 / 3)
    features_BPE = features_BPE.double().requires_grad_()
    rows: list[int] = []
    model.output.register_forward_hook(lambda _, given, __: rows.append(int(given[0].any(-1).sum())))
    found = values_and_gradients(model, model.read, features_BPE, tokens_BKT)
    monkeypatch.setattr("imgcap.models.packed.MOST", 0.0)
    expected = values_and_gradients(model, model.read, features_BPE, tokens_BKT)
    torch.testing.assert_close(found, expected)
    words, missing = int((tokens_BKT[..., 1:] != PAD).sum()), options["type"] != "transformer"
    assert rows == [words + missing, B * K * (T - 1)]


@pytest.mark.parametrize("options", ALL, ids=str)
def test_a_ratio_of_one_gives_the_given_tokens(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    given, _ = predict(model, features_BPE, tokens_BKT)
    mixed, _ = predict(model, features_BPE, tokens_BKT, Forcing(torch.tensor(1.0), torch.rand(B, K, T)))
    torch.testing.assert_close(given, mixed)


@pytest.mark.parametrize("options", ALL, ids=str)
@torch.no_grad()
def test_forcing_in_turn_reads_the_models_words_after_those_it_read(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    coins_BKT = torch.rand(B, K, T, generator=torch.Generator().manual_seed(3))
    ratio = torch.tensor(0.5)
    logits_BKTV, _ = predict(model, features_BPE, tokens_BKT, Forcing(ratio, coins_BKT))
    read_BKT = mixed(tokens_BKT, logits_BKTV, coins_BKT >= ratio)
    expected, _ = predict(model, features_BPE, read_BKT)
    torch.testing.assert_close(logits_BKTV, expected, atol=1e-5, rtol=0)


def mixed(tokens_BKT: torch.Tensor, logits_BKTV: torch.Tensor, own_BKT: torch.Tensor) -> torch.Tensor:
    """The true words, and in their place the model's own where that is asked for and neither is padding."""
    true_BKT, guess_BKT = tokens_BKT[..., 1:], logits_BKTV.argmax(-1)
    read_BKT = tokens_BKT.clone()
    words_BKT = (true_BKT != PAD) & (guess_BKT != PAD)
    read_BKT[..., 1:] = torch.where(own_BKT[..., :-1] & words_BKT, guess_BKT, true_BKT)
    assert not torch.equal(read_BKT, tokens_BKT)
    return read_BKT


@pytest.mark.parametrize("two_pass", [False, True])
@pytest.mark.parametrize("options", ALL, ids=str)
def test_a_guess_of_padding_ends_no_caption(options: dict, two_pass: bool) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    with torch.no_grad():
        model.output.bias[PAD] = 1000.0
    forcing = Forcing(torch.tensor(0.0), torch.rand(B, K, T), two_pass)
    given, _ = predict(model, features_BPE, tokens_BKT)
    guessed, _ = predict(model, features_BPE, tokens_BKT, forcing)
    torch.testing.assert_close(guessed, given, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", ALL, ids=str)
def test_forcing_in_two_passes_reads_the_models_words_after_the_true_ones(options: dict) -> None:
    """Values and gradients: none flows through the first pass."""
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    coins_BKT = torch.rand(B, K, T, generator=torch.Generator().manual_seed(3))
    first, _ = predict(model, features_BPE, tokens_BKT)
    read_BKT = mixed(tokens_BKT, first, coins_BKT >= 0.5)
    results = []
    for tokens, forcing in ((tokens_BKT, Forcing(torch.tensor(0.5), coins_BKT, two_pass=True)), (read_BKT, None)):
        logits_BKTV, _ = predict(model, features_BPE, tokens, forcing)
        results.append((logits_BKTV, torch.autograd.grad(logits_BKTV.square().mean(), list(model.parameters()))))
    torch.testing.assert_close(*results)
    assert not torch.equal(results[0][0], first)


@pytest.mark.parametrize("options", ALL, ids=str)
@torch.no_grad()
def test_reorder_moves_rows_and_shares_the_memory(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    _, state, _ = model.step(model.init(features_BPE, K, T), tokens_BKT[..., 0])
    _, state, _ = model.step(state, tokens_BKT[..., 1])
    beams_BW = torch.tensor([[3, 3, 0, 1], [0, 1, 2, 3], [2, 1, 1, 0]])
    moved = state.reorder(beams_BW)
    shared = ("features_BPE", "projected_BPA") if options in LSTMS else ("cells_LJBNPC", "cache_LJBNTKC")
    assert moved.prepared is state.prepared
    assert all(getattr(moved, name) is getattr(state, name) for name in shared)
    before, _, _ = model.step(state, tokens_BKT[..., 2])
    after, _, _ = model.step(moved, tokens_BKT[..., 2].gather(1, beams_BW))
    for b in range(B):
        torch.testing.assert_close(after[b], before[b, beams_BW[b]])


@pytest.mark.parametrize("options", ALL, ids=str)
@torch.no_grad()
def test_images_and_captions_do_not_see_each_other(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    whole, _ = predict(model, features_BPE, tokens_BKT)
    alone, _ = predict(model, features_BPE[1:2], tokens_BKT[1:2, 2:3])
    torch.testing.assert_close(alone, whole[1:2, 2:3], atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", ALL, ids=str)
def test_autocast_stays_near_float32_and_keeps_the_cell_state_exact(options: dict) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    exact, _ = predict(model, features_BPE, tokens_BKT)
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = predict(model, features_BPE, tokens_BKT)
        _, state, _ = model.step(model.init(features_BPE, K, T), tokens_BKT[..., 0])
        readout, _ = unroll(model, features_BPE, tokens_BKT)
        forcing = Forcing(torch.tensor(0.5), torch.rand(B, K, T), two_pass=len(options) % 2 == 0)
        forced, _ = unroll(model, features_BPE, tokens_BKT, forcing)
    if options in LSTMS:
        assert state.cell_LBKH.dtype == torch.float32 and state.hidden_LBKH.dtype == torch.bfloat16
    else:
        assert state.cache_LJBNTKC.dtype == state.cells_LJBNPC.dtype == torch.bfloat16
    assert readout.dtype == torch.bfloat16, "the head computes in the dtype of what it reads"
    forced.float().square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    tied = model.output.weight is model.embedding.weight
    assert without == (["output.bias"] if tied else ["output.weight", "output.bias"]), (
        "the choice of words took no gradient away"
    )
    assert (logits - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_dropout_acts_in_training_only() -> None:
    for options in ALL:
        model, (features_BPE, tokens_BKT) = decoder(**(options | {"dropout": 0.5})), batch()
        assert not torch.equal(predict(model, features_BPE, tokens_BKT)[0], predict(model, features_BPE, tokens_BKT)[0])
        model.eval()
        assert torch.equal(predict(model, features_BPE, tokens_BKT)[0], predict(model, features_BPE, tokens_BKT)[0])


COMPILED = [
    pytest.param("aot_eager", ALL[3], None, False, id="attention"),
    pytest.param("aot_eager", ALL[3], 0.5, False, id="attention-in-turn"),
    pytest.param("aot_eager", VARIANTS[-1], 0.5, True, id="after-two-pass"),
    pytest.param("aot_eager", LSTMS[-1], 0.5, False, id="lstm-in-turn"),
    pytest.param("aot_eager", TRANSFORMERS[0], None, False, id="transformer"),
    pytest.param("aot_eager", TRANSFORMERS[1], 0.5, False, id="transformer-in-turn"),
    pytest.param("inductor", ALL[3], None, False, id="attention-inductor", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "options", "ratio", "two_pass"), COMPILED)
def test_unroll_compiles_to_one_graph(backend: str, options: dict, ratio: float | None, two_pass: bool) -> None:
    model, (features_BPE, tokens_BKT) = decoder(**options), batch()
    tokens_BKT = tokens_BKT[..., :3]
    forcing = None if ratio is None else Forcing(torch.tensor(ratio), torch.rand(B, K, 3), two_pass)
    compiled = torch.compile(partial(predict, model), backend=backend, fullgraph=True, dynamic=False)
    results = []
    for run in (partial(predict, model), compiled):
        logits_BKTV, _ = run(features_BPE, tokens_BKT, forcing)
        logits_BKTV = logits_BKTV * (tokens_BKT[..., 1:] != PAD)[..., None]
        results.append((logits_BKTV, torch.autograd.grad(logits_BKTV.square().mean(), list(model.parameters()))))
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)


def trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


IMGCAP = {"layers": 2, "embed_dim": 1024, "hidden_dim": 1024, "attention_dim": 1024}


def test_parameter_counts_of_the_imgcap_models() -> None:
    with torch.device("meta"):
        encoder = EncoderConfig(name="resnet50", weights=None)
        attention = AttentionLSTMConfig(init_state="zeros", gate=False, **IMGCAP)
        model = Captioner(ModelConfig(encoder=encoder, decoder=attention), 4096)
        assert trainable(model) == 36_722_689
        lstm = {"type": "lstm", "image_layers": 2, **IMGCAP}
        model = Captioner(ModelConfig(encoder=encoder, decoder=lstm), 4096)
    assert trainable(model) == 29_383_680
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 23_508_032
    assert sum(parameter.numel() for parameter in model.parameters()) == 52_891_712
