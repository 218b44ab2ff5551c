"""Fetch a data set from its publisher, check it and unpack it.

    imgcap download flickr8k --out data/flickr8k

A fetch that was stopped goes on where it stopped. Addresses are in imgcap/files/datasets.yaml; where one is gone, name
a local file or another address: --source Flickr8k_text.zip=FILE_OR_ADDRESS.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from imgcap.commands.arguments import parser_for
from imgcap.errors import UserError, exits_cleanly
from imgcap.files.datasets import SOURCES, download, missing, read_datasets
from imgcap.ranks.progress import Progress


def show(label: str, total: int | None) -> Callable[[int], object]:
    return Progress(total, label, "B").advance


def places(given: list[str]) -> dict[str, str]:
    wrong = next((text for text in given if "=" not in text), None)
    if wrong:
        raise UserError(f"--source {wrong}: write FILE=PLACE, a path or an address")
    return dict(text.split("=", 1) for text in given)


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("dataset", help="flickr8k, flickr30k, coco2014, coco2017 or karpathy")
    parser.add_argument("--out", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--source", action="append", default=[], metavar="FILE=PLACE", help="where a file is instead")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="another list of data sets")
    parser.add_argument("--verify-only", action="store_true", help="count what is there, fetch nothing")
    parser.add_argument("--force", action="store_true", help="fetch and unpack again what is there")
    parser.add_argument("--keep", action="store_true", help="keep the archives")
    arguments = parser.parse_args()
    datasets = read_datasets(arguments.sources)
    if arguments.dataset not in datasets:
        raise UserError(f"there is no data set {arguments.dataset!r}; choose one of {', '.join(datasets)}")
    dataset = datasets[arguments.dataset]
    if not arguments.verify_only:
        download(dataset, arguments.out, places(arguments.source), show, arguments.force, arguments.keep)
    lacking = missing(dataset, arguments.out)
    if lacking:
        raise UserError(
            f"{arguments.dataset} is not whole: {'; '.join(lacking)}; run without --verify-only, or --force"
        )
    for held in dataset.holds:
        print(f"{held.count} × {held.found(arguments.out)[0] / PurePosixPath(held.path).name}")
    print(f"next: {dataset.next_line(arguments.out)}")
