"""What a shard set counts of its captions."""

import json

import pytest

from imgcap.errors import UserError
from imgcap.shards.token_counts import TokenCounts


def test_they_come_back_as_they_were_and_add_up(tmp_path):
    counts = TokenCounts()
    counts.add([["a", "dog"], ["a", "big", "dog"], []])
    both = TokenCounts()
    both.update(counts)
    both.update(counts)
    (tmp_path / "token_counts.json").write_text(json.dumps(both.as_json()))
    loaded = TokenCounts.load(tmp_path)
    assert loaded == both
    assert loaded.counts == {"a": 4, "dog": 4, "big": 2} and loaded.lengths == {0: 2, 2: 2, 3: 2}
    assert [loaded.longer_than(length) for length in (-1, 0, 2, 3)] == [6, 4, 2, 0]


@pytest.mark.parametrize("content", [None, "{", '{"tokens": 3}', '{"counts": {}, "lengths": [1]}'])
def test_unreadable_ones_are_one_line(tmp_path, content):
    if content:
        (tmp_path / "token_counts.json").write_text(content)
    with pytest.raises(UserError, match=r"token_counts\.json.*imgcap build"):
        TokenCounts.load(tmp_path)
