"""How ranks exchange gradients: averaged over all of them, sent in the number format of `engine.exchange`."""

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.futures import Future

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of engine.exchange


def average_(gradients: Tensor, dtype: torch.dtype) -> Future[Tensor]:
    """Begin to average a float32 tensor over all ranks, in place; the future gives it when that is done.

    It is divided before it is rounded to `dtype`: in bfloat16, whose range is that of float32, an infinity or NaN of
    one rank reaches all of them, so that they skip the same steps. `wait()` on it blocks a GPU's stream, not the host.
    """
    sent = gradients.div_(distributed.get_world_size()).to(dtype)
    work = distributed.all_reduce(sent, async_op=True)
    assert work is not None
    return work.get_future().then(lambda exchanged: gradients.copy_(exchanged.value()[0]))


def average_bucket(dtype: torch.dtype, bucket: distributed.GradBucket) -> Future[Tensor]:
    """Average a bucket of gradients: a communication hook of DistributedDataParallel, whose state is the dtype.

    torch's own `bf16_compress_hook` rounds a second time where it divides, and is refused without CUDA.
    """
    return average_(bucket.buffer(), dtype)
