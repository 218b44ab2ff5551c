"""Samples in a reproducible order, decoded, augmented and batched."""

from imgcap.data.batch import HASH_MODULUS, batch_hash, damaged_count, target_count
from imgcap.data.dataset import EvalDataset, Ticket, TrainDataset
from imgcap.data.loader import PlanSampler, ignore_signals, reading, train_loader
from imgcap.data.plan import Accumulation, Plan, cut_batch, order
from imgcap.data.transforms import augmented_image, decode, eval_image

__all__ = [
    "HASH_MODULUS",
    "Accumulation",
    "EvalDataset",
    "Plan",
    "PlanSampler",
    "Ticket",
    "TrainDataset",
    "augmented_image",
    "batch_hash",
    "cut_batch",
    "damaged_count",
    "decode",
    "eval_image",
    "ignore_signals",
    "order",
    "reading",
    "target_count",
    "train_loader",
]
