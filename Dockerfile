# imgcap with all that training on GPUs needs.
#
#     docker build -t imgcap .
#     docker run --rm --gpus all --ipc=host -v /data:/data imgcap \
#         torchrun --nproc_per_node 4 -m imgcap train --config flickr8k data.shards=/data/flickr8k run_dir=/data/runs/flickr8k
#
# Docker gives /dev/shm 64 MB, and the loader's batches and NCCL's buffers lie there: --ipc=host shares the machine's,
# --shm-size=16g makes it larger. See docs/install.md.

# With nvcc, for the operators that DeepSpeed compiles when it runs; torch brings CUDA's libraries itself.
ARG CUDA=13.0.0-devel-ubuntu24.04
FROM nvidia/cuda:${CUDA}

# Triton and torch.compile call a C compiler, and include Python's headers.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/imgcap
ENV PATH=/opt/imgcap/bin:${PATH}

# torch and its CUDA libraries are a layer of their own, which a change of imgcap leaves alone.
WORKDIR /src
COPY constraints.txt requirements-caption.txt ./
RUN pip install --no-cache-dir -c constraints.txt -r requirements-caption.txt

COPY setup.py pyproject.toml README.md LICENSE ./
COPY imgcap imgcap
COPY configs configs
COPY launch launch
RUN pip install --no-cache-dir -c constraints.txt '.[page]'

WORKDIR /work
CMD ["imgcap", "--help"]
