"""The files of an evaluation are of the checkpoint that results/steps.json names, also where writing them failed."""

from pathlib import Path

import pytest

from imgcap.evaluation.results import Evaluation, scores_of, write_results


def evaluated(split: str, cider: float) -> Evaluation:
    return Evaluation(split, {"CIDEr": cider}, 1.0, f"split:{split}", [], [], {})


def cider_of(run: Path, step: int) -> dict[str, float]:
    return {label: scores["CIDEr"] for label, scores in scores_of(run, step, {})[0].items()}


def test_scores_are_found_by_their_step(tmp_path: Path) -> None:
    write_results(tmp_path, evaluated("val", 0.1), step=1)
    write_results(tmp_path, evaluated("test", 0.2), step=2)
    write_results(tmp_path, evaluated("val", 0.3), step=2, label="other-val")
    assert cider_of(tmp_path, 1) == {"val": 0.1} and list(scores_of(tmp_path, 1, {})[1]) == ["other-val", "test"]
    assert cider_of(tmp_path, 2) == {"test": 0.2, "other-val": 0.3}


@pytest.mark.parametrize("failing", ["captions", "scores", "images"])
def test_old_scores_are_never_those_of_a_new_checkpoint(failing: str, tmp_path: Path) -> None:
    write_results(tmp_path, evaluated("test", 0.1), step=1)
    write_results(tmp_path, evaluated("val", 0.2), step=1)
    file = tmp_path / "results" / f"val-{failing}.json"
    file.rename(tmp_path / "old.json")
    file.mkdir()  # which no file replaces: the disk may be full as well
    with pytest.raises(OSError):
        write_results(tmp_path, evaluated("val", 0.9), step=2)
    file.rmdir()
    (tmp_path / "old.json").rename(file)
    assert cider_of(tmp_path, 2) == {}
    assert cider_of(tmp_path, 1) == {"test": 0.1}, "the other split's scores are still of their checkpoint"
    write_results(tmp_path, evaluated("val", 0.9), step=2)
    assert cider_of(tmp_path, 2) == {"val": 0.9}
