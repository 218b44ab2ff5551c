"""Pretrained weights from torchvision's cache and from local files, and the files that don't fit."""

import copy
from argparse import Namespace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from imgcap.config.model import EncoderConfig, ModelConfig
from imgcap.errors import UserError
from imgcap.models.captioner import Captioner, build_captioner

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def published() -> Weights:
    """What torchvision would publish for ResNet-18: its own state dict, classifier and all."""
    torch.manual_seed(5)
    return torchvision.models.resnet18(weights=None).state_dict()


def build(weights: Path | str | None, name: str = "resnet18", **options: object) -> Captioner:
    given = {"output_stride": 16} | options
    encoder = EncoderConfig(name=name, weights=None if weights is None else str(weights), **given)
    return build_captioner(ModelConfig(encoder=encoder), 10)


def assert_filled(captioner: Captioner, published: Weights) -> None:
    filled = captioner.encoder.backbone.state_dict()
    assert set(published) - set(filled) == {"fc.weight", "fc.bias"}
    torch.testing.assert_close(filled, {name: published[name] for name in filled}, atol=0, rtol=0)


def save(weights: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_file_fills_the_encoder(published: Weights, tmp_path: Path, suffix: str) -> None:
    assert_filled(build(save(published, tmp_path / f"weights{suffix}")), published)


@pytest.mark.parametrize("entries", [(), ("state_dict",), ("model",), ("net",), ("model", "model_ema")])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "encoder.backbone.", "_orig_mod.module.model."])
def test_a_trainers_wrapping_is_taken_off(
    published: Weights, tmp_path: Path, entries: tuple[str, ...], prefix: str
) -> None:
    wrapped: dict[str, object] = {f"{prefix}{name}": value for name, value in published.items()}
    for entry in reversed(entries):
        wrapped = {"epoch": 3, "args": Namespace(lr=0.1), "optimizer": {"state": {}}, entry: wrapped}
    assert_filled(build(save(wrapped, tmp_path / "wrapped.pth")), published)


def test_of_weights_and_their_average_the_average_is_taken(published: Weights, tmp_path: Path) -> None:
    others = {name: torch.zeros_like(value) for name, value in published.items()}
    averaged = {"n_averaged": torch.tensor(2), **published}
    for average, plain in (("model_ema", "model"), ("state_dict_ema", "state_dict")):  # torchvision's and timm's names
        assert_filled(build(save({plain: others, average: averaged}, tmp_path / "both.pth")), published)


def test_a_networks_own_names_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = torchvision.models.vit_b_32(image_size=224)  # whose names begin with encoder., too
    named = {f"module.{name}": value for name, value in network.state_dict().items()}
    filled = build(save(named, tmp_path / "vit.pth"), "vit_b_32", output_stride=32).encoder.backbone.state_dict()
    assert "encoder.ln.weight" in filled and "heads.head.weight" not in filled
    torch.testing.assert_close(filled, {name: network.state_dict()[name] for name in filled}, atol=0, rtol=0)


def test_half_precision_is_read_as_it_is(published: Weights, tmp_path: Path) -> None:
    halves = {name: value.half() if value.ndim == 4 else value for name, value in published.items()}
    filled = build(save(halves, tmp_path / "halves.safetensors")).encoder.backbone.state_dict()
    assert all(value.dtype == torch.float32 for value in filled.values() if value.is_floating_point())
    assert torch.equal(filled["conv1.weight"], halves["conv1.weight"].float())


REAL = Path(__file__).parents[4] / "shared" / "data" / "weights" / "mobilenet_v2.safetensors"


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not here")
def test_real_weights_without_a_classifier_are_read() -> None:
    filled = build(REAL, "mobilenet_v2").encoder.backbone.state_dict()
    given = safetensors.torch.load_file(REAL)
    assert given.keys() <= filled.keys()
    assert all(torch.equal(filled[name], tensor.to(filled[name].dtype)) for name, tensor in given.items())


