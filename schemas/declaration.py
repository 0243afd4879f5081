"""What a plugin says about itself before any of its code runs."""

from __future__ import annotations

import attrs

from .checks import integer, member, number, one_of, pattern, refuse, several, text
from .taxonomy import Category, Task

API_VERSION = 1
"""Version of the contract between host and plugins. A host refuses a plugin that declares another one."""

HEADS = ("p_ai", "p_tampered")
"""The fusion's two questions: are there synthesised pixels; were pixels moved, pasted or painted."""

STATISTICS = ("logit", "share", "max", "top", "largest", "strength")
"""How a column's number is taken from its evidence.

logit: a score in log-odds, clipped to +-10. share, max, top, largest: of a map, the share of cells above .5, the
maximum, the mean of the highest hundredth, the largest connected component's share. strength: the strongest finding
of the category that `evidence` names.
"""


@attrs.frozen(kw_only=True)
class Column:
    """One number that the plugin contributes to the fusion's feature row."""

    name: str = attrs.field(validator=text())
    """Unique within the plugin; the row's column is called "<plugin>.<name>"."""
    evidence: str = attrs.field(validator=text())
    """Name of the score or map, or category of the finding, that the number is taken from."""
    statistic: str = attrs.field(default="logit", validator=one_of(*STATISTICS))
    head: str = attrs.field(default="p_ai", validator=one_of(*HEADS))
    direction: int = attrs.field(default=1, validator=one_of(-1, 0, 1))
    """+1 where a higher number speaks for the head's question, -1 against it, 0 unordered."""
    block: str = attrs.field(default="", validator=text(empty=True))
    """Columns that come and go together, such as one of two models behind a plugin; default the plugin itself."""

    def __attrs_post_init__(self) -> None:
        categories = [c.value for c in Category]
        if self.statistic == "strength" and self.evidence not in categories:
            raise refuse(self, "evidence", f"one of {categories} where the statistic is strength", self.evidence)


@attrs.frozen(kw_only=True)
class WeightsFile:
    """One weights file of a plugin."""

    file: str = attrs.field(
        validator=pattern(
            r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]*", "a relative path of A-Z, a-z, 0-9, _ . / -, without .."
        )
    )
    """Relative to the declaration, with forward slashes."""
    sha256: str = attrs.field(validator=pattern("[0-9a-f]{64}", "64 lower-case hexadecimal digits"))
    size: int = attrs.field(validator=integer(1))
    """In bytes."""


@attrs.frozen(kw_only=True)
class Declaration:
    """The plugin's `tellsign.json`."""

    name: str = attrs.field(
        validator=pattern(
            "[a-z][a-z0-9_-]{0,39}",
            "1 to 40 of a-z, 0-9, _ and -, the first a letter, and neither bias nor prior",
            besides=("bias", "prior"),  # rows of the contributions that no plugin owns
        )
    )
    version: str = attrs.field(validator=text())
    api_version: int = attrs.field(validator=integer(1))
    older_api_versions: tuple[int, ...] = attrs.field(default=(), validator=several(int, unique=True))
    """Older versions of the contract that the plugin can keep to as well. The host takes the highest one that both
    speak and puts it into `api_version`; the manifest itself must be one that the oldest of them allows."""
    task: Task = attrs.field(validator=member(Task))
    detector: str = attrs.field(
        validator=pattern("[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", 'a class as "module:Class"')
    )
    """The class, as "module:Class"."""
    summary: str = attrs.field(validator=text())
    columns: tuple[Column, ...] = attrs.field(validator=several(Column, unique=True))
    code_licence: str = attrs.field(validator=text())
    """SPDX expression."""
    weights_licence: str = attrs.field(validator=text())
    """SPDX expression, or "none" where there are no weights."""
    commercial_use: bool = attrs.field(validator=member(bool))
    weights: tuple[WeightsFile, ...] = attrs.field(default=(), validator=several(WeightsFile))
    shared_weights: tuple[str, ...] = attrs.field(default=(), validator=several(str, unique=True))
    """Larger weights that the plugin uses where they are there, by their names in the host's registry
    (`tellsign models list`). Their licences count as well: the host knows them."""
    time_limit: float = attrs.field(default=30.0, validator=number(0.01, 3600))
    """Seconds that one picture may take before the plugin counts as hanging."""

    def __attrs_post_init__(self) -> None:
        names = [c.name for c in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise refuse(self, "columns", "columns of different names", twice)

    def block_of(self, column: Column) -> str:
        """Full name of the block that `column` comes and goes with: "<plugin>" or "<plugin>.<block>"."""
        return f"{self.name}.{column.block}" if column.block else self.name
