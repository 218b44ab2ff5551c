"""What training tells people: a block at the start, a line an evaluation, a block at the end."""

import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from imgcap.checkpoint.layout import BEST, read_pointer, step_of
from imgcap.config.run import Config
from imgcap.config.section import steps_of
from imgcap.data.plan import Accumulation
from imgcap.evaluation.results import Evaluation
from imgcap.models.precision import is_emulated
from imgcap.ranks.memory import place_of
from imgcap.ranks.world import World
from imgcap.shards.manifest import Manifest
from imgcap.shards.token_counts import TokenCounts
from imgcap.text.vocabulary import Vocabulary

NO_GPU = "; no GPU was found (imgcap train --env says what torch sees)"
EMULATED = "; warning: this device computes it by way of fp32, train.precision=fp32 is faster here"
SHOWN = ("CIDEr", "BLEU-4")  # of an evaluation's scores, those in its line; all stand in results/


def start_block(
    config: Config,
    world: World,
    manifest: Manifest,
    counts: TokenCounts,
    vocabulary: Vocabulary,
    accumulation: Accumulation,
    steps: tuple[int, int],  # of an epoch, of the run
    parameters: tuple[int, int],  # trainable, frozen
    resumed: tuple[int, Path] | None,  # step and folder of a checkpoint
) -> str:
    """Say in at most twelve lines what is about to be trained, on what, with what."""
    epoch, total = steps
    every = steps_of(config.eval.every, epoch)
    evaluated = f"evaluated on {config.eval.split} {f'every {every:,} steps' if every else 'at the end'}"
    rising = steps_of(config.optim.warmup, epoch)
    warns = f"; warning: the rate rises for {rising:,} of them, lower optim.warmup" if 2 * rising > total else ""
    if config.train.objective == "self_critical":
        first = steps_of(config.train.objective_from, epoch)
        drawn = f"self-critical after {first:,}" if first < total else "warning: it ends before any is self-critical"
        warns += f"; {drawn}" if first else ""
    begins = f"goes on from step {resumed[0]:,} ({resumed[1]})" if resumed else "new"
    passes = f" × {accumulation.steps} passes" if accumulation.steps > 1 else ""
    ranks = f"{world.world_size} ranks × " if world.world_size > 1 else ""
    share = f" ({ranks}{accumulation.micro_batch}{passes})" if ranks or passes else ""
    decoder, emulated = config.model.decoder.type, is_emulated(world.device, config.train.precision)
    return table(
        {
            "device": f"{ranks}{device_name(world.device)}{NO_GPU if world.without_gpu else ''}",
            "precision": f"{config.train.precision}{EMULATED if emulated else ''}",
            "images": ", ".join(f"{split} {info.images:,}" for split, info in manifest.splits.items()),
            "captions": _captions(counts, config),
            "vocabulary": _vocabulary(counts, vocabulary),
            "model": f"{config.model.encoder.name} and {decoder}, {_parameters(*parameters)}",
            "batch": f"{config.train.global_batch} images{share}, {epoch:,} steps an epoch",
            "length": f"{total:,} steps ({total / epoch:.3g} epochs), {evaluated}{warns}",
            "run folder": str(config.run_path),
            "begins": begins,
        }
    )


def evaluation_line(
    evaluation: Evaluation, step: int, epoch: int, metric: str, best: float | None, best_step: int | None
) -> str:
    """Say how an evaluation went, and which was the best so far by `metric`. `epoch` counts from 0; people from 1."""
    names = [name for name in SHOWN if name in evaluation.scores] or list(evaluation.scores)
    scores = [f"{name} {evaluation.scores[name]:.3f}" for name in names]
    line = f"epoch {epoch + 1}, step {step}: {', '.join([*scores, f'{evaluation.split} loss {evaluation.loss:.3f}'])}"
    if best is None:
        return line
    which = "this one" if best_step == step else f"step {best_step}"
    return f"{line}; best so far {_named(metric, evaluation.split)} {best:.3f} ({which})"


def closing_block(
    run: Path, steps: int, seconds: float, best: float | None, metric: str, split: str, splits: Mapping[str, object]
) -> str:
    """Say, in the end, what came out of the run, where it lies, and which two commands come next."""
    folder = read_pointer(run / "checkpoints", BEST)
    rows = {}
    if folder is not None and best is not None:
        rows["best"] = f"step {step_of(folder):,}, {_named(metric, split)} {best:.3f}: {folder}"
    drawn = [str(path) for path in (run / "curves.png", run / "samples") if path.exists()]
    imgcap = "imgcap" if shutil.which("imgcap") else f"{shlex.quote(sys.executable)} -m imgcap"
    where, scored = shlex.quote(str(run)), "test" if "test" in splits else split
    rows |= {"run folder": str(run)} | ({"pictures": ", ".join(drawn)} if drawn else {})
    rows |= {
        "evaluate": f"{imgcap} evaluate {where} --split {scored}",
        "caption": f"{imgcap} caption {where} PHOTO.jpg",
    }
    took = f"trained {steps:,} steps in {duration(seconds)}\n" if steps else ""
    return f"{took}{table(rows)}"


def table(rows: Mapping[str, str]) -> str:
    """Lay out rows, the values beneath each other."""
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def duration(seconds: float) -> str:
    """Say how long something took.

    >>> duration(4.2), duration(245), duration(7500)
    ('4 s', '4 min 5 s', '2 h 5 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def best_step(run: Path) -> int | None:
    """The step of a run's best checkpoint, as its pointer says."""
    folder = read_pointer(run / "checkpoints", BEST)
    return None if folder is None else step_of(folder)


def device_name(device: torch.device) -> str:
    """Name a device, a GPU with its memory, a processor with the threads that torch uses."""
    if device.type == "cuda":
        return place_of(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"CPU ({_processor()}, {threads} thread{'s' * (threads > 1)})"


def _processor() -> str:
    """The processor's name, which Linux alone tells in full."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(errors="replace").splitlines() if about.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _captions(counts: TokenCounts, config: Config) -> str:
    """How many captions there are, and how many are cut; old shard sets don't know."""
    captions, longest = sum(counts.lengths.values()), config.data.max_tokens
    longer = counts.longer_than(longest)
    if not longer:
        return f"{captions:,} in train" if captions else "of unknown number"
    at_least = "at least " if config.vocab.oov == "characters" else ""  # spelled words take more places
    share = f"{longer:,} of {captions:,} captions ({longer / captions:.1%})"
    return f"{captions:,} in train; data.max_tokens={longest} cuts {at_least}{share}"


def _vocabulary(counts: TokenCounts, vocabulary: Vocabulary) -> str:
    unknown, told = vocabulary.unknown_share(counts.counts), "spelled" if vocabulary.oov == "characters" else "<unk>"
    return f"{len(vocabulary):,} entries; {unknown:.2%} of the words in train are {told}"


def _parameters(trainable: int, frozen: int) -> str:
    return f"{trainable:,} of {trainable + frozen:,} parameters train"


def _named(metric: str, split: str) -> str:
    return f"{split} loss" if metric == "loss" else metric