class TestTimm:
    """Files of timm's networks."""

    @pytest.fixture
    def network(self) -> torch.nn.Module:
        timm = pytest.importorskip("timm")
        torch.manual_seed(5)
        return timm.create_model("vit_tiny_patch16_224")

    def test_a_file_fills_the_encoder(self, network: torch.nn.Module, tmp_path: Path) -> None:
        wrapped = {"model": {f"module.{name}": value for name, value in network.state_dict().items()}}
        filled = build_timm(save(wrapped, tmp_path / "vit.pth")).encoder.backbone.state_dict()
        assert "head.weight" not in filled
        torch.testing.assert_close(filled, {name: network.state_dict()[name] for name in filled}, atol=0, rtol=0)

    def test_positions_are_interpolated_for_another_size(self, network: torch.nn.Module, tmp_path: Path) -> None:
        path = save(network.state_dict(), tmp_path / "vit.safetensors")
        encoder = build_timm(path, input_size=112).encoder
        assert encoder.cells(112) == 49
        filled = encoder.backbone.state_dict()
        assert filled["pos_embed"].shape == (1, 50, 192)
        torch.testing.assert_close(filled["pos_embed"].std(), network.pos_embed.std(), atol=0.01, rtol=0.5)
        assert torch.equal(filled["blocks.3.mlp.fc1.weight"], network.blocks[3].mlp.fc1.weight)

    def test_what_does_not_fit_is_named(self, network: torch.nn.Module, tmp_path: Path, published: Weights) -> None:
        lacking = {name: value for name, value in network.state_dict().items() if name != "blocks.3.mlp.fc1.weight"}
        with pytest.raises(UserError, match=r"does not fit timm/vit.*lacks blocks\.3\.mlp\.fc1\.weight"):
            build_timm(save(lacking, tmp_path / "lacking.pth"))
        with pytest.raises(UserError, match=r"does not fit timm/vit.*timm's vit_tiny") as error:
            build_timm(save(published, tmp_path / "other.pth"))
        assert "\n" not in str(error.value)


def build_timm(path: Path, **options: object) -> Captioner:
    return build(path, "timm/vit_tiny_patch16_224", output_stride=32, **options)


def test_files_from_before_the_batch_counter_are_read(published: Weights, tmp_path: Path) -> None:
    old = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    assert_filled(build(save(old, tmp_path / "old.pth")), published)


def test_default_reads_what_torchvision_has_fetched(
    published: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights("resnet18").DEFAULT.url
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    save(published, tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1])
    assert_filled(build("DEFAULT"), published)


def test_a_download_that_fails_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of the first call in a process
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(UserError, match=r"model\.encoder\.weights=FILE.*model\.encoder\.weights=none"):
        build("DEFAULT")


def _without(published: Weights) -> object:
    return {name: value for name, value in published.items() if name != "layer4.1.bn2.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, r"lacks layer4\.1\.bn2\.weight"),
        (lambda published: published | {"layer5.weight": torch.ones(1)}, r"unknown layer5\.weight"),
        (lambda published: published | {"conv1.weight": torch.ones(64, 3, 3, 3)}, r"another shape of conv1\.weight"),
        (lambda published: list(published.values()), "holds a list"),
        (lambda published: {"state_dict": 3}, "lacks conv1"),
        (lambda published: {"student": published, "teacher": published}, "holds 2 state dicts: student, teacher"),
        (lambda _: torchvision.models.resnet18(), r"holds torch.*beside tensors.*; give a plain state dict"),
        (lambda published: published | {"bn1.bias": torch.full((64,), torch.nan)}, r"bn1\.bias holds .* NaN"),
        (lambda published: published | {"fc.bias": torch.full((1000,), torch.inf)}, r"fc\.bias holds .* infinite"),
    ],
)
def test_a_file_that_does_not_fit_is_named(change, message: str, published: Weights, tmp_path: Path) -> None:
    path = save(change(copy.copy(published)), tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=message) as error:
        build(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_another_network_is_refused(published: Weights, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit resnet34"):
        build(save(published, tmp_path / "resnet18.pth"), name="resnet34")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut"])
def test_a_file_that_cannot_be_read_is_named(published: Weights, tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if damage == "cut":
        save(published, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"<html>not found</html>")
    with pytest.raises(UserError, match=str(path)) as error:
        build(path)
    assert "\n" not in str(error.value)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "harm",))

    with pytest.raises(UserError, match="can't be read"):
        build(save({"conv1.weight": Harm()}, tmp_path / "harmful.pth"))
    assert not (tmp_path / "harm").exists()


def test_none_leaves_the_random_weights_that_the_seed_gives() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(1)
        states.append(build(None).state_dict())
    torch.testing.assert_close(states[0], states[1], atol=0, rtol=0)
