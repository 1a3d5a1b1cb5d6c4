"""Questions and passages that the tests of readers share; needs no torch."""

from __future__ import annotations

from harness.data import Brief, Document, Example, Query

QUESTIONS = [
    Query("q1", "which river flows past the tower?"),
    Query("q2", "where?"),
    Query("q3", "who built what, when and where was Mira Kolen born, and who lived near it?"),
]
PASSAGES = [
    Document("d1", "The tower was built by Mira Kolen.", "Tower"),
    Document("d2", "Mira Kolen was born in Brno."),
    Document("d3", "The Morava flows past the tower of Ostrava in the year 1874.", "Morava"),
]
SHOWN = (
    Example(
        "who built the dam?",
        (
            Document("e1", "The dam was built by Ada Lund.", "Dam"),
            Document("e2", "Ada Lund rests."),
        ),
        "Ada Lund",
    ),
    Example("where is Osk?", (), "in Norland"),
)
INSTRUCTION = "Answer the question in a few words."


def brief(tokens: int = 6) -> Brief:
    return Brief(INSTRUCTION, max_new_tokens=tokens, seed=3)
