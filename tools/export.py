"""Write a run as an artefact, one folder that captions, is scored and is fine-tuned without the run.

    python tools/export.py runs/demo --out artefacts/demo
    python tools/export.py runs/demo --out artefacts/demo --onnx --push user/demo

It holds model.safetensors, config.json, vocab.json, scores.json, a model card and sample pictures; see docs/export.md.
"""

import argparse
import sys
from pathlib import Path

from imgcap.errors import exits_cleanly
from imgcap.export.artefact import OWNED, export_run
from imgcap.files.hub import check_name, push


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an older artefact there is replaced")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of the run")
    parser.add_argument("--onnx", action="store_true", help="also encoder and decoder step as ONNX graphs, in onnx/")
    parser.add_argument("--torch-export", action="store_true", help="also both as torch.export programs, in programs/")
    parser.add_argument("--push", metavar="USER/NAME", help="then upload it to the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="make a new repository of the hub a private one")
    return parser.parse_args()


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    if arguments.push:
        check_name(arguments.push)
    step, others = export_run(arguments.run, arguments.out, arguments.which, arguments.onnx, arguments.torch_export)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: step {step} of {arguments.run}, {size / 1e6:.1f} MB")
    for label in others:
        print(
            f"left out: {label}-scores.json is not known to be of step {step}; "
            f"launch/evaluate.py {arguments.run} --which {arguments.which} scores it",
            file=sys.stderr,
        )
    if arguments.push:
        print(push(arguments.out, arguments.push, arguments.private, OWNED))


if __name__ == "__main__":
    main()
