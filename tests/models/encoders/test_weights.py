"""Pretrained weights from torchvision's cache and from local files, and the files that don't fit."""

import copy
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


def build(weights: Path | str | None, name: str = "resnet18") -> Captioner:
    encoder = EncoderConfig(name=name, weights=None if weights is None else str(weights), output_stride=16)
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


def test_a_trainers_wrapping_is_taken_off(published: Weights, tmp_path: Path) -> None:
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in published.items()}}
    assert_filled(build(save(wrapped, tmp_path / "wrapped.pth")), published)


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
        (lambda published: {"state_dict": 3}, "entry state_dict"),
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
