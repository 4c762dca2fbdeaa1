"""Limits of all templates together: the number of their terms, and the memory of their patterns."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sfs.errors import InvalidFunction
from sfs.grammar import Spec, leaves
from sfs.patterns import pattern_bytes
from sfs.template_plan import leaf_key, pattern_of


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Limits of all templates that are evaluated together.

    Parameters
    ----------
    terms
        Number of keywords, regular expressions, comparisons and other terms; equal terms count once.
    pattern_mb
        Memory of the compiled keywords and regular expressions with their state caches at most, in MiB.
    """

    terms: int = 5_000
    pattern_mb: float = 640.0

    def require(self, specs: Iterable[Spec]) -> None:
        """Raise InvalidFunction if canonical templates exceed a limit.

        Examples
        --------
        >>> TemplateLimits(terms=1).require([{"missing": {"field": "a"}}, {"missing": {"field": "b"}}])
        Traceback (most recent call last):
        sfs.errors.InvalidFunction: the templates have 2 different terms, more than the limit of 1: remove some, ...
        """
        terms = {leaf_key(leaf): _leaf_bytes(leaf) for spec in specs for leaf in leaves(spec)}
        reason = self._reason(len(terms), *_sum_of(terms.values()))
        if reason is not None:
            raise InvalidFunction(reason)

    def refusals(self, specs: Iterable[Spec], beside: Iterable[Spec] = ()) -> list[str | None]:
        """Return the reason why each canonical template exceeds a limit together with those accepted before, or None.

        ``beside`` are templates that are evaluated in any case.

        Examples
        --------
        >>> TemplateLimits(terms=1).refusals([{"missing": {"field": "a"}}, {"missing": {"field": "b"}}])
        [None, 'the templates have 2 different terms, more than the limit of 1: remove some, ...']
        """
        accepted = {leaf_key(leaf): _leaf_bytes(leaf) for spec in beside for leaf in leaves(spec)}
        out: list[str | None] = []
        texts, memory = _sum_of(accepted.values())
        for spec in specs:
            new = {key: _leaf_bytes(leaf) for leaf in leaves(spec) if (key := leaf_key(leaf)) not in accepted}
            more_texts, more_memory = _sum_of(new.values())
            out.append(self._reason(len(accepted) + len(new), texts + more_texts, memory + more_memory))
            if out[-1] is None:
                accepted |= new
                texts, memory = texts + more_texts, memory + more_memory
        return out

    def _reason(self, terms: int, texts: int, memory: int) -> str | None:
        if terms > self.terms:
            return (
                f"the templates have {terms:,} different terms, more than the limit of {self.terms:,}: "
                "remove some, or raise template_limits.terms"
            )
        if memory > self.pattern_mb * 2**20:
            return (
                f"the {texts:,} keyword lists and regular expressions of the templates need up to "
                f"{memory / 2**20:,.0f} MiB, more than the limit of {self.pattern_mb:,.0f} MiB: remove some, or raise "
                "template_limits.pattern_mb"
            )
        return None


TEMPLATE_LIMITS = TemplateLimits()


def _leaf_bytes(leaf: Spec) -> int:
    """Return the maximum memory of the pattern of a leaf; 0 if it has none."""
    return pattern_bytes(pattern_of(leaf)) if not leaf.keys().isdisjoint(("keyword", "regex")) else 0


def _sum_of(leaf_bytes: Collection[int]) -> tuple[int, int]:
    """Return the number of patterns and their memory in sum."""
    return sum(map(bool, leaf_bytes)), sum(leaf_bytes)
