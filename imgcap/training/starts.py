"""What a run is, written when it begins, and what each start of it was: `config.yaml`, `vocab.json`, `starts.jsonl`."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imgcap
from imgcap.checkpoint.load import Checkpoint
from imgcap.config.changes import Change
from imgcap.config.load import as_yaml
from imgcap.config.run import Config
from imgcap.files.durable import write_whole
from imgcap.ranks.world import World
from imgcap.text.vocabulary import Vocabulary
from imgcap.training.resumption import CONFIG

STARTS = "starts.jsonl"


def record_start(
    config: Config, vocabulary: Vocabulary, world: World, saved: Checkpoint | None, changed: Sequence[Change]
) -> None:
    """Add a line on this start, which is about to train; write what the run is where it begins or is `changed`.

    In this order, so that a run whose values are other ones has always said since when. Rank 0 only.
    """
    run = config.run_path
    run.mkdir(parents=True, exist_ok=True)
    earlier = (run / STARTS).read_text(encoding="utf-8") if (run / STARTS).exists() else ""
    write_whole(run / STARTS, f"{earlier}{json.dumps(_described(world, saved, changed), ensure_ascii=False)}\n")
    begins = saved is None or saved.path.parent.parent.resolve() != run.resolve()
    if begins or changed or not (run / CONFIG).exists():
        write_whole(run / CONFIG, as_yaml(config))
    vocabulary.save(run / "vocab.json")


def _described(world: World, saved: Checkpoint | None, changed: Sequence[Change]) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "imgcap": imgcap.__version__,
        "commit": _commit(),
        "command": " ".join([sys.argv[0], *map(shlex.quote, sys.argv[1:])]),
        "world_size": world.world_size,
        "step": saved.step if saved else 0,
        "checkpoint": str(saved.path) if saved else None,
        "changed": {change.key: [change.old, change.new] for change in changed},
    }


def _commit() -> str | None:
    """The commit of the checkout that imgcap runs from, with -dirty where it has changed since; None for none."""
    checkout = Path(imgcap.__file__).parents[1]
    if not (checkout / ".git").exists():  # a folder in somebody else's checkout has none of its own
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
