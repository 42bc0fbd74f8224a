"""The two languages of the report: a table of sentences each, with the same keys.

What the core finds is a value (an enum, a number); here a key and its parts become a sentence. Sentences go
out to a person and come back nowhere: nothing reads, cuts or compares one (tests/test_language.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hpo.errors import HpoError, Said, UserError, printable
from hpo.report.chinese import CHINESE
from hpo.report.chinese_faults import FAULTS
from hpo.report.english import ENGLISH

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Words:
    """One language: its table, and how its sentences are put together."""

    language: Language
    table: Mapping[str, str] = field(repr=False)

    def say(self, key: str, /, **parts: object) -> str:
        """Return the sentence of ``key`` with its parts filled in."""
        return self.table[key].format(**parts)

    def count(self, key: str, count: int, /, **parts: object) -> str:
        """Return the sentence of ``key`` about ``count`` things (its part ``n``), one or several."""
        return self.say(f"{key}.one" if count == 1 else f"{key}.many", n=count, **parts)

    def name(self, kind: str, word: str) -> str:
        """Return what a word of a spec or a table is called; one that has no other name stays as it is."""
        return self.table.get(f"{kind}.{word}", word)

    def fault(self, error: UserError) -> str:
        """Return what an error says, as its class has it in English."""
        told = self.retold(error.line)
        return told if isinstance(error, HpoError) else printable(told)

    def retold(self, said: str) -> str:
        """Return what was said in English; as it is where this language has no sentence for it."""
        if self.language == "en" or not isinstance(said, Said):
            return said
        sentence, values = FAULTS.get(said.sentence, said.sentence), said.values
        told = {name: self.retold(one) if isinstance(one, str) else one for name, one in values.items()}
        return sentence.format(**told) if told else sentence

    def listed(self, parts: Sequence[str], last: str = "and") -> str:
        """Return parts in a row: ``a, b and c``; ``last`` is ``and`` or ``or``."""
        if len(parts) < 2:
            return "".join(parts)
        comma = self.say("list.comma")
        return comma.join(parts[:-1]) + self.say(f"list.{last}") + parts[-1]


SPOKEN: Mapping[Language, Words] = {"en": Words("en", ENGLISH), "zh": Words("zh", CHINESE)}
