"""The encoder: torchvision's own network, its strides, and what stays frozen."""

import pytest
import torch
import torchvision

from imgcap.config.model import EncoderConfig
from imgcap.errors import UserError
from imgcap.models.encoders.base import Encoder


def encoder(name: str = "resnet18", **options: object) -> Encoder:
    torch.manual_seed(0)
    built = Encoder(EncoderConfig(name=name, weights=None, **options))
    for module in built.modules():  # statistics of a trained network are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return built


def images(size: int, count: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_features_are_torchvisions_last_stage_on_imagenet_normalised_images(name: str) -> None:
    built = encoder(name).eval()
    reference = torchvision.models.get_model(name, weights=None).eval()
    reference.load_state_dict(built.backbone.state_dict(), strict=False)
    last_stage = {}
    reference.layer4.register_forward_hook(lambda module, given, result: last_stage.update(BEYX=result))
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    reference(normalise(images(70) / 255))
    features_BPE = built(images(70))
    assert features_BPE.shape[-1] == built.width
    expected = last_stage["BEYX"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(features_BPE, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_stride_16_holds_the_cells_of_stride_32_at_every_second_place(name: str) -> None:
    coarse, fine = encoder(name).eval(), encoder(name, output_stride=16).eval()
    fine.load_state_dict(coarse.state_dict())
    features_BPE, finer_BPE = coarse(images(96)), fine(images(96))
    finer_BYXE = finer_BPE.unflatten(1, fine.grid(96))
    torch.testing.assert_close(
        finer_BYXE[:, ::2, ::2], features_BPE.unflatten(1, coarse.grid(96)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("name", "stride"), [("resnet18", 32), ("resnet18", 16), ("resnet50", 16)])
@pytest.mark.parametrize("train", ["none", "last_block"])
@torch.no_grad()
def test_frozen_stages_folded_are_what_they_are_unfolded(name: str, stride: int, train: str) -> None:
    frozen, whole = encoder(name, output_stride=stride, train=train).eval(), encoder(name, output_stride=stride).eval()
    whole.load_state_dict(frozen.state_dict())
    torch.testing.assert_close(frozen(images(64)), whole(images(64)), atol=1e-4, rtol=1e-4)
    assert frozen.state_dict().keys() == whole.state_dict().keys()
    with torch.autocast("cpu", torch.bfloat16):
        half, reference = frozen(images(64)), whole(images(64))
    assert half.dtype == torch.bfloat16 == reference.dtype
    assert (half - reference).float().abs().mean() < 0.02 * reference.float().abs().mean()


@torch.no_grad()
def test_new_weights_of_frozen_stages_are_seen() -> None:
    built, other = encoder(train="none").eval(), encoder(train="all").eval()
    before = built(images(64))
    other.backbone.layer2[0].conv1.weight.normal_(std=0.2)
    built.load_state_dict(other.state_dict())
    torch.testing.assert_close(built(images(64)), other(images(64)), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, built(images(64)), atol=1e-3)
    assert built.double()(images(64)).dtype == torch.float64


@pytest.mark.parametrize("stride", [16, 32])
@torch.no_grad()
def test_the_grid_is_known_before_any_image(stride: int) -> None:
    built = encoder(output_stride=stride).eval()
    for size in (32, 64, 65, 97, 112, 224):
        rows, columns = built.grid(size)
        assert built(images(size, 1)).shape[1] == rows * columns
    assert built.grid(224) == (224 // stride, 224 // stride)


@pytest.mark.parametrize(
    ("train", "trainable_stages"),
    [("none", set()), ("last_block", {"layer4"}), ("all", {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"})],
)
def test_frozen_stages_do_not_move_in_training(train: str, trainable_stages: set[str]) -> None:
    built = encoder(train=train)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    built.eval()
    built.train()
    features_BPE = built(images(64))
    assert features_BPE.requires_grad == bool(trainable_stages)
    if trainable_stages:
        features_BPE.sum().backward()
        torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1).step()
    moved = {name for name, value in built.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in moved} == trainable_stages
    assert {name.split(".")[1] for name in moved if "running" in name} == trainable_stages - {"conv1"}
    assert {name.split(".")[1] for name, p in built.named_parameters() if p.grad is not None} == trainable_stages


def test_channels_last_all_the_way() -> None:
    features_BPE = encoder(train="all")(images(64))
    assert features_BPE.is_contiguous()  # the grid lies as (B, P, E) already: nothing was copied


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="nearest is resnet50 "):
        encoder("resnet5O")
    with pytest.raises(UserError, match="resnext50_32x4d"):
        encoder("resnext50")
    with pytest.raises(UserError, match=r"vgg16.*timm/.*imgcap\[timm\]"):
        encoder("vgg16")


@pytest.mark.parametrize("train", ["last_block", "all"])
def test_stages_computed_again_have_the_same_gradients_and_statistics(train):
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(EncoderConfig(name="resnet18", weights=None, train=train, recompute=recompute))
        images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        encoder(images).square().sum().backward()
        gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
        found.append((gradients, dict(encoder.named_buffers())))
    for plain, again in zip(*found, strict=True):
        assert plain.keys() == again.keys()
        for name, value in plain.items():
            torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-4)
