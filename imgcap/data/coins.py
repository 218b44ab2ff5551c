"""The coins of scheduled sampling: random numbers that depend on no rank, worker or batch.

Dimensions: B images, K captions an image, T tokens.
"""

import torch

LOW_32 = 0xFFFFFFFF


def coins(seed: int, step: int | torch.Tensor, image_ids: torch.Tensor, captions: int, length: int) -> torch.Tensor:
    """Draw coins_BKT, float32, uniform on [0, 1): a pure function of (seed, step, image id, caption, position)."""
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
    """A bijection of 32 bits held in 64 (the `lowbias32` family of github.com/skeeto/hash-prospector).

    Both factors are below 2**31, so that no product overflows int64.
    """
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & LOW_32
    x = x ^ (x >> 15)
    x = (x * 0x735A2D97) & LOW_32
    return x ^ (x >> 15)
