"""The fenced blocks of a Markdown file, and how those that are examples are run.

| info string | meaning |
|---|---|
| `python` | run; the blocks of one file share a namespace, and may `await` at the top level |
| `console` | the lines after `$ ` (and `> `, for what goes on) are run by `sh -e` and must succeed; the rest is not |
| `yaml job.yaml` | any language and a file name: written there first, for the examples to use |
| anything with `notest` | left alone |
"""

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> {0,3})(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)$")


@dataclass(frozen=True)
class Fence:
    """One block: its info string in words, its text, and the line its text begins in."""

    words: tuple[str, ...]
    text: str
    line: int

    @property
    def runs(self) -> bool:
        """Whether it may be run at all."""
        return "notest" not in self.words

    def is_a(self, language: str) -> bool:
        """Whether it is an example in this language, to be run."""
        return self.runs and self.words[:1] == (language,)

    @property
    def file_name(self) -> str | None:
        """The file it is to be written to, if it names one."""
        names = [word for word in self.words[1:] if re.fullmatch(r"[\w-]+(\.[\w-]+)+", word)]
        return names[0] if names and self.runs else None


def fences(file: Path) -> list[Fence]:
    """All fenced blocks of a file, in order. One that is never closed goes on to the end."""
    found: list[Fence] = []
    lines = iter(enumerate(file.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        opening = _FENCE.match(line)
        if not opening:
            continue
        mark, indent = opening["mark"], len(opening["indent"])
        body: list[str] = []
        for _, inner in lines:
            if inner.strip().startswith(mark) and not inner.strip().strip(mark[0]):
                break
            body.append(inner[indent:] if inner[:indent].isspace() else inner)
        found.append(Fence(tuple(opening["info"].split()), "\n".join([*body, ""]), number + 1))
    return found


def commands(fence: Fence) -> str:
    """What a console session typed, as a script."""
    typed = [line[2:] for line in fence.text.splitlines() if line.startswith(("$ ", "> "))]
    return "\n".join([*typed, ""])
