"""`imgcap encoders`: what networks there are, and what each gives and costs."""

import sys

import pytest
import torchvision

from imgcap.commands import encoders
from imgcap.models.encoders import torchvision_networks


def listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    monkeypatch.setattr(sys, "argv", ["imgcap encoders", *arguments])
    encoders.main()
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_pattern_lists_width_cells_and_costs(monkeypatch, capsys) -> None:
    header, *rows = listed(monkeypatch, capsys, "resnet?0")
    assert header == ["name", "width", "cells", "parameters", "GFLOP", "input"]
    (row,) = [row for row in rows if row[0] == "resnet50"]
    meta = torchvision.models.get_model_weights("resnet50").DEFAULT.meta
    classifier = 2048 * 1000 + 1000
    assert row[1:4] == ["2048", "49", f"{(meta['num_params'] - classifier) / 1e6:.1f}M"]
    assert float(row[4]) == pytest.approx(2 * meta["_ops"], rel=0.01)  # torchvision counts a multiply-add as one
    assert row[5:] == ["224", "px,", "bilinear"]


def test_without_a_pattern_all_of_torchvision_s_are_there(monkeypatch, capsys) -> None:
    _, *rows, counted, last = listed(monkeypatch, capsys)
    assert counted[:6] == ["parameters", "are", "those", "with", "the", "classifier;"]
    assert [row[0] for row in rows] == torchvision_networks.names()
    assert "timm" in " ".join(last)


def test_timm_s_are_found_too(monkeypatch, capsys) -> None:
    pytest.importorskip("timm")
    rows = listed(monkeypatch, capsys, "timm/vit_base_patch32_clip_quickgelu_224")
    assert rows[1][1:3] == ["768", "49"] and rows[1][5:] == ["224", "px,", "bicubic,", "no", "other", "size"]


def test_what_matches_nothing_names_the_nearest(monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        listed(monkeypatch, capsys, "resnet5O")
    assert ended.value.code == 2 and "nearest is" in capsys.readouterr().err


def test_without_timm_its_names_are_answered_with_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SystemExit) as ended:
        listed(monkeypatch, capsys, "timm/convnext")
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("(pip install 'imgcap[timm]')\n")
