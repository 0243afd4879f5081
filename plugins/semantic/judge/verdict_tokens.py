"""The score: which tokens mean real and which mean fake at the answer's position, and how sure the model is.

A judge that is only read as text says one of two words. Its logits at that position say how far apart they were, which
is what the fusion needs: score = softmax over {real, fake}, taken as log-odds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from tellsign.errors import SettingError

from .prompt import FAKE, REAL


@attrs.frozen(kw_only=True)
class VerdictTokens:
    """Where the two verdicts part, for one tokenizer and one prompt."""

    forced: tuple[int, ...]
    """Tokens that both verdicts begin with (empty for most tokenizers); they are appended to the prompt, so that the
    next position is the one at which the verdicts differ."""
    real: tuple[int, ...]
    """Tokens at that position that mean real: the verdict in its spellings, with and without a leading space."""
    fake: tuple[int, ...]


def verdict_tokens(
    encode: Callable[[str], Sequence[int]], prompt: str, *, real: str = REAL, fake: str = FAKE
) -> VerdictTokens:
    """Find the tokens by which a model would go on with either verdict.

    Verdicts are encoded together with the prompt, because a tokenizer may cut a word differently after other text.
    " real", "real", " Real" and "Real" all count; a spelling that the tokenizer does not begin with a token of its
    own after this prompt, or whose token the other verdict begins with as well, is left out.

    Parameters
    ----------
    encode : callable
        Text to token ids, without special tokens of its own.
    prompt : str
        All that stands before the verdict, the chat template applied.
    real, fake : str
        The two verdicts; several words and several tokens are fine.

    Raises
    ------
    SettingError
        The prompt ends with a space or in the middle of a token, so that no spelling of both can follow it, or one
        verdict begins with all of the other.
    """
    if prompt[-1:] == " ":
        # "is " and "real" become one token together, so that after "is " alone no verdict is to be expected.
        raise SettingError("prompt", "text that does not end with a space", prompt)
    before = list(encode(prompt))

    def follow(word: str) -> list[list[int]]:
        found = []
        for spelling in (f" {word}", word, f" {word.capitalize()}", word.capitalize()):
            ids = list(encode(prompt + spelling))
            if ids[: len(before)] == before and len(ids) > len(before):
                found.append(ids[len(before) :])
        return found

    spellings = {False: follow(real), True: follow(fake)}
    if not (spellings[False] and spellings[True]):
        raise SettingError(
            "prompt", f"text after which the tokenizer begins {real!r} and {fake!r} with tokens of their own", prompt
        )
    one, other = spellings[False][0], spellings[True][0]
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if shared is None:
        raise SettingError("verdicts", "two words of which neither begins with the other", (real, fake))
    forced = one[:shared]
    first = {
        key: {ids[shared] for ids in several if ids[:shared] == forced and len(ids) > shared}
        for key, several in spellings.items()
    }
    # The plain spelling's token stays whatever else the other verdict may begin with.
    return VerdictTokens(
        forced=tuple(forced),
        real=(one[shared], *sorted(first[False] - first[True] - {one[shared]})),
        fake=(other[shared], *sorted(first[True] - first[False] - {other[shared]})),
    )


def verdict_logit(logits: Tensor, tokens: VerdictTokens) -> tuple[Tensor, Tensor]:
    """Read the verdict off the logits at its position.

    Parameters
    ----------
    logits : float tensor of (B, vocabulary)
    tokens : VerdictTokens

    Returns
    -------
    logit : float32 tensor of (B,)
        log P(fake) - log P(real), each summed over its spellings; its sigmoid is P(fake | a verdict was given).
    mass : float32 tensor of (B,)
        P(real) + P(fake) among all tokens. Near 0 the model was about to say something else, and the logit is about
        a question that it did not answer.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    real = log_p[:, list(tokens.real)].logsumexp(dim=1)
    fake = log_p[:, list(tokens.fake)].logsumexp(dim=1)
    return fake - real, torch.logaddexp(real, fake).exp()
