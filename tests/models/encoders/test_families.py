"""Every family of networks against its own library: features, stages, and frozen stages folded."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from families import ALL, SMALL
from PIL import Image
from torch import Tensor, nn

from imgcap.config.model import EncoderConfig
from imgcap.data.augmentation import eval_image
from imgcap.errors import UserError
from imgcap.models.encoders.base import Encoder
from imgcap.models.encoders.frozen import folded
from imgcap.models.encoders.networks import input_of

ViT = torchvision.models.VisionTransformer


def _vit(network: ViT, x_BCYX: Tensor) -> Tensor:
    patches_BPE = network._process_input(x_BCYX)
    return network.encoder(torch.cat([network.class_token.expand(len(x_BCYX), -1, -1), patches_BPE], 1))[:, 1:]


def _grid(features_BCYX: Tensor) -> Tensor:
    return features_BCYX.flatten(2).transpose(1, 2)


LAST = {  # features of torchvision's networks, as their own forwards compute them before pooling
    "resnet18": lambda net, x: _grid(nn.Sequential(*list(net.children())[:-2])(x)),
    "wide_resnet50_2": lambda net, x: _grid(nn.Sequential(*list(net.children())[:-2])(x)),
    "resnext50_32x4d": lambda net, x: _grid(nn.Sequential(*list(net.children())[:-2])(x)),
    "regnet_y_400mf": lambda net, x: _grid(net.trunk_output(net.stem(x))),
    "mobilenet_v2": lambda net, x: _grid(net.features(x)),
    "mobilenet_v3_small": lambda net, x: _grid(net.features(x)),
    "efficientnet_b0": lambda net, x: _grid(net.features(x)),
    "efficientnet_v2_s": lambda net, x: _grid(net.features(x)),
    "convnext_tiny": lambda net, x: _grid(net.features(x)),
    "densenet121": lambda net, x: _grid(net.features(x).relu()),
    "swin_t": lambda net, x: _grid(net.permute(net.norm(net.features(x)))),
    "swin_v2_t": lambda net, x: _grid(net.permute(net.norm(net.features(x)))),
    "vit_b_32": _vit,
}


def encoder(name: str, **options: object) -> Encoder:
    """An encoder in eval mode, nothing of which is constant: no gain of 1e-6 hides a block, no bias of 0 a mistake."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    built = Encoder(EncoderConfig(name=name, weights=None, **options)).eval()
    for parameter in built.backbone.parameters():
        if parameter.min() == parameter.max():
            nn.init.normal_(parameter, parameter.mean().item(), 0.1)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return built


def images(built: Encoder, count: int = 2) -> Tensor:
    size = 96 if built.input.any_size else built.input.size
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def library_of(built: Encoder) -> nn.Module:
    """The network as its own library builds it, with the encoder's weights."""
    if built.name.startswith("timm/"):
        import timm

        network = timm.create_model(built.name.removeprefix("timm/"), num_classes=0).eval()
        network.load_state_dict(built.backbone.state_dict())
        return network
    size = {} if built.input.any_size else {"image_size": built.input.size}
    network = torchvision.models.get_model(built.name, weights=None, **size).eval()
    missing, surplus = network.load_state_dict(built.backbone.state_dict(), strict=False)
    assert not surplus and all(name.startswith(built.classifier) for name in missing)
    return network


def library_transform(name: str, whole: bool = False) -> Callable[[Image.Image], Tensor]:
    """A picture as the network's own library prepares it to be classified; the `whole` of it, rather than a crop."""
    if name.startswith("timm/"):
        import timm

        data = timm.data.resolve_data_config(timm.get_pretrained_cfg(name.removeprefix("timm/")).to_dict())
        data |= {"crop_pct": 1.0, "crop_mode": "squash"} if whole else {}
        return timm.data.create_transform(**data, is_training=False)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    if whole:
        transform.resize_size = transform.crop_size * 2
    return transform


