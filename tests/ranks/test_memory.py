"""Running out of memory is one line with what would fit, found by trying; all that filled the memory is free then."""

import doctest
import gc
import weakref

import pytest
import torch

from imgcap.errors import UserError
from imgcap.ranks import memory
from imgcap.ranks.memory import halves, is_short, largest_that_fits, place_of, within_memory


def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_what_a_failed_run_held_is_free_before_the_search_begins():
    held = []

    def run():
        filled = torch.ones(3)
        held.append(weakref.ref(filled))
        full()

    def explain():
        gc.collect()
        assert held[0]() is None
        return "told"

    with pytest.raises(UserError, match="told") as raised:
        within_memory(run, explain)
    assert raised.value.__cause__ is None and raised.value.__context__ is None
    assert within_memory(lambda: 7, full) == 7


def test_the_first_size_that_fits_is_found_and_only_lack_of_memory_is_one():
    tried = []

    def run(size):
        tried.append(size)
        if size > 3:
            full()

    assert largest_that_fits(run, halves(32)) == 2 and tried == [16, 8, 4, 2]
    assert largest_that_fits(full, halves(32)) is None and largest_that_fits(run, []) is None
    with pytest.raises(ZeroDivisionError):
        largest_that_fits(lambda size: size / 0, [1])


def test_sizes_divide_what_they_have_to():
    assert not doctest.testmod(memory).failed
    for share in range(1, 60):
        for size in (size for size in range(1, share + 1) if share % size == 0):
            found = halves(size, of=share)
            assert all(share % smaller == 0 for smaller in found) and found[-1:] == [1] * (size > 1)
            assert all(2 * smaller <= larger for larger, smaller in zip([size, *found], found, strict=False))


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_memory():
    assert place_of(torch.device("cuda", 0)).startswith("GPU 0 (") and " GiB)" in place_of(torch.device("cuda", 0))


@pytest.mark.parametrize(("free", "short"), [(40, False), (20, True)])
def test_memory_is_short_where_less_than_a_third_is_free(free, short, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80))
    assert is_short(torch.device("cuda", 0)) is short
    assert is_short(torch.device("cpu")) is False
