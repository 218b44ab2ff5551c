"""Learning rates and teacher-forcing ratios over a run."""

import itertools
import json

import pytest

from imgcap.config.training import OptimConfig, TeacherForcingConfig
from imgcap.training.optim.learning_rate import LearningRate
from imgcap.training.optim.teacher_forcing import teacher_forcing_ratio

TOTAL = 100


def rate(**options: object) -> LearningRate:
    return LearningRate(OptimConfig(**options), TOTAL, steps_per_epoch=10)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_warm_up_rises_evenly_to_the_full_rate(schedule: str) -> None:
    factors = [rate(schedule=schedule, warmup="0.5ep").factor(step) for step in range(6)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] == 1.0


def test_cosine_falls_symmetrically_to_its_floor_and_stays() -> None:
    schedule = rate(warmup="20", min_lr=0.1)
    factors = [schedule.factor(step) for step in range(20, TOTAL + 1)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1.0 and factors[-1] == pytest.approx(0.1) and factors[40] == pytest.approx(0.55)
    assert all(a + b == pytest.approx(1.1) for a, b in zip(factors, reversed(factors), strict=True))
    assert schedule.factor(TOTAL + 50) == factors[-1]


def test_step_multiplies_by_gamma_every_so_often_down_to_its_floor() -> None:
    schedule = rate(schedule="step", step_every="2ep", gamma=0.5, min_lr=0.2, warmup="5")
    factors = [schedule.factor(step) for step in range(5, TOTAL)]
    lengths = [(value, len(list(run))) for value, run in itertools.groupby(factors)]
    assert lengths == [(1.0, 20), (0.5, 20), (0.25, 20), (0.2, 35)]


def test_plateau_cuts_after_more_than_its_patience_without_a_better_result() -> None:
    schedule = rate(schedule="plateau", plateau_patience=1, gamma=0.5)
    factors = []
    for score in (1.0, 2.0, 1.5, 2.0, 1.0, 1.0, 3.0, 0.0):
        schedule.evaluated(score, lower_is_better=False)
        factors.append(schedule.factor(0))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_plateau_knows_losses_from_scores_and_keeps_its_floor() -> None:
    schedule = rate(schedule="plateau", plateau_patience=0, gamma=0.5, min_lr=0.3)
    for loss in (3.0, 2.0, 1.0):
        schedule.evaluated(loss, lower_is_better=True)
    assert schedule.factor(0) == 1.0
    for _ in range(5):
        schedule.evaluated(1.0, lower_is_better=True)
    assert schedule.factor(0) == 0.3


def test_plateau_goes_on_from_its_state() -> None:
    def run(schedule: LearningRate, scores: list[float]) -> list[float]:
        factors = []
        for score in scores:
            schedule.evaluated(score, lower_is_better=False)
            factors.append(schedule.factor(0))
        return factors

    options = {"schedule": "plateau", "plateau_patience": 1}
    scores = [1.0, 0.5, 0.5, 2.0, 1.0, 1.0, 1.0, 1.0]
    whole = run(rate(**options), scores)
    first, second = rate(**options), rate(**options)
    before = run(first, scores[:5])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + run(second, scores[5:]) == whole


@pytest.mark.parametrize("schedule", ["linear", "exponential", "inverse_sigmoid"])
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.9, 0.3), (0.2, 0.7)])
def test_teacher_forcing_goes_one_way_from_start_to_end_exactly(schedule: str, start: float, end: float) -> None:
    config = TeacherForcingConfig(schedule=schedule, start=start, end=end)
    ratios = [teacher_forcing_ratio(config, step, TOTAL) for step in range(TOTAL + 1)]
    assert ratios[0] == start and ratios[-1] == end
    assert ratios == sorted(ratios, reverse=start > end) and len(set(ratios)) == TOTAL + 1
    assert teacher_forcing_ratio(config, 2 * TOTAL, TOTAL) == end


def test_each_teacher_forcing_schedule_has_its_shape() -> None:
    def ratios(schedule: str) -> list[float]:
        config = TeacherForcingConfig(schedule=schedule, start=1.0, end=0.0)
        return [teacher_forcing_ratio(config, step, TOTAL) for step in range(TOTAL + 1)]

    falls = {name: [a - b for a, b in itertools.pairwise(ratios(name))] for name in ("linear", "exponential")}
    assert falls["linear"] == pytest.approx([1 / TOTAL] * TOTAL)
    shrink = [b / a for a, b in itertools.pairwise(falls["exponential"])]
    assert shrink == pytest.approx([shrink[0]] * len(shrink)) and shrink[0] < 1
    sigmoid = ratios("inverse_sigmoid")
    assert all(a + b == pytest.approx(1.0) for a, b in zip(sigmoid, reversed(sigmoid), strict=True))
    assert sigmoid[10] > 0.95 and sigmoid[50] == pytest.approx(0.5)


def test_constant_teacher_forcing_stays_where_it_starts() -> None:
    config = TeacherForcingConfig(start=0.75, end=0.1)
    assert {teacher_forcing_ratio(config, step, TOTAL) for step in (0, 50, TOTAL)} == {0.75}
