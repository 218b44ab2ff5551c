"""Show every key of a configuration.

    imgcap config
    imgcap config learning rate
    imgcap config flickr8k optim.lr=2e-4
    imgcap config runs/demo/config.yaml
    imgcap config --schema > config.schema.json

Without a file: all keys by theme, with default, values and meaning. With words: the keys that have them in name,
meaning or what others call them. With a file, or with overrides: what a run would have, as YAML, and where each value
comes from. A key that there isn't is an error that names the right one. The JSON schema is for editors, which then
complete and check.
"""

from imgcap.commands.arguments import parser_for
from imgcap.config.describe import config_text
from imgcap.errors import exits_cleanly


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    given = (
        "a YAML file, or the name of one that comes with imgcap, then any dotted.key=value; or words to find keys by"
    )
    parser.add_argument("given", nargs="*", metavar="FILE|WORD", help=given)
    parser.add_argument("--schema", action="store_true", help="the JSON schema of configuration files")
    arguments = parser.parse_args()
    print(config_text(arguments.given, arguments.schema), end="")
