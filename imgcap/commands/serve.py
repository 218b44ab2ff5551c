"""A web page that captions the pictures dropped on it, with one model or several side by side.

    imgcap serve runs/demo
    imgcap serve runs/one artefacts/two user/three --port 8000 --examples photos/

Only this machine can open it, unless --host or --share says otherwise; see docs/page.md. Needs gradio:
pip install 'imgcap[page]'.
"""

from pathlib import Path

import imgcap
from imgcap.captioning.page.server import Limits, check_address, serve
from imgcap.commands.arguments import MODEL, add_device, parser_for, port
from imgcap.errors import exits_cleanly
from imgcap.pictures.files import find_pictures


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("models", nargs="+", metavar="RUN_OR_ARTEFACT", help=MODEL)
    parser.add_argument("--port", type=port, default=7860)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: whoever reaches this machine may use the page")
    parser.add_argument("--share", action="store_true", help="make a public link, through gradio's servers")
    parser.add_argument("--examples", type=Path, metavar="DIR", help="pictures to choose from (the first 24)")
    parser.add_argument("--max-mb", type=float, default=Limits.megabytes, help="size of a file (default 20)")
    parser.add_argument("--max-megapixels", type=float, default=Limits.megapixels, help="of a picture (default 40)")
    add_device(parser)
    arguments = parser.parse_args()
    limits = Limits(arguments.max_mb, arguments.max_megapixels)
    check_address(arguments.host, arguments.port)
    examples = find_pictures([arguments.examples]) if arguments.examples else []
    models = list(dict.fromkeys(arguments.models))
    names = [Path(model).name for model in models]
    labels = names if len(set(names)) == len(names) else models
    captioners = {label: imgcap.load(model, arguments.device) for label, model in zip(labels, models, strict=True)}
    serve(captioners, arguments.host, arguments.port, examples, limits, arguments.share)
