"""An mteb-style search object (mteb 2's SearchProtocol) as a system; needs the package datasets.

    python -m harness run --task mini-hotpotqa --setting corpus --limit 20 --allow-code \
        --system examples/adapters/mteb_style.py:Letters \
        bm25@20+examples/adapters/mteb_style.py:Letters
"""

from systems.adapters import Mteb


class TrigramSearch:
    """Scores by shared runs of three letters: ``top_ranked`` where it is given, else all."""

    def index(self, corpus, *, task_metadata, hf_split, hf_subset, encode_kwargs, num_proc) -> None:
        self.texts = {row["id"]: runs(f"{row['title']} {row['text']}") for row in corpus}

    def search(self, queries, *, top_k, top_ranked=None, **rest) -> dict[str, dict[str, float]]:
        found = {}
        for row in queries:
            asked, among = (
                runs(row["text"]),
                self.texts if top_ranked is None else top_ranked[row["id"]],
            )
            scores = {each: len(asked & self.texts[each]) for each in among}
            best = sorted(scores, key=scores.get, reverse=True)[:top_k]
            found[row["id"]] = {each: float(scores[each]) for each in best}
        return found


def runs(text: str) -> set[str]:
    return {text[place : place + 3].lower() for place in range(len(text) - 2)}


class Letters(Mteb):
    def make(self, corpus, folder, brief):
        return (
            TrigramSearch()
        )  # with mteb: mteb.get_model("mteb/baseline-bm25s"), a wrapped encoder, …
