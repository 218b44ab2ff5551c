"""Compile the kernels for a GPU that need not be there: what would be launched on CPU tensors is compiled only.

Arguments: the GPU's compute capability, dtypes (with commas), and sizes (with commas, any number of times): images,
captions, cells, attention width, width of the values, hidden width, vocabulary. Prints a line of JSON for each kernel.
"""

import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from imgcap.models.kernels.gpu import attention, cell, cross_entropy, launch

COMPILED = {}


def compile_only(kernel, grid, *arguments, warps=4, **sizes):
    constants, types = dict(sizes), {}
    for name, argument in zip(kernel.arg_names, arguments, strict=False):
        if argument is None or (type(argument) is int and argument == 1):
            constants[name] = argument
        elif isinstance(argument, torch.Tensor):
            dtype = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int64": "i64", "int32": "i32"}
            types[name] = "*" + dtype[str(argument.dtype).removeprefix("torch.")]
        else:
            types[name] = "fp32" if isinstance(argument, float) else "i32"
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(arguments)
        if isinstance(argument, torch.Tensor) or (type(argument) is int and argument % 16 == 0)
    }
    indices = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, indices, aligned)
    key = (kernel.__name__, str(signature), str(sorted(sizes.items(), key=str)))
    if key not in COMPILED:
        target = GPUTarget("cuda", int(sys.argv[1]), 32)
        COMPILED[key] = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": 1})


def calls(dtype, images, K, P, A, X, H, V):
    new = lambda *shape, dtype=dtype: torch.empty(*shape, dtype=dtype)  # noqa: E731
    N, T = images * K, 2
    for gate in (None, new(N, X)):
        values = new(images, P, X).requires_grad_()
        grads = [new(images, P, A).requires_grad_(), new(images, K, A), new(A), torch.empty(1)]
        read, _ = attention.additive_attention(values, *grads, None if gate is None else gate.view(images, K, X))
        read.backward(torch.empty_like(read))
        cells = attention.Cells(values.detach(), grads[0].detach(), new(A))
        exact = new(N, P, dtype=torch.float32)
        d = attention.Gradients(new(N, A), None if gate is None else new(N, X), None, exact)
        asked = (cells, new(N, A), gate, exact, new(N, X))
        attention.attend_backward(*asked, new(N, X), new(N, X), exact, d)
        attention.cells_backward(cells, new(T, N, A), new(T, N, P, dtype=torch.float32))
    exact = new(N, H, dtype=torch.float32)
    state = cell.NewState(new(N, H), exact, new(N, 4 * H))
    for kept in (None, exact):
        dropped = None if kept is None else cell.Dropped(kept, new(N, H))
        cell.lstm_cell([new(N, 4 * H)] * 3, exact, state, dropped)
        cell.lstm_cell([new(N, 4 * H)] * 2, exact, state._replace(gates_NG=None))
        cell.lstm_cell_backward(state, exact, new(N, H), new(N, H), exact, new(N, 4 * H), kept)
    targets = torch.zeros(N, dtype=torch.int64)
    for differentiate in (False, True):
        cross_entropy.cross_entropy(new(N, V), targets, 0.1, 0, differentiate)


def main():
    for module in (attention, cell, cross_entropy, launch):
        module.launch = compile_only
    for size in sys.argv[3:]:
        for dtype in sys.argv[2].split(","):
            before = set(COMPILED)
            calls(getattr(torch, dtype), *map(int, size.split(",")))
            for key in COMPILED.keys() - before:
                kernel = COMPILED[key]  # after ptxas, as the driver would load it
                line = {"kernel": key[0], "dtype": dtype, "sizes": size, "shared": kernel.metadata.shared}
                print(json.dumps(line | {"binary": len(kernel.asm["cubin"])}))


main()
