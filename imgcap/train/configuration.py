"""The configuration of a run: the file and the overrides, and what a trained model or the run's past adds to them."""

import re
from pathlib import Path

from imgcap import checkpoint
from imgcap.config.load import load_config
from imgcap.config.run import Config
from imgcap.errors import UserError
from imgcap.train.fine_tuning import adopted_decoder, adopted_model

MORE = re.compile(r"^(?P<key>[\w.]+)\+=(?P<amount>.*)$")
LENGTHS = ("train.epochs", "train.max_steps")


def configure(path: Path | None, overrides: list[str], resume: str) -> Config:
    """As `load_config`, with `train.epochs+=N` and `train.max_steps+=N` too, and the model section of `init_from`."""
    plain = [override for override in overrides if not MORE.match(override)]
    config = load_config(path, plain)
    settled = [
        _lengthened(config, match["key"], match["amount"], resume) for match in map(MORE.match, overrides) if match
    ]
    if config.init_from is not None:
        plain += adopted_decoder(config, resume)  # the keys of its section are then those of this type
        settled.append(adopted_model(load_config(path, plain), resume))
    return load_config(path, [*plain, *settled]) if settled else config


def _lengthened(config: Config, key: str, amount: str, resume: str) -> str:
    """The run's new length as an override. One that hasn't reached its length keeps it.

    So the same command goes on with a run that was interrupted on the way to its new length.
    """
    run = config.run_path
    if key not in LENGTHS or not amount.isdecimal() or int(amount) < 1:
        raise UserError(f"{key}+={amount} is no override; += takes a number and lengthens {' or '.join(LENGTHS)}")
    if resume != "auto":
        raise UserError(
            f"{key}+={amount} goes on from the last checkpoint; leave out --resume {resume}, or write {key}=N"
        )
    if checkpoint.newest(run / "checkpoints") is None:
        raise UserError(f"{key}+={amount} lengthens a run that has begun, and {run} has no checkpoint; write {key}=N")
    saved = checkpoint.load(run / "checkpoints")
    length = load_config(run / "config.yaml").train
    epochs = key == "train.epochs"
    if epochs == (length.max_steps is not None):
        other = LENGTHS[epochs]
        raise UserError(
            f"the length of {run} is given by {other}={length.max_steps or length.epochs}; write {other}+=N"
        )
    total, done = (length.epochs, saved.state["plan"]["epoch"]) if epochs else (length.max_steps or 0, saved.step)
    return f"{key}={total + int(amount) if done >= total else total}"
