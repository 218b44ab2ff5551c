"""METEOR 1.5 (Denkowski and Lavie 2014): pycocoevalcap's jar, asked for all captions at once."""

import contextlib
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from pycocoevalcap.meteor.meteor import METEOR_JAR

from imgcap.evaluation.metrics.ptb import PYCOCOEVALCAP, find_java

FOLDER = PYCOCOEVALCAP / "meteor"
PARAPHRASES = FOLDER / "data/paraphrase-en.gz"


def meteor(references: Mapping[int, list[str]], hypotheses: Mapping[int, list[str]], paraphrases: Path) -> float:
    """Score tokenised captions by METEOR. Raises RuntimeError when Java goes away or answers with no number."""
    command = [find_java(), "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", METEOR_JAR, "-", "-"]
    command += ["-stdio", "-l", "en", "-norm", "-a", str(paraphrases)]
    with subprocess.Popen(
        command, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            lines = [_score_line(group, hypotheses[image_id][0]) for image_id, group in references.items()]
            statistics = _ask(process, lines, len(lines))
            answers = _ask(process, [" ||| ".join(["EVAL", *statistics])], len(lines) + 1)
            return float(answers[-1])  # the others are of single images
        except (OSError, ValueError) as error:
            raise RuntimeError(f"METEOR's Java process failed: {error}") from error
        finally:
            process.kill()
            with contextlib.suppress(OSError):  # what it no longer reads
                assert process.stdin is not None
                process.stdin.close()


def _score_line(references: list[str], hypothesis: str) -> str:
    return " ||| ".join(["SCORE", *references, hypothesis.replace("|||", "").replace("  ", " ")])


def _ask(process: "subprocess.Popen[bytes]", lines: list[str], answers: int) -> list[str]:
    """Write lines to METEOR and read so many answers meanwhile: neither side waits for the other."""
    assert process.stdin is not None and process.stdout is not None
    stdin = process.stdin

    def write() -> None:
        with contextlib.suppress(OSError):  # Java went away: reading will tell
            stdin.write("".join(f"{line}\n" for line in lines).encode())
            stdin.flush()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    read = [process.stdout.readline().decode().strip() for _ in range(answers)]
    writer.join()
    if "" in read:
        raise ValueError(f"{len(read) - read.count('')} answers of {len(read)}")
    return read
