"""RICO (Becker et al. 2025, arXiv 2506.12149): documents are mixed in the state of a language
model, with weights learned by gradient descent on the question's own perplexity.

states.py   documents to states: which layers are kept, and the store that keeps them
mixture.py  weights of documents, their gradients and their descent
system.py   the systems: ``rico``, ``rico-state``, ``rico-soup``
"""
