"""Parameter groups: who learns at which rate, and who decays."""

import torch
from torch import nn

from imgcap.config.model import EncoderConfig, LSTMConfig, ModelConfig
from imgcap.config.training import OptimConfig
from imgcap.models.captioner import Captioner
from imgcap.training.optim.groups import base_rates, build_optimizer


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.decoder = nn.ModuleDict({"embedding": nn.Embedding(9, 4), "cell": nn.LSTMCell(4, 4)})
        self.encoder[0].requires_grad_(False)


CONFIG = OptimConfig(lr=1e-2, encoder_lr=1e-3, weight_decay=0.1)


def test_every_trainable_parameter_is_in_its_one_group() -> None:
    model = Model()
    groups = {group["name"]: group for group in build_optimizer(model, CONFIG).param_groups}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    members = {name: {names[id(p)] for p in group["params"]} for name, group in groups.items()}
    assert members == {
        "encoder": {"encoder.2.weight"},
        "encoder_no_decay": {"encoder.1.weight", "encoder.1.bias", "encoder.2.bias"},
        "decoder": {"decoder.cell.weight_ih", "decoder.cell.weight_hh"},
        "decoder_no_decay": {"decoder.embedding.weight", "decoder.cell.bias_ih", "decoder.cell.bias_hh"},
    }
    assert {name: group["base_lr"] for name, group in groups.items()} == {
        "encoder": 1e-3,
        "encoder_no_decay": 1e-3,
        "decoder": 1e-2,
        "decoder_no_decay": 1e-2,
    }


def test_only_decaying_parameters_shrink_when_there_is_nothing_to_learn() -> None:
    model = Model()
    optimizer = build_optimizer(model, CONFIG)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        shrink = {"encoder.2.weight": 1 - 1e-4}.get(name, 1 - 1e-3 if "cell.weight" in name else 1.0)
        torch.testing.assert_close(parameter.detach(), before[name] * shrink)


def test_the_encoder_learns_at_the_common_rate_unless_it_has_its_own() -> None:
    groups = build_optimizer(Model(), OptimConfig(lr=5e-3)).param_groups
    assert {group["base_lr"] for group in groups} == {5e-3}


def test_a_frozen_encoder_has_no_groups() -> None:
    model = Model()
    model.encoder.requires_grad_(False)
    assert {group["name"] for group in build_optimizer(model, CONFIG).param_groups} == {"decoder", "decoder_no_decay"}


def test_a_step_is_adamws() -> None:
    torch.manual_seed(0)
    model, reference = Model(), Model()
    reference.load_state_dict(model.state_dict())
    optimizer = build_optimizer(model, OptimConfig(lr=1e-2, weight_decay=0.0))
    expected = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.0, fused=False)
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
    for _ in range(3):
        optimizer.step()
        expected.step()
    torch.testing.assert_close(dict(model.named_parameters()), dict(reference.named_parameters()))


def captioner(**encoder: object) -> Captioner:
    return Captioner(ModelConfig(encoder=EncoderConfig(weights=None, **encoder), decoder=LSTMConfig(hidden_dim=8)), 9)


def test_each_stage_learns_at_a_share_of_the_next_one_s_rate() -> None:
    model = captioner(name="resnet18", train="layer2")
    groups = build_optimizer(model, CONFIG.model_copy(update={"layer_decay": 0.5})).param_groups
    rates = {group["name"]: group["base_lr"] for group in groups}
    assert rates == {
        f"{part}{kind}": rate
        for part, rate in {
            "encoder.layer4": 1e-3,
            "encoder.layer3": 5e-4,
            "encoder.layer2": 2.5e-4,
            "decoder": 1e-2,
        }.items()
        for kind in ("", "_no_decay")
    }
    assert base_rates(groups) == {"lr": 1e-2, "encoder_lr": 1e-3}
    rate_of = {id(parameter): group["base_lr"] for group in groups for parameter in group["params"]}
    assert rate_of.keys() == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert {rate_of[id(parameter)] for parameter in model.encoder.backbone.layer3.parameters()} == {5e-4}


def test_positions_class_tokens_and_scales_do_not_decay() -> None:
    model = captioner(name="convnext_tiny", train="last_block")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, CONFIG).param_groups
    decaying = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decaying and all(name.rpartition(".")[2].startswith("weight") for name in decaying)  # of cells, _ih and _hh
    assert any("layer_scale" in name for name in names.values())
