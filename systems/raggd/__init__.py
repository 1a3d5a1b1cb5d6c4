"""RAG-GD: in-context optimisation for retrieval-augmented generation (Li et al. 2026, arXiv
2605.26356)."""
