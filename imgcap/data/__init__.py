"""Samples in a reproducible order, decoded, augmented and batched."""

from imgcap.data.batch import HASH_MODULUS, batch_hash, damaged_count, target_count
from imgcap.data.dataset import EvalDataset, TrainDataset, features_of, place_of
from imgcap.data.loader import PlanSampler, TrainLoader, prepare_worker, reading
from imgcap.data.order import EpochOrder
from imgcap.data.plan import Accumulation, MicroBatch, Plan, cut_batch
from imgcap.data.prefetch import Prefetcher, block_of_cache
from imgcap.data.transforms import augmented_image, decode, eval_image

__all__ = [
    "HASH_MODULUS",
    "Accumulation",
    "EpochOrder",
    "EvalDataset",
    "MicroBatch",
    "Plan",
    "PlanSampler",
    "Prefetcher",
    "TrainDataset",
    "TrainLoader",
    "augmented_image",
    "batch_hash",
    "block_of_cache",
    "cut_batch",
    "damaged_count",
    "decode",
    "eval_image",
    "features_of",
    "place_of",
    "prepare_worker",
    "reading",
    "target_count",
]