def library_features(network: nn.Module, name: str, normalised_BCYX: Tensor) -> Tensor:
    """The features before pooling, by the library's own forward, as cells."""
    if not name.startswith("timm/"):
        return LAST[name](network, normalised_BCYX)
    features = network.forward_features(normalised_BCYX)
    if features.ndim == 3:
        return features[:, network.num_prefix_tokens :]
    return features.flatten(1, 2) if getattr(network, "output_fmt", None) == "NHWC" else _grid(features)


@pytest.fixture
def picture() -> Image.Image:
    """A picture of blots, neither square nor of any network's size."""
    blots = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return Image.fromarray(blots).resize((640, 560), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_features_are_the_librarys_own_folded_and_not(name: str, picture: Image.Image) -> None:
    """On the picture as the library prepares it. What differs is float32's rounding, in other kernels and when folded.

    The library's own network rounds by as much when its pictures lie in memory as ours do, channels last.
    """
    whole, frozen = encoder(name, train="all"), encoder(name)
    given = library_transform(name)(picture)[None]
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (whole.input.mean, whole.input.std))
    pixels = ((given * std + mean) * 255).round().to(torch.uint8)
    expected_BPE = library_features(library_of(whole), name, given)
    assert pixels.shape[2:] == (whole.input.size, whole.input.size)
    for built in (whole, frozen):
        features_BPE = built(pixels)
        assert (features_BPE - expected_BPE).abs().max() <= 1e-5 * expected_BPE.abs().max()
        assert features_BPE.shape[1:] == (built.cells(pixels.shape[2]), built.width)
        rows, columns = built.grid(pixels.shape[2])
        assert rows * columns == features_BPE.shape[1]
    assert whole.state_dict().keys() == frozen.state_dict().keys()


