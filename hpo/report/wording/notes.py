"""The notes of an answer in English: what the trials cannot say, and why."""

from __future__ import annotations

from hpo.analysis.values import Note, NoteKind

_ENGLISH = {
    NoteKind.ALL_PRUNED: "all {count} trials were pruned",
    NoteKind.ALL_DIVERGED: "all {count} trials diverged",
    NoteKind.FEW_COMPLETE: "{count} complete trials; a best ratio needs at least {needed}",
    NoteKind.FEW_RATIOS: "{count} ratios tried; a best one needs at least {needed}",
    NoteKind.ONE_LOSS: "only the loss {name} has complete trials: losses are not compared",
    NoteKind.NO_BASELINE: "no baseline: nothing says whether the search was worth it",
    NoteKind.ALL_EQUAL: "all {count} complete trials have the same validation loss",
    NoteKind.DOES_NOT_FIT: "the model does not fit: only configurations that were tried are spoken of",
    NoteKind.TOO_MANY: "with more than {count} trials the answer is worked out by: hpo report --study {name}",
}


def said(note: Note) -> str:
    """Return the note as a sentence."""
    sentence = _ENGLISH[note.kind].format(count=note.count, needed=note.needed, name=note.name)
    is_one_ratio = note.kind is NoteKind.FEW_RATIOS and note.count == 1
    return sentence.replace("1 ratios", "1 ratio") if is_one_ratio else sentence
