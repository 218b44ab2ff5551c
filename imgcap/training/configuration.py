"""The configuration of a run: the file and the overrides, and what a trained model or the run's past adds to them."""

import re
from collections.abc import Iterable
from pathlib import Path

from imgcap.config.load import known_key, load_config
from imgcap.config.run import Config
from imgcap.errors import UserError
from imgcap.training.fine_tuning import adopted_decoder, adopted_input, adopted_model, origin
from imgcap.training.resumption import CONFIG, Resumption, as_restarted

MORE = re.compile(r"^(?P<key>[\w.]+)\+=(?P<amount>.*)$")
LENGTHS = ("train.epochs", "train.max_steps")


def configure(
    path: Path | None, overrides: list[str], resume: str, change: Iterable[str] = ()
) -> tuple[Config, Resumption]:
    """Load a run's configuration, `train.epochs+=N` and `train.max_steps+=N` too, with the model of `init_from`.

    `resume` is `auto`, a checkpoint's path, or `no`, and `change` the keys that may be other ones than they were; what
    both mean for this run comes with the configuration.
    """
    plain = [override for override in overrides if not MORE.match(override)]
    config = load_config(path, plain)
    resumption = Resumption(config.run_path, as_restarted(resume, config.run_path), frozenset(map(known_key, change)))
    added = [_lengthened(match["key"], match["amount"], resumption) for match in map(MORE.match, overrides) if match]
    if (trained := origin(config.init_from, resumption)) is not None:
        plain += adopted_decoder(config.model, trained)  # the keys of its section are then those of this type
        added.append(adopted_model(load_config(path, plain).model, trained))
    added += adopted_input(config, trained)
    return load_config(path, [*plain, *added]) if added else config, resumption


def _lengthened(key: str, amount: str, resumption: Resumption) -> str:
    """Turn a += into an override of the run's new length. One that hasn't reached its length keeps it.

    So the same command goes on with a run that was interrupted on the way to its new length.
    """
    run, resume = resumption.run, resumption.resume
    if key not in LENGTHS or not amount.isdecimal() or int(amount) < 1:
        raise UserError(f"{key}+={amount} is no override; += takes a number and lengthens {' or '.join(LENGTHS)}")
    if resume != "auto":
        raise UserError(
            f"{key}+={amount} goes on from the last checkpoint; leave out --resume {resume}, or write {key}=N"
        )
    if (saved := resumption.checkpoint) is None:
        raise UserError(f"{key}+={amount} lengthens a run that has begun, and {run} has no checkpoint; write {key}=N")
    length = load_config(run / CONFIG).train
    epochs = key == "train.epochs"
    if epochs == (length.max_steps is not None):
        other = LENGTHS[epochs]
        raise UserError(
            f"the length of {run} is given by {other}={length.max_steps or length.epochs}; write {other}+=N"
        )
    total, done = (length.epochs, saved.state["plan"].get("epoch")) if epochs else (length.max_steps or 0, saved.step)
    if done is None:  # a stream's checkpoint of 0.1.0
        raise UserError(f"the checkpoint in {run} doesn't say how many epochs of its stream are done; write {key}=N")
    return f"{key}={total + int(amount) if done >= total else total}"
