"""Memory of batches that a GPU copies from by itself, with a CUDA runtime that only notes what it is asked."""

from types import SimpleNamespace

import pytest
import torch

from imgcap.data.batch import BatchShape, page_locked


@pytest.fixture
def runtime(monkeypatch):
    """Make a runtime that answers with an error code; returns what it was asked."""

    def make(code):
        asked = []
        answers = {
            "cudaHostRegister": lambda pointer, size, flags: asked.append(("lock", pointer, size)) or code,
            "cudaHostUnregister": lambda pointer: asked.append(("unlock", pointer)) or 0,
        }
        monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(**answers))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append(("wait",)))
        return asked

    return make


@pytest.mark.parametrize("shared", [True, False])
def test_the_one_block_of_all_batches_is_locked_and_unlocked(runtime, shared):
    asked, batches = runtime(0), BatchShape(2, 32, 1, 6).allocate(3, shared)
    with page_locked(batches):
        ((what, pointer, size),) = asked
    assert what == "lock" and asked[1:] == [("wait",), ("unlock", pointer)]
    for batch in batches:
        for tensor in batch:
            assert pointer <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= pointer + size


def test_where_locking_is_refused_a_warning_says_so(runtime):
    asked, batches = runtime(801), BatchShape(2, 32, 1, 6).allocate(3)
    with pytest.warns(UserWarning, match=r"can't be page-locked \(CUDA error 801\)"), page_locked(batches):
        pass
    assert [entry[0] for entry in asked] == ["lock"]
