"""Early stopping follows one metric, upwards for scores and downwards for the loss."""

from imgcap.config.evaluation import EvalConfig
from imgcap.config.training import EarlyStoppingConfig
from imgcap.training.early_stopping import EarlyStopping, measured


def verdicts(values, **config):
    stopping = EarlyStopping(EarlyStoppingConfig(**config))
    return [(stopping.update(value), stopping.should_stop()) for value in values]


def test_scores_must_rise_by_more_than_min_delta():
    found = verdicts([0.5, 0.505, 0.52, 0.51, 0.525], metric="CIDEr", patience=2, min_delta=0.01)
    assert found == [(True, False), (False, False), (True, False), (False, False), (False, True)]


def test_the_loss_must_fall():
    assert verdicts([3.0, 2.0, 2.5, 1.0], metric="loss", patience=1) == [
        (True, False),
        (True, False),
        (False, True),
        (True, False),
    ]


def test_of_equal_scores_the_newest_is_the_best_and_patience_runs_out():
    found = verdicts([0.0, 0.0, 0.0, 0.1], metric="CIDEr", patience=2)
    assert found == [(True, False), (True, False), (True, True), (True, False)]


def test_without_patience_it_never_stops():
    assert not any(stop for _, stop in verdicts([1.0] * 50, patience=0))


def test_it_goes_on_from_its_state():
    config = EarlyStoppingConfig(patience=3)
    first, second = EarlyStopping(config), EarlyStopping(config)
    for value in (0.4, 0.3):
        first.update(value)
    second.load_state_dict(first.state_dict())
    assert (second.best, second.stale) == (0.4, 1)


def test_patience_begins_anew_with_another_objective():
    config = EarlyStoppingConfig(patience=2)
    stopping = EarlyStopping(config)
    for value in (0.5, 0.4, 0.4):
        stopping.update(value)
    assert stopping.should_stop() and not stopping.should_stop("drawn")
    assert not stopping.update(0.4, "drawn") and stopping.stale == 1 and not stopping.should_stop("drawn")
    again = EarlyStopping(config)
    again.load_state_dict(stopping.state_dict())
    assert not again.update(0.45, "drawn") and again.should_stop("drawn") and again.best == 0.5


def test_a_state_of_before_objectives_has_that_of_its_checkpoint():
    stopping = EarlyStopping(EarlyStoppingConfig(patience=1))
    stopping.load_state_dict({"metric": "CIDEr", "best": 0.5, "stale": 1}, "drawn")
    assert stopping.should_stop("drawn") and not stopping.should_stop()


def test_nan_is_never_the_best():
    assert verdicts([float("nan"), 3.0, float("nan"), 2.0], metric="loss") == [
        (False, False),
        (True, False),
        (False, False),
        (True, False),
    ]


def test_another_metric_begins_anew():
    first = EarlyStopping(EarlyStoppingConfig(metric="CIDEr"))
    first.update(0.9)
    second = EarlyStopping(EarlyStoppingConfig(metric="loss"))
    second.load_state_dict(first.state_dict())
    assert second.best is None and second.update(2.0)


def test_results_that_were_measured_otherwise_do_not_count():
    """Of twenty images, or with another beam, CIDEr may have been higher than it ever gets now."""
    few, all_of_them = (measured(EvalConfig(limit=limit)) for limit in (20, None))
    assert measured(EvalConfig(batch=7, metrics=("BLEU",))) == all_of_them
    first = EarlyStopping(EarlyStoppingConfig(), measured=few)
    first.update(2.0, step=100)
    kept, anew = (
        EarlyStopping(EarlyStoppingConfig(), measured=few),
        EarlyStopping(EarlyStoppingConfig(), measured=all_of_them),
    )
    for stopping in (kept, anew):
        stopping.load_state_dict(first.state_dict())
    assert (kept.best, kept.best_step) == (2.0, 100) and anew.best is None and anew.update(0.9)
