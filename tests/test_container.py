"""The image and the clusters' files, which no test here can run: what they copy, call and name is there."""

import re
from pathlib import Path

import pytest
import yaml

from imgcap.commands.main import NAMES
from imgcap.config.shipped import config_file

CHECKOUT = Path(__file__).resolve().parent.parent
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
CALLERS = ["Dockerfile", "launch/slurm/train.sbatch", "launch/kubernetes/train.yaml", "launch/hostfile.example"]


def copied() -> set[str]:
    lines = [line.split()[1:-1] for line in INSTRUCTIONS if line.startswith("COPY ")]
    return {name for names in lines for name in names}


def test_what_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    assert copied() and all((CHECKOUT / name).exists() for name in copied())
    everything, *sent = (CHECKOUT / ".dockerignore").read_text().split()
    assert everything == "*"
    assert {name.removeprefix("!") for name in sent if name.startswith("!")} == copied()


def test_all_that_pip_reads_is_copied() -> None:
    setup = (CHECKOUT / "setup.py").read_text()
    read = {"setup.py", "pyproject.toml", *re.findall(r'"(README\.md|LICENSE|configs|launch|imgcap)"', setup)}
    read |= {name for line in INSTRUCTIONS for name in re.findall(r"-[cr] (\S+\.txt)", line)}
    assert read == copied()


def test_the_image_calls_what_is_installed() -> None:
    (called,) = (line for line in INSTRUCTIONS if line.startswith("CMD "))
    setup = (CHECKOUT / "setup.py").read_text()
    assert called == 'CMD ["imgcap", "--help"]' and '"imgcap = imgcap.commands.main:main"' in setup
    (extra,) = re.findall(r"'\.\[(\w+)\]'", "\n".join(INSTRUCTIONS))
    assert f'"{extra}": [' in setup
    assert "--ipc=host" in DOCKERFILE and "--shm-size" in DOCKERFILE


@pytest.mark.parametrize("caller", CALLERS)
def test_commands_and_configurations_that_are_called_exist(caller: str) -> None:
    text = (CHECKOUT / caller).read_text()
    if caller.endswith(".yaml"):
        worker = yaml.safe_load(text)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
        text = " ".join(worker["command"])
    commands = re.findall(r"(?:-m|--module) imgcap (\S+)", text)
    assert commands and set(commands) <= set(NAMES)
    for name in set(re.findall(r"--config (\S+)", text)) - {"FILE"}:
        assert config_file(name).is_file(), name
