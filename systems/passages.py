"""What a system reads of a document."""

from __future__ import annotations

from dataclasses import replace

from harness.data import Document


def words_of(document: Document) -> str:
    """Title and text, a space between; the text alone where there is no title."""
    return f"{document.title} {document.text}" if document.title else document.text


def part_of(document: Document, text: str) -> Document:
    """A part of a document as a passage of its own, under its title."""
    return replace(with_text(document, text), id="")


def with_text(document: Document, text: str) -> Document:
    """The document with another text, of which no sentences are known."""
    return replace(document, text=text, sentences=())
