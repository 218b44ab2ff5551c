"""Show that between two commits old things load and numbers don't move.

    python tests/two_commits.py cafdc1d HEAD --work /tmp/two --flickr8k Flickr8k/Images Flickr8k/captions.txt

OLD and NEW are commits, or folders of checkouts, which are taken as they are. Three parts:
- sets: both build the demo's shard set, an index of tars as if others had written them, a set of Flickr8k
- things: both verify, caption with, evaluate and go on with what OLD has written: sets, a run that stopped within an
  epoch, an artefact, cached features
- numbers: both train anew, by the configurations here and in small runs of what these leave out

The same bytes, captions, scores, losses, batches, weights and optimiser have to come of it, to the bit; only times are
left out. All is run on the CPU, one thread a process. Exit code 0: all is identical. 1: something differs, and the
table says what. 2: OLD itself fails, or is no commit. With --work the logs stay there, and the outcome of OLD too, for
the next call with the same commit, script and options.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("sets", "things", "numbers")
TIMINGS = ("perf/", "images_per_s")  # how the names of values begin that no two runs share
TIMEOUT = 900  # seconds of one command
USED = ("configs", "imgcap", "launch", "tools")  # of a checkout

Values = dict[str, str]  # what a command has left, by name
Outcomes = dict[str, tuple[Values, float]]  # of each step: what it has left, and its seconds

# An editable install would step in for a module that a commit lacks, and its broken import would pass unseen.
GUARD = """import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
"""
# Commands of one process are forked from here, where the libraries that take seconds to import are loaded already.
STARTER = """
import gc, importlib.util, json, os, runpy, signal, sys
import matplotlib.figure, spacy, torch, torchvision
gc.freeze()  # a process that ends would look through all that these hold
print(importlib.util.find_spec("imgcap").origin, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
signal.alarm(request["timeout"])
os.chdir(request["folder"])
for descriptor, name in enumerate((os.devnull, request["out"], request["errors"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
sys.argv, sys.path[0] = request["arguments"], os.path.dirname(request["arguments"][0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Of a frozen encoder: up to 61b9a67 imgcap.load folded the normalisation of any encoder, since then of frozen ones.
LOAD = """import hashlib, json, pathlib, imgcap
for found in imgcap.load("artefacts/frozen").caption(sorted(pathlib.Path("pictures").iterdir()), attention=True):
    print(json.dumps([found.text, found.score, found.tokens, hashlib.sha256(found.attention.tobytes()).hexdigest()]))
"""


class Failed(Exception):
    """A command that didn't end well, or left nothing to compare; the message says why."""


class Step(NamedTuple):
    """A command, and what it leaves that has to be the same: `stdout`, or patterns of files."""

    name: str
    command: str  # its script lies in a folder of the checkout, or else in the working folder
    results: str = ""
    ranks: int = 1


TRAIN = "launch/train.py log.every=1 log.tensorboard=false"
DEMO = f"{TRAIN} --config configs/demo.yaml data.shards=shards/demo"
SMALL = "data.image_size=64 train.precision=fp32 train.global_batch=16 eval.limit=12 checkpoint.keep=1"
# An epoch is 23 steps. The rate is high, for captions that depend on the picture.
RUN = f"{DEMO} {SMALL} run_dir=runs/demo optim.lr=2e-3 optim.warmup=2 eval.every=10 checkpoint.every=5"
FROZEN = "init_from=artefacts/demo model.encoder.train=none data.augment=off"
SHORT = f"{DEMO} {SMALL} train.max_steps=8"
CACHING = f"tools/cache_features.py --config configs/demo.yaml {SMALL} {FROZEN} data.shards=shards/demo"
WRITING = [
    Step("run", f"{RUN} train.max_steps=15"),
    Step("artefact", "tools/export.py runs/demo --out artefacts/demo"),
    Step("features", f"{CACHING} --out shards/features"),
    Step("frozen run", f"{SHORT} {FROZEN} run_dir=runs/frozen"),
    Step("frozen artefact", "tools/export.py runs/frozen --out artefacts/frozen"),
]


def left_by(run: str) -> str:
    saved = [f"checkpoints/step-*/{name}" for name in ("model.safetensors", "training.pt", "state.json")]
    return " ".join(f"{run}/{name}" for name in ("metrics.jsonl", *saved, "results/*", "vocab.json"))


def steps_of_sets(flickr8k: Sequence[str]) -> list[Step]:
    build, index = "tools/build_shards.py --workers 1", "tools/index_shards.py --workers 1"
    steps = [
        Step("demo", f"{build} demo --out shards/demo --limit 400", "shards/demo/* shards/demo-raw/*"),
        Step("foreign set", f"{index} shards/demo/{{train,test}}-00000.tar --out shards/wild", "shards/wild/*"),
    ]
    if flickr8k:
        images, captions = map(shlex.quote, flickr8k)
        raw = f"--images {images} --captions {captions} --resize 128 --limit 320"
        steps.append(Step("flickr8k", f"{build} flickr8k {raw} --out shards/flickr8k", "shards/flickr8k/*"))
    return steps


def steps_of_things() -> list[Step]:
    """The run is gone on with after all others have read it."""
    verify, caption = "tools/verify_shards.py --decode --json", "tools/caption.py --json"
    four = "--beam 3 --out scores.json 'eval.metrics=[BLEU,METEOR,ROUGE-L,CIDEr]'"
    run, artefact = (f"launch/evaluate.py {model} {four}" for model in ("runs/demo", "artefacts/demo"))
    export = "tools/export.py runs/demo --which latest --out artefacts/new"
    sampled, diverse = "--method sample --samples 2 --top-p 0.9 --seed 1", "--method diverse --beam 4 --groups 2"
    foreign = "launch/caption.py artefacts/demo shards/wild --split test --out wild.csv eval.batch=4"
    return [
        *(Step(f"{name} verified", f"{verify} shards/{name}", "stdout") for name in ("demo", "wild", "features")),
        Step("tools/caption, run", f"{caption} runs/demo pictures --which latest --best 2", "stdout"),
        Step("tools/caption, artefact, sampled", f"{caption} artefacts/demo pictures {sampled}", "stdout"),
        Step("tools/caption, both, diverse", f"{caption} artefacts/demo pictures --with runs/demo {diverse}", "stdout"),
        Step("imgcap.load, artefact of a frozen encoder", "load.py", "stdout"),
        Step("launch/caption, run, folder", "launch/caption.py runs/demo pictures --out run.jsonl", "run.jsonl*"),
        Step("launch/caption, artefact, foreign set, 2 ranks", foreign, "wild.csv*", ranks=2),
        Step("run evaluated", run, "stdout scores.json runs/demo/results/*"),
        Step("run evaluated, 2 ranks", run, "stdout scores.json runs/demo/results/*", ranks=2),
        Step("artefact evaluated", artefact, "stdout scores.json"),
        Step("artefact evaluated, 2 ranks", artefact, "stdout scores.json", ranks=2),
        Step("run resumed", f"{RUN} train.max_steps=30", left_by("runs/demo")),
        Step("resumed run exported", export, "artefacts/new/*.safetensors artefacts/new/[sv]*.json"),
        Step("features trained on", f"{SHORT} {FROZEN} data.shards=shards/features run_dir=runs/f", left_by("runs/f")),
        Step("foreign set trained on", f"{SHORT} data.shards=shards/wild run_dir=runs/w", left_by("runs/w")),
    ]


LSTM, AFTER, DOT = "model.decoder.type=lstm", "model.decoder.query=after", "model.decoder.attention=dot"
FORCED = "train.teacher_forcing.schedule=linear train.teacher_forcing.end=0.1 train.teacher_forcing.sampling"
TINY = {  # 10 steps each
    "before, additive, deep output": "model.decoder.output=deep model.decoder.feature_dim=16",
    "after, additive": AFTER,
    "after, dot": f"{AFTER} {DOT}",
    "lstm": f"{LSTM} model.decoder.image_layers=1 model.decoder.layers=2",
    "in_turn": f"{FORCED}=in_turn",
    "in_turn, lstm": f"{FORCED}=in_turn {LSTM}",
    "two_pass": f"{FORCED}=two_pass",
    "two_pass, after, dot": f"{FORCED}=two_pass {AFTER} {DOT}",
    "bf16, after, attention penalty": f"train.precision=bf16 {AFTER} train.attention_penalty=0.5",
    "fp16": "train.precision=fp16",
    "micro_batch, 2 ranks": "train.micro_batch=2 train.label_smoothing=0.1",
    "ema": "train.ema=0.9 optim.schedule=step optim.step_every=4",
    "unfreeze": "model.encoder.train=none 'train.unfreeze={layer4: 3, layer3: 6}' model.encoder.recompute=true",
    "deepspeed, ZeRO 2": "engine.name=deepspeed engine.zero_stage=2",
}
TINY_RUN = (
    f"{TRAIN} --config {os.devnull} data.shards=shards/demo data.image_size=32 data.workers=0 data.augment=strong "
    "model.encoder.name=resnet18 model.encoder.weights=none model.decoder.embed_dim=16 model.decoder.hidden_dim=24 "
    "model.decoder.attention_dim=16 train.global_batch=8 train.max_steps=10 optim.lr=1e-3 eval.beam=2"
)


def steps_of_numbers(flickr8k: Sequence[str]) -> list[Step]:
    runs = dict.fromkeys(("demo", "demo, 2 ranks"), f"{DEMO} train.max_steps=50")
    scratch = f"{TRAIN} --config configs/flickr8k_scratch.yaml data.shards=shards/flickr8k train.max_steps=50"
    runs |= {"flickr8k_scratch": scratch} if flickr8k else {}
    runs |= {name: f"{TINY_RUN} {overrides}" for name, overrides in TINY.items()}
    rest = "run_dir=runs/numbers checkpoint.every=0 eval.every=0 eval.metrics=[] eval.limit=4"
    return [Step(name, f"{run} {rest}", left_by("runs/numbers"), 1 + ("2 ranks" in name)) for name, run in runs.items()]


def gather(step: Step, here: Path, stdout: Path) -> Values:
    values: Values = {}
    for pattern in step.results.split():
        found = [stdout] if pattern == "stdout" else sorted(here.glob(pattern))
        if not found:
            raise Failed(f"it left no {pattern}")
        for path in found:
            label = "stdout" if path == stdout else path.relative_to(here)
            values |= {f"{label} {name}": value for name, value in values_of(path).items()}
    return values


def values_of(path: Path) -> Values:
    """All that a file holds but times: numbers, lines or tensors by name, the sha256 of what is none of these."""
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {f"step {line['step']} {name}": value for line in lines for name, value in untimed(line).items()}
    if path.name.endswith(".summary.json"):
        return untimed(json.loads(path.read_text()))
    if path.suffix in (".safetensors", ".pt"):
        return dict(leaves("", load_file(path) if path.suffix == ".safetensors" else torch.load(path)))
    if path.suffix in ("", ".json", ".jsonl", ".csv", ".captions", ".out"):
        return {f"line {number}": line for number, line in enumerate(path.read_text().split("\n"), start=1)}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def untimed(values: Mapping[str, Any]) -> Values:
    return {name: json.dumps(value) for name, value in values.items() if not name.startswith(TIMINGS)}


def leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Names and values of what is nested in a checkpoint."""
    if isinstance(value, torch.Tensor):
        held = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        yield name, f"{value.dtype} {list(value.shape)} {hashlib.sha256(held).hexdigest()}"
    elif isinstance(value, Mapping | list | tuple):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from leaves(f"{name}.{key}", part)
    else:
        yield name, repr(value)


class Side:
    """A checkout that runs commands in the working folder, which is the same one for both: some files name it."""

    def __init__(self, name: str, checkout: Path, work: Path):
        self.name, self.checkout, self.here, self.logs = name, checkout, work / "here", work / f"logs-{name}"
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir()
        (self.logs / "sitecustomize.py").write_text(GUARD)
        paths = {"PYTHONPATH": f"{self.logs}:{checkout}", "IMGCAP_CACHE": str(self.here / "cache")}
        self.environment = os.environ | paths | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.starter: Any = subprocess.Popen([sys.executable, "-c", STARTER], env=self.environment, cwd=work, **pipes)
        origin = self.starter.stdout.readline().strip()
        if not Path(origin).is_relative_to(checkout):
            raise Failed(f"{name}: imgcap comes from {origin or 'nowhere'}, not from {checkout}")

    def run(self, part: str, steps: Sequence[Step], written: Path | None = None) -> Outcomes:
        """What each step leaves, in a copy of what is `written`. A failure ends it all on OLD's side only."""
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(written, self.here) if written else self.here.mkdir()
        outcomes: Outcomes = {}
        for step in steps:
            print(f"{self.name}  {part:<8} {step.name:<48}", end="", flush=True)
            began = time.perf_counter()
            try:
                values = self._run(step, str(self.logs / f"{part} {step.name}".replace("/", "-")))
            except Failed as reason:
                if self.name == "old":
                    raise
                values = {"the command": str(reason)}
            outcomes[step.name] = values, time.perf_counter() - began
            print(f"{outcomes[step.name][1]:6.1f} s", flush=True)
            if part == "numbers":
                shutil.rmtree(self.here / "runs", ignore_errors=True)  # up to 200 MB each
        return outcomes

    def _run(self, step: Step, log: str) -> Values:
        script, *given = shlex.split(step.command)
        script = str((self.checkout if "/" in script else self.here) / script)
        arguments = [script, *(str(self.checkout / word) if word.startswith("configs/") else word for word in given)]
        out, errors = Path(f"{log}.out"), Path(f"{log}.errors")
        if step.ranks == 1:
            request = {"arguments": arguments, "folder": str(self.here), "out": str(out), "errors": str(errors)}
            print(json.dumps(request | {"timeout": TIMEOUT}), file=self.starter.stdin, flush=True)
            code = int(self.starter.stdout.readline())
        else:
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(step.ranks)]
            command = ["timeout", str(TIMEOUT), sys.executable, *torchrun, *arguments]
            with out.open("w") as first, errors.open("w") as second:
                code = subprocess.call(command, cwd=self.here, env=self.environment, stdout=first, stderr=second)
        if code:
            told = re.search(r"^[\w.]*error\b.*$", errors.read_text(), re.MULTILINE | re.IGNORECASE)
            raise Failed(f"exit code {code}: {told[0] if told else f'see {errors}'}")
        return gather(step, self.here, out)


@contextmanager
def at_work(name: str, tree: str, work: Path) -> Iterator[Side]:
    """A side with a worktree of a commit, or with a copy of a folder, which may change meanwhile."""
    checkout = work / f"checkout-{name}"
    with ExitStack() as ending:
        shutil.rmtree(checkout, ignore_errors=True)
        ending.callback(shutil.rmtree, checkout, ignore_errors=True)
        if Path(tree).is_dir():
            for folder in USED:
                shutil.copytree(Path(tree, folder), checkout / folder)
        else:
            git(REPOSITORY, "worktree", "add", "--force", "--detach", str(checkout), tree)
            ending.callback(git, REPOSITORY, "worktree", "remove", "--force", str(checkout))
        side = Side(name, checkout, work)
        ending.callback(side.starter.communicate)
        yield side


def commit_of(tree: str) -> str:
    """What a name or a folder stands for; empty where a folder is no checkout, or holds changes."""
    folder = Path(tree).resolve()
    if not folder.is_dir():
        return git(REPOSITORY, "rev-parse", "--verify", f"{tree}^{{commit}}")
    with suppress(Failed):
        if Path(git(folder, "rev-parse", "--show-toplevel")) == folder and not git(folder, "status", "--porcelain"):
            return git(folder, "rev-parse", "HEAD")
    return ""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def bring_old(old: Side, sets: list[Step], steps: Mapping[str, list[Step]], kept: Path) -> None:
    """Leave in `kept` what OLD has written and its outcome of each part; what is there already stays."""
    if not (kept / "sets.json").exists():
        shutil.rmtree(kept, ignore_errors=True)
        outcomes = old.run("sets", [*sets, *WRITING])
        (old.here / "load.py").write_text(LOAD)
        (old.here / "pictures").mkdir()
        for picture in sorted(old.here.glob("shards/demo-raw/*.jpg"))[-6:]:
            shutil.copy(picture, old.here / "pictures")
        shutil.copytree(old.here, kept / "written")
        (kept / "sets.json").write_text(json.dumps(outcomes))
    for part in steps:
        if not (kept / f"{part}.json").exists():
            (kept / f"{part}.json").write_text(json.dumps(old.run(part, steps[part], kept / "written")))


def report(part: str, old: Outcomes, new: Outcomes) -> int:
    """Print a line for each step; returns how many of them differ."""
    differing = 0
    for name, (after, seconds) in new.items():
        before, seconds_before = old[name]
        names = [value for value in after | before if before.get(value) != after.get(value)]
        differing += bool(names)
        was, now = (values.get(names[0], "nothing") if names else "" for values in (before, after))
        start = max(next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0) - 20, 0)
        was, now = was[start : start + 80], now[start : start + 80]
        told = f"{len(names)} DIFFER, first {names[0]}: {was} -> {now}" if names else "identical"
        print(f"{part:<8} {name:<48}{len(after):>6} values{seconds_before:6.1f} s{seconds:6.1f} s  {told}")
    both = (sum(outcomes[name][1] for name in new) for outcomes in (old, new))
    print("{:<8} {:<61}{:6.1f} s{:6.1f} s  {} of {} steps differ\n".format(part, "all", *both, differing, len(new)))
    return differing


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--work", type=Path, help="folder to work in and to keep OLD's outcome in (default: temporary)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--flickr8k", nargs=2, default=(), metavar=("IMAGES", "CAPTIONS"), help="as build_shards.py")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, work: Path) -> int:
    """Returns how many steps differ."""
    flickr8k, commit = [str(Path(path).resolve()) for path in arguments.flickr8k], commit_of(arguments.old)
    decisive = [Path(__file__).read_text(), str(work), *flickr8k, torch.__version__, sys.version]
    kept = work / f"old-{commit[:12]}-{hashlib.sha256(' '.join(decisive).encode()).hexdigest()[:12]}"
    if not commit:
        shutil.rmtree(kept, ignore_errors=True)
    if not flickr8k:
        print("without --flickr8k: no set of it is built, and flickr8k_scratch isn't trained")
    every = {"sets": steps_of_sets(flickr8k), "things": steps_of_things(), "numbers": steps_of_numbers(flickr8k)}
    steps = {part: every[part] for part in arguments.only}
    if not all((kept / f"{part}.json").exists() for part in ("sets", *steps)):
        with at_work("old", arguments.old, work) as old:
            bring_old(old, every["sets"], steps, kept)
    with at_work("new", arguments.new, work) as new:
        found = {part: new.run(part, steps[part], None if part == "sets" else kept / "written") for part in steps}
    print()
    return sum(report(part, json.loads((kept / f"{part}.json").read_text()), found[part]) for part in steps)


def main() -> None:
    arguments = parse()
    with ExitStack() as stack:
        work = Path(arguments.work or stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        work.mkdir(parents=True, exist_ok=True)
        fcntl.flock(stack.enter_context((work / "lock").open("w")), fcntl.LOCK_EX)  # one at a time
        try:
            sys.exit(1 if compare(arguments, work) else 0)
        except Failed as reason:
            print(f"\n{reason}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()
