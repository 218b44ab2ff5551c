"""The Transformer decoder against the equations, written out with torch's own attention and no cache."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from untrained import predict

from imgcap.config.model import TransformerConfig
from imgcap.models.decoders.build import build_decoder
from imgcap.models.decoders.transformer import TransformerDecoder, grid_positions

VOCABULARY, ENCODER_WIDTH = 17, 10
SMALL = TransformerConfig(layers=2, width=16, heads=4, feedforward=24, max_length=12)
KINDS = [
    SMALL,
    SMALL.model_copy(update={"tie_embeddings": False, "image_layers": 2}),
    SMALL.model_copy(update={"grid_positions": False, "layers": 1, "heads": 1}),
]


def random_decoder(config: TransformerConfig, dtype=torch.float64) -> TransformerDecoder:
    """A decoder in eval mode whose every parameter is far from what it is initialised to."""
    torch.manual_seed(3)
    decoder = build_decoder(config, VOCABULARY, ENCODER_WIDTH).to(dtype).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return decoder


def batch(cells=9, tokens=6, dtype=torch.float64):
    torch.manual_seed(4)
    return torch.randn(3, cells, ENCODER_WIDTH, dtype=dtype), torch.randint(4, VOCABULARY, (3, 2, tokens))


def attention_of(width, heads, query, keys_values) -> nn.MultiheadAttention:
    """torch's attention with the weights of `query` (rows of D) and of `keys_values` (2 D), given with the output."""
    module = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64).eval()
    with torch.no_grad():
        for name in ("weight", "bias"):
            rows = torch.cat([getattr(query[0], name)[query[1]], getattr(keys_values[0], name)[keys_values[1]]])
            getattr(module, f"in_proj_{name}").copy_(rows)
    return module


def attend(module, output, query, source, **options):
    module.out_proj.load_state_dict(output.state_dict())
    return module(query, source, source, average_attn_weights=True, **options)


