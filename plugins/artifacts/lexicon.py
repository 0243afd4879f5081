"""Which words are words, in any of the languages of wordfreq (extra `lettering`) that are written in Latin letters."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import cache

from tellsign.plugin import UnavailableError

from .reading import MISSING

LANGUAGES = (
    "en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "sk", "sl", "hu", "ro", "tr", "id",
    "ms", "vi", "ca", "lt", "lv", "is", "fil", "sh",
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+")
LETTERS = 4
"""Letters of the shortest word that counts: almost any three letters are an abbreviation somewhere."""
STEM = 0.7
"""Share of a word's letters that are a word themselves, at its beginning or end, from which the whole is one."""
RARE = 10**-7.5
"""How often a word of the large lists must be: below, they hold slips of the keyboard."""


def words(text: str) -> list[str]:
    """Words of Latin letters, lower case, of at least `LETTERS` letters."""
    return [w.casefold() for w in _WORD.findall(text) if len(w) >= LETTERS and all(map(_latin, w))]


def _latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("LATIN ")


def is_word(word: str, *, rare: bool = True) -> bool:
    """Whether any language knows a word, in lower case; without `rare`, whether it is a common one.

    Known are also two words of four letters and more in one, a word with a few letters before or behind it, and one
    that has f for s: the long s of old print.

    Raises
    ------
    UnavailableError
        The extra is not installed.
    """
    plain = _bare(word)
    return _known(plain, lexicon()) or (rare and _known(plain, rare_words()))


def _known(plain: str, known: frozenset[str]) -> bool:
    if plain in known or plain.replace("f", "s") in known:
        return True
    if any(plain[:k] in known and plain[k:] in known for k in range(LETTERS, len(plain) - LETTERS + 1)):
        return True
    least = max(LETTERS, math.ceil(STEM * len(plain)))
    return any(plain[:k] in known or plain[-k:] in known for k in range(least, len(plain)))


@cache
def lexicon() -> frozenset[str]:
    """Every known word of four letters and more, in lower case and without its accents."""
    try:
        from wordfreq import available_languages, get_frequency_dict
    except ImportError as error:
        raise UnavailableError(MISSING) from error
    # Of the large lists, with their millions of words, nearly everything is a word.
    there = available_languages("small")
    out: set[str] = set()
    for language in LANGUAGES:
        if language in there:
            out.update(_bare(w) for w in get_frequency_dict(language, "small") if len(w) >= LETTERS)
            _forget()
    return frozenset(out)


@cache
def rare_words() -> frozenset[str]:
    """Words of the large lists, down to one in 30 million, of languages that have one: for those that are not known."""
    from wordfreq import available_languages, get_frequency_dict

    there = available_languages("large")
    out: set[str] = set()
    for language in LANGUAGES:
        if language in there:
            rare = get_frequency_dict(language, "large").items()
            out.update(_bare(w) for w, often in rare if often >= RARE and len(w) >= LETTERS)
            _forget()
    return frozenset(out)


def _forget() -> None:
    """Empty the caches of wordfreq: it keeps every list that it read, which is hundreds of megabytes."""
    from wordfreq import get_frequency_dict, get_frequency_list

    get_frequency_dict.cache_clear()
    get_frequency_list.cache_clear()


def _bare(word: str) -> str:
    """Without accents; a lower-case word stays one."""
    if word.isascii():  # nearly all of millions
        return word
    return "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))


__all__ = ["LANGUAGES", "LETTERS", "is_word", "lexicon", "rare_words", "words"]
