"""Write a shard set with a frozen encoder's features beside its pictures, which training then reads in their place.

    python tools/cache_features.py --config configs/flickr8k.yaml --out shards/flickr8k-features \
        model.encoder.train=none data.augment=off
    python launch/train.py --config configs/flickr8k.yaml data.shards=shards/flickr8k-features \
        model.encoder.train=none data.augment=off

Under torchrun each rank makes some of the shards. Run again after a stop, it goes on.
"""

import argparse
from pathlib import Path

from imgcap.config.load import load_config
from imgcap.errors import exits_cleanly
from imgcap.ranks.world import close_ranks, init_ranks
from imgcap.training.feature_cache import cache_features


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the YAML file of the runs to come")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new shard set")
    parser.add_argument("--batch", type=int, default=64, help="images encoded together (default 64)")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="override the configuration")
    return parser.parse_intermixed_args()


@exits_cleanly
def main() -> None:
    arguments = parse_arguments()
    config = load_config(arguments.config, arguments.overrides)
    world = init_ranks()
    try:
        manifest = cache_features(config, arguments.out, world, arguments.batch)
        if manifest is not None:
            print(manifest.summary(arguments.out))
    finally:
        close_ranks()


if __name__ == "__main__":
    main()
