"""DRO: a selector writes an ordered list of passages, a generator answers from them, and both are
trained together by EM over sampled lists (Shi et al. 2025, arXiv 2505.03075)."""