@torch.no_grad()
def test_a_norm_that_holds_an_activation_is_not_folded() -> None:
    """As in the stems of timm's DenseNets, where a convolution and such a norm follow each other in a Sequential."""
    layers = pytest.importorskip("timm.layers")
    part = nn.Sequential(nn.Conv2d(3, 4, 1), layers.BatchNormAct2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    for norm in (part[1], part[3]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    given = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(folded(part)(given), part(given))
    assert type(folded(part)[3]) is nn.Identity


@pytest.mark.parametrize("name", ALL)
def test_pictures_are_resized_and_normalised_as_the_library_does(name: str, picture: Image.Image) -> None:
    """The whole picture, which ours keeps where the libraries crop to its middle."""
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    own = input_of(EncoderConfig(name=name))
    pixels = eval_image(picture, own.size, own.interpolation) / 255
    normalised = torchvision.transforms.Normalize(own.mean, own.std)(pixels)
    torch.testing.assert_close(normalised, library_transform(name, whole=True)(picture), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_from_each_stage_on_just_its_parameters_and_those_behind_it_train(name: str) -> None:
    built = encoder(name, input_size=SMALL.get(name)).train()
    stages, given = list(built.stages.items()), images(built)
    everything = [parameter for _, stage in stages for parameter in stage.parameters]
    assert len(everything) == len(set(everything))
    for number in range(len(stages)):
        built.zero_grad()
        built.freeze(number)
        built(given).square().sum().backward()
        learned = {key for key, p in built.backbone.named_parameters() if p.grad is not None and p.grad.any()}
        trained = {key for key, p in built.backbone.named_parameters() if p.requires_grad}
        expected = {parameter for _, stage in stages[number:] for parameter in stage.parameters}
        assert trained == expected and learned == expected
        resting = [m for m in built.backbone.modules() if isinstance(m, nn.BatchNorm2d) and not m.training]
        frozen = [m for _, stage in stages[:number] for each in stage.modules for m in each.modules()]
        assert {id(m) for m in resting} == {id(m) for m in frozen if isinstance(m, nn.BatchNorm2d)}
    for trained, number in {"none": len(stages), "last_block": len(stages) - 1, "all": 0}.items():
        assert built.frozen_before(trained, "key") == number
    assert [built.frozen_before(stage, "key") for stage, _ in stages] == list(range(len(stages)))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_x_400mf"])
@torch.no_grad()
def test_stride_16_holds_the_cells_of_stride_32_at_every_second_place(name: str) -> None:
    coarse, fine = encoder(name), encoder(name, output_stride=16)
    fine.load_state_dict(coarse.state_dict())
    given = images(coarse)
    coarse_BYXE, fine_BYXE = coarse(given).unflatten(1, coarse.grid(96)), fine(given).unflatten(1, fine.grid(96))
    scale = coarse_BYXE.abs().mean()
    if name in ("mobilenet_v3_small", "efficientnet_b0"):  # squeeze and excite: they see the mean of the whole grid
        assert fine_BYXE.shape[1:3] == (6, 6)
    else:
        torch.testing.assert_close(fine_BYXE[:, ::2, ::2] / scale, coarse_BYXE / scale, atol=1e-4, rtol=1e-4)


def test_what_a_network_cannot_do_is_refused_by_name() -> None:
    for name, option, word in [
        ("vit_b_32", {"output_stride": 16}, "output_stride=16: vit_b_32"),
        ("swin_t", {"output_stride": 16}, "output_stride=16: swin_t"),
        ("resnet18", {"tokens": "all"}, "tokens=all .*resnet18"),
        ("resnet18", {"drop_path": 0.1}, "drop_path=0.1: resnet18"),
        ("vit_b_32", {"train": "layer4.0"}, "vit_b_32 has no stage"),
        ("timm/vit_tiny_patch16_224", {"output_stride": 16}, "output_stride=16: timm/vit_tiny"),
        ("timm/mobilenetv4_conv_small", {"tokens": "all"}, "tokens=all .*mobilenetv4"),
        ("efficientnet_b0", {"drop_path": 0.1, "recompute": True}, "recompute=true: efficientnet_b0 drops at random"),
        ("timm/vit_tiny_patch16_224", {"recompute": True}, "recompute=true: timm/vit_tiny"),
        ("resnet18", {"input_size": 96}, "input_size=96 .*resnet18"),
        ("timm/mobilenetv4_conv_small", {"input_size": 96}, "input_size=96 .*takes any.*data.image_size=96"),
        ("timm/vit_tiny_patch16_224", {"input_size": 100}, "timm/vit_tiny_patch16_224"),
        ("timm/vit_tiny_patch16_225", {}, "nearest is timm/vit_tiny_patch16_224"),
        ("timm/vit_base_patch32_clip_224.openia", {}, r"no weights 'openia' .*timm/vit_base_patch32_clip_224\.openai$"),
        ("timm/resnet18.", {}, r"no weights '' of resnet18"),
    ]:
        with pytest.raises(UserError, match=word):
            encoder(name, **option)
    with pytest.raises(UserError, match=r"data\.image_size=96: vit_b_32 takes pictures of 224 pixels; set \S+224$"):
        encoder("vit_b_32").cells(96)
    with pytest.raises(UserError, match=r"image_size=224, or model\.encoder\.input_size=96 too"):
        encoder("timm/vit_tiny_patch16_224").check_size(96)


@torch.no_grad()
def test_a_network_of_timm_s_is_made_for_another_size() -> None:
    built = encoder("timm/vit_tiny_patch16_224", input_size=96)
    given = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    assert built(given).shape == (2, 36, built.width) and built.cells(96) == 36 and built.grid(96) == (6, 6)


def test_networks_drop_paths_only_where_that_is_asked_for() -> None:
    built = encoder("timm/swinv2_tiny_window8_256", train="all").train()  # whose own default is 0.1
    given = images(built, 1)
    assert torch.equal(built(given), built(given))


@torch.no_grad()
def test_the_class_token_comes_before_the_patches() -> None:
    patches, everything = encoder("vit_b_32"), encoder("vit_b_32", tokens="all")
    given = images(patches)
    assert torch.equal(everything(given)[:, 1:], patches(given)) and everything.leading == 1
    assert everything.grid(224) == patches.grid(224) == (7, 7) and everything.cells(224) == 50


def test_drop_path_drops_in_training_alone() -> None:
    built = encoder("efficientnet_b0", drop_path=0.5, train="all")
    given = images(built)
    assert torch.equal(built(given), built(given))
    for module in built.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.equal(built(given), built(given))
