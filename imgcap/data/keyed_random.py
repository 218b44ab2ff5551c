"""Random numbers as functions of keys: no rank, worker, batch or resume changes what is drawn.

| drawn | key |
|---|---|
| the order of a set's shards, then of the samples in its first block | seed [, number of a mixed-in set], pass, 1 |
| the order of the samples in another block | as above, and the block's number |
| which set each position of an epoch draws from | seed, epoch, 1, 1, 1 |
| the augmentation of a sample | seed, pass, sample |
| which of its captions | seed, pass, sample, 1 |
| the tars of a stream | seed, first step, rank, worker |
| the coins of scheduled sampling, and of drawn captions | seed, step, image, caption, position |

Dimensions: B images, K captions an image, T tokens.
"""

import numpy as np
import torch

LOW_32 = 0xFFFFFFFF


def generator(*key: int) -> np.random.Generator:
    """Make NumPy's Philox generator for a key of integers from 0 on."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def coins(seed: int, step: int | torch.Tensor, image_ids: torch.Tensor, captions: int, length: int) -> torch.Tensor:
    """Draw uniform numbers on [0, 1) for a whole batch and on its device: coins_BKT, float32."""
    device = image_ids.device
    coin_B = _absorb(_absorb(_mix(image_ids & LOW_32), (image_ids >> 32) & LOW_32), seed)
    coin_B11 = _absorb(coin_B, step)[:, None, None]
    coin_BK1 = _absorb(coin_B11, torch.arange(captions, device=device)[:, None])
    coin_BKT = _absorb(coin_BK1, torch.arange(length, device=device))
    return (coin_BKT >> 8).float() * 2.0**-24


def _absorb(state: torch.Tensor, value: torch.Tensor | int) -> torch.Tensor:
    """Mix a value below 2**32 into a 32-bit state."""
    return _mix(((state + 0x9E3779B9) & LOW_32) ^ value)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Mix 32 bits held in 64, one to one (the `lowbias32` family of github.com/skeeto/hash-prospector).

    Both factors are below 2**31, so that no product overflows int64.
    """
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & LOW_32
    x = x ^ (x >> 15)
    x = (x * 0x735A2D97) & LOW_32
    return x ^ (x >> 15)
