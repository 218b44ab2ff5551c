"""Saving in the background: what is saved is what was there, and what fails is told."""

import os
import sys
import threading

import pytest
import torch

from imgcap.checkpoint.saver import Saver


def test_a_copy_is_of_the_moment_and_the_next_one_uses_its_memory():
    saver, model = Saver(), torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    state = {"weights": model.state_dict(), "places": [torch.zeros(2), 3], "more": {}}
    before = model.weight.detach().clone()
    first = saver.copy(state)
    with torch.no_grad():
        model.weight += 1
    assert torch.equal(first["weights"]["weight"], before) and first["places"][1] == 3
    memory = first["weights"]["weight"].data_ptr()
    state["more"] = {"momentum": torch.ones(5)}
    state["places"] = [torch.ones(3)]
    second = saver.copy(state)
    assert second["weights"]["weight"].data_ptr() == memory != model.weight.data_ptr()
    assert torch.equal(second["weights"]["weight"], before + 1) and second["weights"]["weight"].stride() == (
        27,
        1,
        9,
        3,
    )
    assert torch.equal(second["more"]["momentum"], torch.ones(5)) and len(second["places"]) == 1


def test_a_copy_waits_for_the_work_before():
    saver, go, done = Saver(), threading.Event(), []
    saver.start(lambda: (go.wait(10), done.append(1)))
    threading.Timer(0.2, go.set).start()
    saver.copy({})
    assert done == [1]


def test_what_fails_is_raised_by_the_next_call():
    saver = Saver()
    saver.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saver.wait()
    saver.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_the_work_gives_way_to_the_training_step():
    saver, found = Saver(), []
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    saver.start(lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    saver.wait()
    assert found == [19] and os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