@torch.no_grad()
def reference(decoder, config, features_BPE, tokens_BKT):
    """Logits and attention by the equations, a caption at a time over the whole prefix."""
    width, all_rows = config.width, slice(None)
    cells_BPD = decoder.image_norm(decoder.image(features_BPE))
    if config.grid_positions:
        side = math.isqrt(cells_BPD.shape[1])
        for cell in range(side * side):
            place = []
            for coordinate in divmod(cell, side):
                angles = [coordinate / 10_000 ** (2 * i / (width // 2)) for i in range(width // 4)]
                place += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            cells_BPD[:, cell - side * side] += torch.tensor(place, dtype=torch.float64)
    for layer in decoder.image_layers:
        normed = layer.norm_cells(cells_BPD)
        module = attention_of(width, config.heads, (layer.cells, slice(width)), (layer.cells, slice(width, None)))
        cells_BPD = cells_BPD + attend(module, layer.cells_out, normed, normed)[0]
        cells_BPD = cells_BPD + layer.narrow(F.gelu(layer.wide(layer.norm_wide(cells_BPD))))
    images, captions, length = tokens_BKT[..., :-1].shape
    x_MTD = (decoder.embedding(tokens_BKT[..., :-1]) + decoder.positions.weight[:length]).flatten(0, 1)
    cells_MPD = cells_BPD.repeat_interleave(captions, 0)
    future_TT = torch.ones(length, length).triu(1).bool()
    seen = []
    for layer in decoder.layers:
        normed = layer.norm_words(x_MTD)
        module = attention_of(width, config.heads, (layer.words, slice(width)), (layer.words, slice(width, None)))
        x_MTD = x_MTD + attend(module, layer.words_out, normed, normed, attn_mask=future_TT)[0]
        module = attention_of(width, config.heads, (layer.query, all_rows), (layer.cells, all_rows))
        looked_MTD, attention_MTP = attend(module, layer.cells_out, layer.norm_cells(x_MTD), cells_MPD)
        x_MTD = x_MTD + looked_MTD
        x_MTD = x_MTD + layer.narrow(F.gelu(layer.wide(layer.norm_wide(x_MTD))))
        seen.append(attention_MTP)
    logits_MTV = decoder.output(decoder.norm(x_MTD))
    attention_MTP = torch.stack(seen).mean(0)
    return logits_MTV.unflatten(0, (images, captions)), attention_MTP.unflatten(0, (images, captions))


@pytest.mark.parametrize("cells", [9, 11])  # 11: a class token and a register before a grid of 3 by 3
@pytest.mark.parametrize("config", KINDS)
def test_logits_and_attention_are_those_of_the_equations(config, cells):
    decoder, (features_BPE, tokens_BKT) = random_decoder(config), batch(cells)
    logits_BKTV, attention_BKTP = predict(decoder, features_BPE, tokens_BKT)
    expected_BKTV, expected_BKTP = reference(decoder, config, features_BPE, tokens_BKT)
    torch.testing.assert_close(logits_BKTV, expected_BKTV, rtol=1e-5, atol=1e-6)  # sines are float32
    torch.testing.assert_close(attention_BKTP, expected_BKTP, rtol=1e-5, atol=1e-6)
    assert torch.equal(predict(decoder, features_BPE, tokens_BKT)[0], logits_BKTV)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("config", KINDS)
def test_step_by_step_with_a_cache_is_one_pass(config, grad):
    decoder, (features_BPE, tokens_BKT) = random_decoder(config, torch.float32), batch(dtype=torch.float32)
    logits_BKTV, attention_BKTP = predict(decoder, features_BPE, tokens_BKT)
    with torch.set_grad_enabled(grad):
        state = decoder.init(features_BPE, 2, 9)  # longer than what is read
        for t in range(tokens_BKT.shape[2] - 1):
            logits_BKV, state, attention_BKP = decoder.step(state, tokens_BKT[..., t])
            torch.testing.assert_close(logits_BKV, logits_BKTV[:, :, t], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(attention_BKP, attention_BKTP[:, :, t], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("images", [2, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_search_on_the_host_steps_as_one_of_fixed_shapes(dtype, images):
    """Through every size of its cache, with rows that multiply and change places, and images that leave."""
    decoder, tokens = random_decoder(SMALL, torch.float32), 12
    features_BPE = torch.randn(images, 9, ENCODER_WIDTH)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        fixed = decoder.init(features_BPE, 1, tokens)
        counted = decoder.eager(decoder.init(features_BPE, 1, tokens), attention=False)
        rows, places = 1, []
        for t in range(tokens):
            token_BK = torch.randint(4, VOCABULARY, (len(fixed.place_BKT), rows))
            expected_BKV, fixed, seen_BKP = decoder.step(fixed, token_BK)
            logits_BKV, counted, unseen = decoder.step(counted, token_BK)
            assert seen_BKP is not None and unseen is None
            torch.testing.assert_close(
                logits_BKV, expected_BKV, rtol=2e-2 if dtype != torch.float32 else 1e-4, atol=1e-4
            )
            parent_BW = torch.randint(rows, (len(token_BK), 3))
            fixed, counted, rows = fixed.reorder(parent_BW), counted.reorder(parent_BW), 3
            if t == 6:
                fixed, counted = (state.select(torch.arange(images - 1)) for state in (fixed, counted))
            places.append(counted.cache_LJBNTKC.shape[4])
    assert places == [5] * 5 + [10] * 5 + [12] * 2
    assert torch.equal(counted.place_BKT, fixed.place_BKT)


def test_without_attention_asked_for_the_logits_are_the_same():
    decoder, (features_BPE, tokens_BKT) = random_decoder(SMALL), batch()
    state = decoder.init(features_BPE, 2, 0)
    readout_BKTR, attention_BKTP = decoder.read(state, tokens_BKT)
    fused_BKTR, none = decoder.read(state, tokens_BKT, attention=False)
    assert attention_BKTP is not None and none is None
    torch.testing.assert_close(fused_BKTR, readout_BKTR)


@torch.no_grad()
def test_rows_that_change_places_keep_their_words():
    """Rows are reordered at each step, at first from one to three; each goes on as its own words alone would."""
    decoder, (features_BPE, _) = random_decoder(SMALL), batch()
    state, words = decoder.init(features_BPE, 1, 7), torch.full((3, 1, 1), 1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        logits_BWV, state, _ = decoder.step(copy.deepcopy(state), words[..., -1])
        whole_BWTV, _ = predict(decoder, features_BPE, F.pad(words, (0, 1)))
        torch.testing.assert_close(logits_BWV, whole_BWTV[:, :, -1])
        parents_BW = torch.randint(words.shape[1], (3, 3), generator=generator)
        state = state.reorder(parents_BW)
        said_BWT = words.gather(1, parents_BW[..., None].expand(-1, -1, words.shape[2]))
        words = torch.cat([said_BWT, torch.randint(4, VOCABULARY, (3, 3, 1), generator=generator)], dim=2)


def test_tied_embeddings_are_one_parameter_which_has_both_gradients():
    decoder = random_decoder(SMALL)
    assert decoder.output.weight is decoder.embedding.weight
    untied = build_decoder(KINDS[1], VOCABULARY, ENCODER_WIDTH)
    assert untied.output.weight is not untied.embedding.weight


def test_fresh_weights_prefer_no_word():
    """The first loss of a fresh decoder is that of the uniform distribution, whatever its depth."""
    for layers in (1, 6):
        torch.manual_seed(0)
        decoder = build_decoder(TransformerConfig(layers=layers, width=64), 1000, ENCODER_WIDTH).eval()
        features_BPE, tokens_BKT = torch.randn(8, 9, ENCODER_WIDTH), torch.randint(4, 1000, (8, 2, 9))
        logits_BKTV, _ = predict(decoder, features_BPE, tokens_BKT)
        loss = F.cross_entropy(logits_BKTV.flatten(0, 2), tokens_BKT[..., 1:].flatten())
        assert loss.item() == pytest.approx(math.log(1000), abs=0.1)


def test_positions_of_a_grid_tell_its_cells_apart_by_row_and_column():
    positions_PD = grid_positions(1 + 16, 32, torch.device("cpu"))
    assert positions_PD[0].eq(0).all() and positions_PD.unique(dim=0).shape[0] == 17
    grid_YXD = positions_PD[1:].view(4, 4, 32)
    assert (grid_YXD[:, :1, :16] == grid_YXD[..., :16]).all()  # one half says the row
    assert (grid_YXD[:1, :, 16:] == grid_YXD[..., 16:]).all()  # the other the column
