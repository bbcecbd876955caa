"""How a chapter speaks: what was seen after an expectation, and the summary at its end, in Markdown."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping


def expectation(expected: str, seen: str, holds: bool | None) -> str:
    """The line that answers an expectation; ``holds`` is None where the chapter's numbers cannot say."""
    verdict = {True: "as expected", False: "**not as expected**", None: "this cannot say"}[holds]
    return f"expected: {expected}; seen: {seen} ({verdict})"


def source(function: Callable) -> str:
    """The code of a function, as Markdown: beside an equation, what computes it."""
    return f"```python\n{textwrap.dedent(inspect.getsource(function))}```"


def summary(answer: str, found: Iterable[str], checks: Mapping[str, bool]) -> str:
    """The end of a chapter: the answer to its title's question, what was found, and what is in doubt.

    Parameters
    ----------
    answer : one sentence.
    found : sentences or parts of one, each a line of the list.
    checks : claims that must hold for the chapter to be believed, and whether they do; those that do not are
        listed as doubts.
    """
    doubts = [f"**in doubt:** not true that {claim}" for claim, holds in checks.items() if not holds]
    return f"## Summary\n\n{answer}\n\n" + "\n".join(f"- {line}" for line in [*found, *doubts])
