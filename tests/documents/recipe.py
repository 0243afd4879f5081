"""How a test runs one block of a page: what the block wants to find in its folder, and what makes it small."""

import importlib.util
import sys
from collections.abc import Callable

import attrs
from blocks import ROOT, blocks


@attrs.frozen
class Recipe:
    page: str
    first: str
    """How the block's first line begins; it stands once on the page."""
    make: Callable
    needs: tuple[str, ...] = ()
    """Modules of extras."""
    allowed: dict[str, tuple[int, ...]] = attrs.field(factory=dict)
    more: dict[str, str] = attrs.field(factory=dict)
    """Options that are appended to a line, word for word as it stands, by how the line begins: sizes for a test."""
    wrote: tuple[str, ...] = ()
    """What must be there afterwards."""
    says: tuple[str, ...] = ()
    """What must be printed."""
    home: str = ""
    """The page whose home it shares, with what was scored there; by default its own."""
    slow: bool = False

    @property
    def block(self):
        page = next(p for p in (ROOT / "README.md", ROOT / "docs" / self.page) if p.name == self.page)
        (found,) = [b for b in blocks(page) if b.code.startswith(self.first)]
        return found


def module_of(path):
    """A module among the tests of other rooms, which make the same small things."""
    name = f"of_documents_{path.rpartition('/')[2].removesuffix('.py')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
