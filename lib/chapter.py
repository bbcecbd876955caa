"""How a chapter speaks: what was seen after an expectation, and the summary at its end, in Markdown."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping


def expectation(expected: str, seen: str, holds: bool | None) -> str:
    """The line that answers an expectation; ``holds`` is None where this run cannot decide it."""
    verdict = {True: "as expected", False: "not as expected", None: "this run cannot decide it"}[holds]
    return f"expected: {expected}; seen: {seen} ({verdict})"


def above(low: Iterable[float], high: Iterable[float], threshold: float = 0.0) -> bool | None:
    """Whether numbers are above a threshold: False where one interval is below, None where one holds it."""
    ends = list(zip(low, high, strict=True))
    if any(end < threshold for _, end in ends):
        return False
    return True if ends and all(end > threshold for end, _ in ends) else None


def source(function: Callable) -> str:
    """The code of a function, as Markdown: beside an equation, what computes it."""
    return f"```python\n{textwrap.dedent(inspect.getsource(function))}```"


def summary(answer: str, found: Iterable[str], checks: Mapping[str, tuple[bool, str]]) -> str:
    """The end of a chapter: the answer to its title's question, what was found, and what is in doubt.

    Parameters
    ----------
    answer : sentences, of which the first answers the question.
    found : sentences, each a line of the list.
    checks : what must hold for the chapter to be believed, as the end of "we expected that …", to whether it
        does, and what was found, as the end of "but …". Those that do not hold are listed as doubts.
    """
    doubts = [
        f"**In doubt:** we expected that {expected}, but {seen}."
        for expected, (holds, seen) in checks.items()
        if not holds
    ]
    return f"## Summary\n\n{answer}\n\n" + "\n".join(f"- {line}" for line in [*found, *doubts])
