"""To the hub and back, over a hub that is a folder."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

import imgcap
from imgcap.errors import UserError
from imgcap.export.artefact import OWNED, export_run
from imgcap.files.hub import push
from imgcap.models.trained import FILES

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the network alone: repositories are folders below this one."""
    root = tmp_path / "hub"

    class Api:
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return f"hub:{repo_id}" + (" (private)" if private else "")

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list) -> None:
            for path in [path for path in (root / repo_id).rglob("*") if path.is_file()]:
                if any(fnmatch(str(path.relative_to(root / repo_id)), pattern) for pattern in delete_patterns):
                    path.unlink()
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (root / repo_id).is_dir() or revision not in (None, "main"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("an outgoing connection\nfailed")
        here = tmp_path / "downloaded"
        for name in allow_patterns:
            here.mkdir(exist_ok=True)
            shutil.copyfile(root / repo_id / name, here / name)
        return str(here)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return root


def test_pushed_and_loaded_by_its_name(small_run: Path, hub: Path, tmp_path: Path) -> None:
    export_run(small_run, tmp_path / "artefact")
    stale = hub / "someone/captions/onnx/encoder.onnx"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert push(tmp_path / "artefact", "someone/captions", owned=OWNED) == "hub:someone/captions"
    assert push(tmp_path / "artefact", "someone/captions", private=True) == "hub:someone/captions (private)"
    assert not stale.exists(), "a graph of other weights"
    loaded = imgcap.load("someone/captions", "cpu", revision="main").loaded
    assert loaded.step == 7
    assert sorted(path.name for path in loaded.path.iterdir()) == sorted(FILES)


def test_a_name_that_the_hub_has_not(hub: Path) -> None:
    with pytest.raises(
        UserError, match=r"no folder runs/dmo, and none of that name could be had .*an outgoing connection f"
    ):
        imgcap.load("runs/dmo")
    with pytest.raises(UserError, match="no run and no artefact"):
        imgcap.load("neither/a/name")


@pytest.mark.parametrize("name", ["nobody", "a/b/c", "/a", "a b/c", "../up"])
def test_what_can_be_no_name_is_said_before_anything_is_sent(name: str, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no name on the hub"):
        push(tmp_path, name)
    assert not hub.exists()
