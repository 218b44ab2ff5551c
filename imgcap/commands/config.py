"""Show every key of a configuration.

    imgcap config
    imgcap config flickr8k optim.lr=2e-4
    imgcap config runs/demo/config.yaml
    imgcap config --schema > config.schema.json

Without a file: all keys with type, default and meaning. With one, or with overrides: what a run would have, as YAML. A
misspelt key is an error that names the nearest. The JSON schema is for editors, which then complete and check.
"""

from imgcap.commands.arguments import config_file, parser_for
from imgcap.config.describe import config_text
from imgcap.errors import exits_cleanly


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    shipped = "a YAML file, or the name of one that comes with imgcap; then any dotted.key=value"
    parser.add_argument("given", nargs="*", metavar="FILE", help=shipped)
    parser.add_argument("--schema", action="store_true", help="the JSON schema of configuration files")
    arguments = parser.parse_args()
    given = arguments.given
    file = config_file(given.pop(0)) if given and "=" not in given[0] else None
    print(config_text(file, given, arguments.schema), end="")
