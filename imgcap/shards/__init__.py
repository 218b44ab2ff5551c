"""Datasets as verified tar shards: builder, manifest, index, reader, verification. Datasets come from `sources`."""

from imgcap.remote import Unreachable
from imgcap.shards.builder import build
from imgcap.shards.manifest import Features, Manifest
from imgcap.shards.place import Place
from imgcap.shards.reader import ShardReader
from imgcap.shards.source import Skipped, Source
from imgcap.shards.token_counts import TokenCounts
from imgcap.shards.verify import Damage, verify

__all__ = [
    "Damage",
    "Features",
    "Manifest",
    "Place",
    "ShardReader",
    "Skipped",
    "Source",
    "TokenCounts",
    "Unreachable",
    "build",
    "verify",
]
