"""What a retriever reads of a document."""

from __future__ import annotations

from harness.data import Document


def words_of(document: Document) -> str:
    """Title and text, a space between; the text alone where there is no title."""
    return f"{document.title} {document.text}" if document.title else document.text
