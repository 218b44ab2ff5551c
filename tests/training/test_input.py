"""The pictures that a run makes are those that its encoder's weights were trained on, unless it says otherwise."""

import pytest
import torch
from PIL import Image

from imgcap.config.load import as_yaml, load_config
from imgcap.data.augmentation import augmented_image, eval_image
from imgcap.errors import UserError
from imgcap.training.configuration import configure


def data(tmp_path, *overrides: str) -> tuple[int, str]:
    config, _ = configure(None, [f"run_dir={tmp_path / 'run'}", *overrides], "auto")
    return config.data.image_size, config.data.interpolation


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (224, "bilinear")),
        (["model.encoder.name=efficientnet_v2_s"], (384, "bilinear")),
        (["model.encoder.name=vit_h_14"], (518, "bicubic")),
        (["model.encoder.name=vit_h_14", "data.interpolation=bilinear"], (518, "bilinear")),
        (["model.encoder.name=convnext_tiny", "data.image_size=288"], (288, "bilinear")),
        (["model.encoder.name=timm/vit_base_patch16_clip_224"], (224, "bicubic")),
        (["model.encoder={name: timm/vit_base_patch16_clip_224, input_size: 336}"], (336, "bicubic")),
    ],
)
def test_what_is_not_set_is_the_encoder_s(tmp_path, overrides: list[str], expected: tuple[int, str]) -> None:
    if "timm" in str(overrides):
        pytest.importorskip("timm")
    assert data(tmp_path, *overrides) == expected


def test_fine_tuning_goes_on_with_the_interpolation_of_its_source(tmp_path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    theirs = load_config(None, ["model.encoder={name: vit_b_16, weights: none}", "data.interpolation=bicubic"])
    (source / "config.yaml").write_text(as_yaml(theirs))
    assert data(tmp_path, f"init_from={source}") == (224, "bicubic")
    assert data(tmp_path, f"init_from={source}", "data.interpolation=bilinear") == (224, "bilinear")


def test_an_input_size_for_a_network_of_any_size_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"model\.encoder\.input_size=336 .*resnet50"):
        data(tmp_path, "model.encoder.input_size=336")


def test_pictures_are_brought_to_size_as_asked() -> None:
    torch.manual_seed(0)
    noise = Image.fromarray(torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8).numpy())
    for method in ("bilinear", "bicubic"):
        expected = noise.resize((32, 32), Image.Resampling[method.upper()], reducing_gap=2.0)
        found = eval_image(noise, 32, method)
        assert found.permute(1, 2, 0).numpy().tobytes() == expected.tobytes()
        assert torch.equal(augmented_image(noise, 32, "off", (0,), interpolation=method), found)
    light = [augmented_image(noise, 32, "light", (1, 2), interpolation=method) for method in ("bilinear", "bicubic")]
    assert not torch.equal(*light)
