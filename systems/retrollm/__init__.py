"""RetroLLM: one decoding pass writes clues, then evidence that stands in the corpus, then the
answer (Li et al. 2024, arXiv 2412.11919)."""
