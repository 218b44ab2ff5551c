"""An LSTM cell, forward and backward, one launch each.

Dimensions: N rows, H hidden width, G = 4H gates in torch's order: input, forget, cell, output.
"""

from typing import NamedTuple

from torch import Tensor

from imgcap.models.kernels.gpu import kernels
from imgcap.models.kernels.gpu.launch import block, launch, pieces, stride

Maybe = Tensor | None


class NewState(NamedTuple):
    """Where a cell writes: its new state, and the gates after sigmoid and tanh, where a gradient is wanted."""

    hidden_NH: Tensor
    cell_NH: Tensor
    gates_NG: Maybe = None


class Dropped(NamedTuple):
    """Dropout between two cells: by `kept`, 0 or 1 / (1 - p), and where what is left of a hidden state is written."""

    kept_NH: Tensor
    read_NH: Tensor


def lstm_cell(summands: list[Tensor], cell_NH: Tensor, new: NewState, dropped: Dropped | None = None) -> None:
    """Run an LSTM cell whose gates (N, G) are the sum of two or three tensors; the cell states are dense, in float32.

    The summands may be columns of wider tensors.
    """
    first_NG, second_NG, third_NG = [*summands, None][:3]
    assert first_NG is not None and second_NG is not None
    rows, width = cell_NH.shape
    kept_NH, read_NH = dropped or (None, None)
    launch(
        kernels.lstm_cell,
        _grid(rows, width),
        *(first_NG, stride(first_NG), second_NG, stride(second_NG)),
        *(third_NG, 0 if third_NG is None else stride(third_NG)),
        *(cell_NH, *new, kept_NH, read_NH),
        width,
        BLOCK_H=_block(width),
    )


def lstm_cell_backward(
    state: NewState,
    cell_NH: Tensor,
    d_hidden_NH: Tensor,
    also_d_hidden_NH: Maybe,
    d_cell_NH: Tensor,
    d_gates_NG: Tensor,
    kept_NH: Maybe = None,
) -> None:
    """Write the gradient of the gates, which may be columns; `d_cell_NH`, of the new cell, becomes that of the old one.

    That of the hidden state is a sum of two, the second one times `kept_NH` where that is given.
    """
    rows, width = cell_NH.shape
    launch(
        kernels.lstm_cell_backward,
        _grid(rows, width),
        *(state.gates_NG, cell_NH, state.cell_NH, d_hidden_NH, also_d_hidden_NH, kept_NH, d_cell_NH),
        *(d_gates_NG, stride(d_gates_NG), width),
        BLOCK_H=_block(width),
    )


def _block(width: int) -> int:
    return block(width, 16, 512)  # four entries a thread: eight bytes of a gate in half precision


def _grid(rows: int, width: int) -> tuple[int, int]:
    return rows, pieces(width, _block(width))
