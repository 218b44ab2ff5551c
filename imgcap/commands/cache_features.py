"""Write a shard set with a frozen encoder's features beside its pictures, which training then reads in their place.

    imgcap cache-features --config flickr8k --out shards/flickr8k-features \\
        model.encoder.train=none data.augment=off
    imgcap train --config flickr8k data.shards=shards/flickr8k-features \\
        model.encoder.train=none data.augment=off

Under torchrun each rank makes some of the shards. Run again after a stop, it goes on.
"""

from pathlib import Path

from imgcap.commands.arguments import add_device, add_overrides, parser_for, positive
from imgcap.config.load import load_config
from imgcap.config.shipped import config_file
from imgcap.errors import exits_cleanly, work_begins


@exits_cleanly
def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--config", type=config_file, required=True, help="the YAML file of the runs to come")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new shard set")
    parser.add_argument("--batch", type=positive, default=64, help="images encoded together (default 64)")
    add_device(parser)
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()

    # Here, since torch takes seconds to import, and --help none.
    from imgcap.ranks.world import close_ranks, init_ranks, say_without_gpu
    from imgcap.training.feature_cache import cache_features
    from imgcap.training.fine_tuning import adopted_input

    work_begins()

    config = load_config(arguments.config, arguments.overrides)
    config = load_config(arguments.config, [*arguments.overrides, *adopted_input(config, config.init_from)])
    world = init_ranks(arguments.device or config.device)
    try:
        say_without_gpu(world, "encoding")
        manifest = cache_features(config, arguments.out, world, arguments.batch)
        if manifest is not None:
            print(manifest.summary(arguments.out))
    finally:
        close_ranks()
