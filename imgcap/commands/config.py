"""Show a configuration as a run would have it: every key, in YAML.

    imgcap config flickr8k optim.lr=2e-4
    imgcap config runs/demo/config.yaml

Without a file all keys have their defaults. A misspelt key is an error that names the nearest.
"""

import argparse

from imgcap.commands.arguments import config_file, parser_for
from imgcap.config.load import as_yaml, load_config
from imgcap.errors import exits_cleanly


def parse() -> argparse.Namespace:
    parser = parser_for(__doc__)
    shipped = "a YAML file, or the name of one that comes with imgcap; then any dotted.key=value"
    parser.add_argument("given", nargs="*", metavar="FILE", help=shipped)
    return parser.parse_args()


@exits_cleanly
def main() -> None:
    given = parse().given
    file = config_file(given.pop(0)) if given and "=" not in given[0] else None
    print(as_yaml(load_config(file, given)), end="")
