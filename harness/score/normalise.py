"""The three ways in which official scripts normalise text before comparing it.

They look alike and must not be shared: "O'Neill" becomes ``oneill`` for the SQuAD family and
``o neill`` for TriviaQA; "the kiln" loses its article everywhere but in 2Wiki's evidence.
All three only know ASCII punctuation, apply no Unicode normalisation, and split on whatever
``str.split`` calls white space (so on a no-break space, not on a zero-width one).
"""

from __future__ import annotations

import re
import string

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The underscore is among string.punctuation, so TriviaQA's extra rule for it is covered.
_BLANK_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))


def squad_normal(text: str) -> str:
    """Lower case, punctuation deleted, then articles and surplus white space removed.

    Shared by SQuAD v1.1, HotpotQA, 2WikiMultihopQA answers, MuSiQue and KILT. Punctuation goes
    first, so ``a-frame`` keeps its a and ``vitamin A.`` loses it.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_DELETE_PUNCTUATION)).split())


def triviaqa_normal(text: str) -> str:
    """As `squad_normal`, but punctuation and the quotes ‘ ’ ´ ` become spaces.

    Source: triviaqa_evaluation.py@ca43b58.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_BLANK_PUNCTUATION)).split())


def wiki2_evidence_normal(text: str) -> str:
    """As `squad_normal`, but articles stay. For the parts of 2Wiki's evidence triples.

    Source: 2wikimultihop_evaluate_v1.1.py@13800e5.
    """
    return " ".join(text.lower().translate(_DELETE_PUNCTUATION).split())
