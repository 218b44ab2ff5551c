"""Triton kernels: additive attention, LSTM cell, cross-entropy. Sums are float32, and tensors dense.

Where a stride stands beside a tensor, its rows may be columns of a wider one. An argument that is None is left out of
what is compiled. What a program computes, one of a kernel's grid, is what the docstring begins with. No program adds to
what another one writes, so that results are the same in every run.

Dimensions: B images, K queries an image, N = BK rows, T steps, P cells, A attention width, X width of the values,
S slices of X, H hidden width, V vocabulary.
"""

import triton
import triton.language as tl


@triton.jit
def _tanh(x, APPROXIMATE: tl.constexpr = False):
    """Compute tanh; approximately, to 2^-11 of it, by one instruction in the place of some twenty."""
    if APPROXIMATE:
        y = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = 2 * tl.sigmoid(2 * x) - 1
    return y


@triton.jit
def attention_weights(
    projected_BPA,
    query_NA,
    query_stride,
    score_A,
    attention_NP,
    K,
    P,
    A,
    APPROXIMATE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    """A row: softmax over the cells of score . tanh(projected + query)."""
    row = tl.program_id(0).to(tl.int64)
    p = tl.arange(0, BLOCK_P)
    cells = projected_BPA + (row // K * P + p[:, None]) * A
    scores_PA = tl.zeros([BLOCK_P, BLOCK_A], tl.float32)
    for first in range(0, A, BLOCK_A):
        a = first + tl.arange(0, BLOCK_A)
        projected_PA = tl.load(cells + a[None, :], (p[:, None] < P) & (a[None, :] < A), 0.0).to(tl.float32)
        asked_A = tl.load(query_NA + row * query_stride + a, a < A, 0.0).to(tl.float32)
        weight_A = tl.load(score_A + a, a < A, 0.0).to(tl.float32)
        scores_PA += weight_A[None, :] * _tanh(projected_PA + asked_A[None, :], APPROXIMATE)
    scores_P = tl.where(p < P, tl.sum(scores_PA, 1), float("-inf"))
    exp_P = tl.exp(scores_P - tl.max(scores_P, 0))
    tl.store(attention_NP + row * P + p, exp_P / tl.sum(exp_P, 0), p < P)


@triton.jit
def attention_context(
    attention_NP,
    values_BPX,
    gate_NX,
    gate_stride,
    context_NX,
    read_NX,
    K,
    P,
    X,
    DOT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    """An image, columns of X, some of its rows: attention @ values; with a gate also that times sigmoid(gate)."""
    image, k = tl.program_id(0).to(tl.int64), tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    x = tl.program_id(1) * BLOCK_X + tl.arange(0, BLOCK_X)
    row = image * K + k
    there_KX = (k[:, None] < K) & (x[None, :] < X)
    context_KX = tl.zeros([BLOCK_K, BLOCK_X], tl.float32)
    for first in range(0, P, BLOCK_P):
        p = first + tl.arange(0, BLOCK_P)
        weights = attention_NP + row[:, None] * P + p[None, :]
        weights_KP = tl.load(weights, (k[:, None] < K) & (p[None, :] < P), 0.0)
        cells = values_BPX + (image * P + p[:, None]) * X + x[None, :]
        values_PX = tl.load(cells, (p[:, None] < P) & (x[None, :] < X), 0.0)
        # Attention is rounded to the values' dtype, as a matrix product of torch would have it.
        rounded_KP = weights_KP.to(values_BPX.dtype.element_ty).to(DOT)
        context_KX = tl.dot(rounded_KP, values_PX.to(DOT), context_KX, input_precision="ieee")
    place = row[:, None] * X + x[None, :]
    tl.store(context_NX + place, context_KX.to(context_NX.dtype.element_ty), there_KX)
    if gate_NX is not None:
        gate_KX = tl.load(gate_NX + row[:, None] * gate_stride + x[None, :], there_KX, 0.0).to(tl.float32)
        tl.store(read_NX + place, (context_KX * tl.sigmoid(gate_KX)).to(read_NX.dtype.element_ty), there_KX)


@triton.jit
def attention_context_backward(
    d_read_NX,
    d_read_stride,
    also_d_read_NX,
    values_BPX,
    gate_NX,
    gate_stride,
    context_NX,
    d_gate_NX,
    d_gate_stride,
    d_context_BKX,
    d_context_stride,
    d_attention_SNP,
    B,
    K,
    P,
    X,
    SLICE,
    DOT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    """An image, a slice of X, some of its rows: gradients of gate and context, and the slice's share of attention's.

    `d_context_stride` lies between images, whose K rows are dense.
    """
    image, k = tl.program_id(0).to(tl.int64), tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    row = image * K + k
    begin = tl.program_id(1) * SLICE
    for first_p in range(0, P, BLOCK_P):
        p = first_p + tl.arange(0, BLOCK_P)
        arrived_KP = tl.zeros([BLOCK_K, BLOCK_P], tl.float32)
        for first_x in range(begin, tl.minimum(begin + SLICE, X), BLOCK_X):
            x = first_x + tl.arange(0, BLOCK_X)
            there_KX = (k[:, None] < K) & (x[None, :] < X)
            write_KX = there_KX & (first_p == 0)
            d_KX = tl.load(d_read_NX + row[:, None] * d_read_stride + x[None, :], there_KX, 0.0).to(tl.float32)
            if also_d_read_NX is not None:
                d_KX += tl.load(also_d_read_NX + row[:, None] * X + x[None, :], there_KX, 0.0).to(tl.float32)
            if gate_NX is not None:
                gate_KX = tl.load(gate_NX + row[:, None] * gate_stride + x[None, :], there_KX, 0.0).to(tl.float32)
                context_KX = tl.load(context_NX + row[:, None] * X + x[None, :], there_KX, 0.0).to(tl.float32)
                gate_KX = tl.sigmoid(gate_KX)
                slope_KX = d_KX * context_KX * gate_KX * (1 - gate_KX)
                place = d_gate_NX + row[:, None] * d_gate_stride + x[None, :]
                tl.store(place, slope_KX.to(d_gate_NX.dtype.element_ty), write_KX)
                d_KX *= gate_KX
            # A sum of one summand: across it the compiler doesn't move the above to where each warp computes all of it.
            rounded_KX = tl.sum(d_KX[:, :, None], 2).to(values_BPX.dtype.element_ty)
            if d_context_BKX is not None:
                place = d_context_BKX + image * d_context_stride + k[:, None] * X + x[None, :]
                tl.store(place, rounded_KX, write_KX)
            cells = values_BPX + (image * P + p[None, :]) * X + x[:, None]
            values_XP = tl.load(cells, (p[None, :] < P) & (x[:, None] < X), 0.0)
            arrived_KP = tl.dot(rounded_KX.to(DOT), values_XP.to(DOT), arrived_KP, input_precision="ieee")
        place = d_attention_SNP + ((tl.program_id(1) * B + image) * K + k[:, None]) * P + p[None, :]
        tl.store(place, arrived_KP, (k[:, None] < K) & (p[None, :] < P))


@triton.jit
def attention_query_backward(
    d_attention_SNP,
    also_d_attention_NP,
    attention_NP,
    projected_BPA,
    query_NA,
    query_stride,
    score_A,
    d_scores_NP,
    d_query_NA,
    d_query_stride,
    N,
    K,
    P,
    A,
    S,
    APPROXIMATE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    """A row: through the softmax and the scores to the query, with the tanh computed anew."""
    row = tl.program_id(0).to(tl.int64)
    p, s = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_S)
    shares = d_attention_SNP + (s[:, None].to(tl.int64) * N + row) * P + p[None, :]
    arrived_P = tl.sum(tl.load(shares, (s[:, None] < S) & (p[None, :] < P), 0.0), 0)
    if also_d_attention_NP is not None:
        arrived_P += tl.load(also_d_attention_NP + row * P + p, p < P, 0.0)
    attention_P = tl.load(attention_NP + row * P + p, p < P, 0.0)
    d_scores_P = attention_P * (arrived_P - tl.sum(attention_P * arrived_P, 0))
    tl.store(d_scores_NP + row * P + p, d_scores_P, p < P)
    cells = projected_BPA + (row // K * P + p[:, None]) * A
    for first in range(0, A, BLOCK_A):
        a = first + tl.arange(0, BLOCK_A)
        projected_PA = tl.load(cells + a[None, :], (p[:, None] < P) & (a[None, :] < A), 0.0).to(tl.float32)
        asked_A = tl.load(query_NA + row * query_stride + a, a < A, 0.0).to(tl.float32)
        weight_A = tl.load(score_A + a, a < A, 0.0).to(tl.float32)
        tanh_PA = _tanh(projected_PA + asked_A[None, :], APPROXIMATE)
        d_query_A = weight_A * tl.sum(d_scores_P[:, None] * (1 - tanh_PA * tanh_PA), 0)
        tl.store(d_query_NA + row * d_query_stride + a, d_query_A.to(d_query_NA.dtype.element_ty), a < A)


@triton.jit
def attention_cells_backward(
    d_scores_TNP,
    projected_BPA,
    query_TNA,
    query_step_stride,
    query_stride,
    score_A,
    d_projected_BPA,
    d_score_BA,
    T,
    N,
    K,
    P,
    A,
    APPROXIMATE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    """An image, columns of A: gradients of its projected cells and its share of the score's, over all its queries."""
    image = tl.program_id(0).to(tl.int64)
    p, a = tl.arange(0, BLOCK_P), tl.program_id(1) * BLOCK_A + tl.arange(0, BLOCK_A)
    there_PA = (p[:, None] < P) & (a[None, :] < A)
    place = (image * P + p[:, None]) * A + a[None, :]
    projected_PA = tl.load(projected_BPA + place, there_PA, 0.0).to(tl.float32)
    d_projected_PA = tl.zeros([BLOCK_P, BLOCK_A], tl.float32)
    d_score_PA = tl.zeros([BLOCK_P, BLOCK_A], tl.float32)
    scores, asked = d_scores_TNP + image * K * P, query_TNA + image * K * query_stride
    for _ in range(T):
        for k in range(K):
            d_scores_P = tl.load(scores + k * P + p, p < P, 0.0)
            asked_A = tl.load(asked + k * query_stride + a, a < A, 0.0).to(tl.float32)
            tanh_PA = _tanh(projected_PA + asked_A[None, :], APPROXIMATE)
            d_projected_PA += d_scores_P[:, None] * (1 - tanh_PA * tanh_PA)
            d_score_PA += d_scores_P[:, None] * tanh_PA
        scores += N * P
        asked += query_step_stride
    weight_A = tl.load(score_A + a, a < A, 0.0).to(tl.float32)
    d_projected_PA *= weight_A[None, :]
    tl.store(d_projected_BPA + place, d_projected_PA.to(d_projected_BPA.dtype.element_ty), there_PA)
    tl.store(d_score_BA + image * A + a, tl.sum(d_score_PA, 0), a < A)


@triton.jit
def _sum(first, second, third, there):
    """Sum of the entries at two or three places."""
    total = tl.load(first, there, 0.0).to(tl.float32) + tl.load(second, there, 0.0).to(tl.float32)
    if third is not None:
        total += tl.load(third, there, 0.0).to(tl.float32)
    return total


@triton.jit
def lstm_cell(
    first_NG,
    first_stride,
    second_NG,
    second_stride,
    third_NG,
    third_stride,
    cell_NH,
    new_hidden_NH,
    new_cell_NH,
    gates_NG,
    kept_NH,
    dropped_NH,
    H,
    BLOCK_H: tl.constexpr,
):
    """A row, columns of H: an LSTM cell whose gates are a sum; leaves them after sigmoid and tanh for the gradient.

    With dropout of what the next cell reads it also writes the new hidden state times `kept`.
    """
    row, h = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    there = h < H
    first, second = first_NG + row * first_stride + h, second_NG + row * second_stride + h
    third = None if third_NG is None else third_NG + row * third_stride + h
    entry = tl.sigmoid(_sum(first, second, third, there))
    forget = tl.sigmoid(_sum(first + H, second + H, None if third is None else third + H, there))
    candidate = _tanh(_sum(first + 2 * H, second + 2 * H, None if third is None else third + 2 * H, there))
    output = tl.sigmoid(_sum(first + 3 * H, second + 3 * H, None if third is None else third + 3 * H, there))
    cell = forget * tl.load(cell_NH + row * H + h, there, 0.0) + entry * candidate
    hidden = (output * _tanh(cell)).to(new_hidden_NH.dtype.element_ty)
    tl.store(new_cell_NH + row * H + h, cell, there)
    tl.store(new_hidden_NH + row * H + h, hidden, there)
    if gates_NG is not None:
        gates = gates_NG + row * 4 * H + h
        tl.store(gates, entry.to(gates_NG.dtype.element_ty), there)
        tl.store(gates + H, forget.to(gates_NG.dtype.element_ty), there)
        tl.store(gates + 2 * H, candidate.to(gates_NG.dtype.element_ty), there)
        tl.store(gates + 3 * H, output.to(gates_NG.dtype.element_ty), there)
    if kept_NH is not None:
        read = hidden.to(tl.float32) * tl.load(kept_NH + row * H + h, there, 0.0)
        tl.store(dropped_NH + row * H + h, read.to(dropped_NH.dtype.element_ty), there)


@triton.jit
def lstm_cell_backward(
    gates_NG,
    cell_NH,
    new_cell_NH,
    d_hidden_NH,
    also_d_hidden_NH,
    kept_NH,
    d_cell_NH,
    d_gates_NG,
    d_gates_stride,
    H,
    BLOCK_H: tl.constexpr,
):
    """A row, columns of H: gradients of the gates' sum and, in the place of the new cell's, of the old cell.

    Those of the hidden state arrive from the next step and from what read it, that by `kept` where it dropped some.
    """
    row, h = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    there, place = h < H, row * H + h
    d_hidden = tl.load(d_hidden_NH + place, there, 0.0).to(tl.float32)
    if also_d_hidden_NH is not None:
        also_d_hidden = tl.load(also_d_hidden_NH + place, there, 0.0).to(tl.float32)
        if kept_NH is not None:
            also_d_hidden *= tl.load(kept_NH + place, there, 0.0)
        d_hidden += also_d_hidden
    gates = gates_NG + row * 4 * H + h
    entry = tl.load(gates, there, 0.0).to(tl.float32)
    forget = tl.load(gates + H, there, 0.0).to(tl.float32)
    candidate = tl.load(gates + 2 * H, there, 0.0).to(tl.float32)
    output = tl.load(gates + 3 * H, there, 0.0).to(tl.float32)
    cell = tl.load(cell_NH + place, there, 0.0)
    squashed = _tanh(tl.load(new_cell_NH + place, there, 0.0))
    d_cell = tl.load(d_cell_NH + place, there, 0.0) + d_hidden * output * (1 - squashed * squashed)
    d_entry, d_forget = d_cell * candidate * entry * (1 - entry), d_cell * cell * forget * (1 - forget)
    d_candidate = d_cell * entry * (1 - candidate * candidate)
    d_output = d_hidden * squashed * output * (1 - output)
    d_gates = d_gates_NG + row * d_gates_stride + h
    tl.store(d_gates, d_entry.to(d_gates_NG.dtype.element_ty), there)
    tl.store(d_gates + H, d_forget.to(d_gates_NG.dtype.element_ty), there)
    tl.store(d_gates + 2 * H, d_candidate.to(d_gates_NG.dtype.element_ty), there)
    tl.store(d_gates + 3 * H, d_output.to(d_gates_NG.dtype.element_ty), there)
    tl.store(d_cell_NH + place, d_cell * forget, there)


@triton.jit
def cross_entropy(
    logits_NV,
    targets_N,
    cross_entropy_N,
    uniform_N,
    ahead_N,
    smoothing,
    pad,
    V,
    DIFFERENTIATE: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """A row: -log p of its target, the mean of that over all words, and how many words are likelier than the target.

    The logits become the gradient of (1 - smoothing) times the first and smoothing times the second.
    """
    row = tl.program_id(0).to(tl.int64)
    logits = logits_NV + row * V
    target = tl.load(targets_N + row)
    real = target != pad
    target_logit = tl.load(logits + target).to(tl.float32)
    highest, sum_exp, total, ahead = target_logit, 0.0, 0.0, 0
    for first in range(0, V, BLOCK_V):
        v = first + tl.arange(0, BLOCK_V)
        logits_V = tl.load(logits + v, v < V, float("-inf")).to(tl.float32)
        new_highest = tl.maximum(highest, tl.max(logits_V, 0))
        sum_exp = sum_exp * tl.exp(highest - new_highest) + tl.sum(tl.exp(logits_V - new_highest), 0)
        total += tl.sum(tl.where(v < V, logits_V, 0.0), 0)
        # Of equal logits the earlier word is likelier.
        ahead_V = (logits_V > target_logit) | ((logits_V == target_logit) & (v < target))
        ahead += tl.sum(ahead_V.to(tl.int32), 0)
        highest = new_highest
    log_sum = highest + tl.log(sum_exp)
    tl.store(cross_entropy_N + row, tl.where(real, log_sum - target_logit, 0.0))
    tl.store(uniform_N + row, tl.where(real, log_sum - total / V, 0.0))
    tl.store(ahead_N + row, tl.where(real, ahead, 2147483647))
    if DIFFERENTIATE:
        for first in range(0, V, BLOCK_V):
            v = first + tl.arange(0, BLOCK_V)
            logits_V = tl.load(logits + v, v < V, 0.0).to(tl.float32)
            d_V = tl.exp(logits_V - log_sum) - smoothing / V - tl.where(v == target, 1 - smoothing, 0.0)
            tl.store(logits + v, tl.where(real, d_V, 0.0).to(logits_NV.dtype.element_ty), v < V)


INTERPRETED = not isinstance(lstm_cell, triton.JITFunction)  # by Triton on a CPU, where TRITON_INTERPRET is set
