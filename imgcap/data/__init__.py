"""Samples in a reproducible order, decoded, augmented and batched."""

from imgcap.data.batch import HASH_MODULUS, batch_hash, damaged_count, target_count
from imgcap.data.dataset import EvalDataset, TrainDataset, features_of, place_of
from imgcap.data.loader import PlanSampler, TrainLoader, prepare_worker, reading
from imgcap.data.mixture import MixedReader, Share, mixture_sha256, refuse_other_features
from imgcap.data.order import EpochOrder
from imgcap.data.plan import Accumulation, MicroBatch, Plan, cut_batch
from imgcap.data.prefetch import block_of_cache, prefetchers
from imgcap.data.stream import NOT_EXACT, StreamLoader, StreamPlan, check_tars
from imgcap.data.transforms import augmented_image, decode, eval_image

__all__ = [
    "HASH_MODULUS",
    "NOT_EXACT",
    "Accumulation",
    "EpochOrder",
    "EvalDataset",
    "MicroBatch",
    "MixedReader",
    "Plan",
    "PlanSampler",
    "Share",
    "StreamLoader",
    "StreamPlan",
    "TrainDataset",
    "TrainLoader",
    "augmented_image",
    "batch_hash",
    "block_of_cache",
    "check_tars",
    "cut_batch",
    "damaged_count",
    "decode",
    "eval_image",
    "features_of",
    "mixture_sha256",
    "place_of",
    "prefetchers",
    "prepare_worker",
    "reading",
    "refuse_other_features",
    "target_count",
]
