"""The documents' code blocks, and what their marks say of who runs them.

A mark is a comment on the lines right before a fence:

    <!-- run by: TEST -->       TEST runs this block, with the files that it names
    <!-- ci: NAME -->           .ci/run runs it
    <!-- file: PATH -->         the content of a file that a test writes

A `run by` anywhere else speaks of the whole page. There is no mark for a block that nothing runs.
"""

import re
import shlex
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
FENCE = re.compile(r"((?:<!--[^\n]*-->[ \t]*\n)*)^```(\w*)\n(.*?)^```$", re.M | re.S)
MARK = re.compile(r"<!-- ([\w ]+): (.*?) -->")
KINDS = {"run by", "ci", "file"}
RUNS = ("python", "sh")
SHOWN = ("text", "json", "toml", "csv", "yaml", "html", "xml", "")
"""Languages of blocks that nobody types."""


@attrs.frozen
class Block:
    page: Path
    language: str
    code: str
    marks: dict[str, str]

    @property
    def runs(self):
        """Whether it runs with the other blocks of its page, as it stands."""
        return self.language in RUNS and not self.marks.keys() & KINDS

    @property
    def lines(self):
        """The words of every command; a backslash and an open quote go on, and `$NAME` is what `NAME=` said."""
        out, known, line = [], {}, ""
        for part in self.code.replace("\\\n", " ").splitlines():
            line += part
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a quote that is not closed yet
                line += "\n"
                continue
            line = ""
            said = re.fullmatch(r"(\w+)=(.+)", words[0]) if len(words) == 1 else None
            if said:
                known[f"${said[1]}"] = shlex.split(said[2])
            elif words:
                out.append([w for word in words for w in known.get(word, [word])])
        assert not line, f"a quote is not closed: {line!r}"
        return out

    @property
    def name(self):
        first = next((line for line in self.code.splitlines() if line.strip()), "")
        return f"{self.page.stem}: {first[:60]}"


def blocks(page):
    for comments, language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        yield Block(page, language, code, dict(MARK.findall(comments)))


def page_run_by(page):
    """Tests that run the whole page, word for word."""
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [test for kind, test in MARK.findall(outside) if kind == "run by"]


def every_block():
    return [block for page in PAGES for block in blocks(page)]
