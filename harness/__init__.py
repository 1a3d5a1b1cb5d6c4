"""Evaluation harness for retrieval-augmented question answering; from Python use `harness.api`."""
