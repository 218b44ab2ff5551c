"""Artefacts and runs with something wrong in one of their files: never a traceback, never another model unnoticed."""

import shutil
from pathlib import Path

import pytest
from fuzzing import Changed, changed_bytes, check_line, fuzz
from hypothesis import strategies as st
from untrained import save_run

from imgcap.errors import UserError
from imgcap.export.artefact import export_run
from imgcap.models.trained import load_captioner

HEAD = 12_000  # bytes of the weights' file in which something is wrong: its names and shapes, and the first weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("models") / "run", ["a", "red", "dog"], "data={image_size: 32}")


@pytest.mark.parametrize("target", ["artefact", "run"])
def test_a_model_with_something_wrong(target: str, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / target
    if target == "artefact":
        export_run(run, folder)
    else:
        shutil.copytree(run, folder)
    whole = load_captioner(folder)
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".yaml", ".safetensors")]
    original = {path: path.read_bytes() for path in files}

    def check(given: tuple[Path, Changed]) -> None:
        path, changed = given
        path.write_bytes(changed.data + original[path][HEAD:])
        try:
            loaded = load_captioner(folder)
        except UserError as error:
            assert str(folder) in check_line(" ".join(str(error).split()))
        else:
            if target == "artefact":
                assert loaded.vocabulary == whole.vocabulary and loaded.config == whole.config
            assert str(loaded.model.encoder.sha256()) == whole.model.encoder.sha256()
        finally:
            path.write_bytes(original[path])

    def changed(path: Path) -> st.SearchStrategy[tuple[Path, Changed]]:
        return st.tuples(st.just(path), changed_bytes(original[path][:HEAD]))

    fuzz(target, st.sampled_from(files).flatmap(changed), check)
