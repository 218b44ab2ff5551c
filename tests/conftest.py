"""What all tests share: where real data lies, and which tests a machine can run."""

import os
from pathlib import Path

import pytest
import torch

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """One thread a process: fair to gloo ranks on few cores, and the same sums everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What scoring keeps on disk begins empty and leaves the user's own alone; processes that tests start share it."""
    os.environ["IMGCAP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of raw datasets: $IMGCAP_REAL_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("IMGCAP_REAL_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no raw datasets in {folder}")
    return folder
