"""The samples of tars that others wrote: every naming, order and damage, one rule."""

from collections import Counter

import pytest
from hostile_tars import BY_NAME, CASES, JPG

from imgcap.shards.tar_samples import TarSamples


def found(path):
    """The captions by key, the reasons counted, and the account."""
    with path.open("rb") as file:
        samples = TarSamples(file, "x.tar")
        captions = {sample.key: sample.captions for sample in samples.read()}
    return captions, Counter(item.reason for item in samples.account.skipped), samples.account


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_tar_gives_its_samples_and_names_what_is_none(tmp_path, case):
    captions, skipped, account = found(case.write(tmp_path / "x.tar"))
    assert captions == case.samples
    assert dict(skipped) == case.skipped
    assert case.damaged in account.damage and bool(case.damaged) == bool(account.damage)
    assert all(item.file_name.startswith("x.tar/") for item in account.skipped)


def test_members_that_lie_apart_are_counted_once_for_each_sample(tmp_path):
    assert found(BY_NAME["apart"].write(tmp_path / "x.tar"))[2].joined == 2
    assert found(BY_NAME["versions"].write(tmp_path / "x.tar"))[2].joined == 0


def test_of_a_doubled_key_the_first_picture_is_kept(tmp_path):
    for name in ("twice-apart", "twice-beside", "twice-by-case"):
        path = BY_NAME[name].write(tmp_path / "x.tar")
        with path.open("rb") as file:
            first = next(TarSamples(file, "x.tar").read())
        assert first.data == JPG and path.read_bytes()[first.image.offset :][: first.image.size] == JPG


def test_keys_that_are_left_out_are_not_read_and_not_named(tmp_path):
    with BY_NAME["empty-members"].write(tmp_path / "x.tar").open("rb") as file:
        samples = TarSamples(file, "x.tar")
        assert not list(samples.read({"a", "b"})) and not samples.account.skipped
