"""Write a run as an artefact, one folder that captions, is scored and is fine-tuned without the run.

    imgcap export runs/demo --out artefacts/demo
    imgcap export runs/demo --out artefacts/demo --onnx --push user/demo

It holds model.safetensors, config.json, vocab.json, scores.json, a model card and sample pictures; see docs/export.md.
"""

import sys
from pathlib import Path

from imgcap.commands.arguments import add_which, parser_for
from imgcap.errors import exits_cleanly, work_begins
from imgcap.files.hub import check_name, push


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an older artefact there is replaced")
    add_which(parser)
    parser.add_argument("--onnx", action="store_true", help="also encoder and decoder step as ONNX graphs, in onnx/")
    parser.add_argument("--torch-export", action="store_true", help="also both as torch.export programs, in programs/")
    parser.add_argument("--push", metavar="USER/NAME", help="then upload it to the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="make a new repository of the hub a private one")
    arguments = parser.parse_args()
    if arguments.push:
        check_name(arguments.push)

    from imgcap.export.artefact import OWNED, export_run  # here, since torch takes seconds to import, and --help none

    work_begins()
    step, others = export_run(arguments.run, arguments.out, arguments.which, arguments.onnx, arguments.torch_export)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: step {step} of {arguments.run}, {size / 1e6:.1f} MB")
    if arguments.which == "best" and not (arguments.run / "checkpoints" / "best").exists():
        print(f"no checkpoint of {arguments.run} was evaluated yet; the newest is taken", file=sys.stderr)
    for label, reason in others.items():
        print(
            f"left out: {label}-scores.json {reason}; "
            f"imgcap evaluate {arguments.run} --which {arguments.which} scores it",
            file=sys.stderr,
        )
    if arguments.push:
        print(push(arguments.out, arguments.push, arguments.private, OWNED))
