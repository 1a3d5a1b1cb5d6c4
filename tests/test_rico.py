"""The systems of RICO."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from reading import PASSAGES, QUESTIONS, brief
from safetensors.torch import load_file, save_file

from harness import api
from harness.cli import main
from harness.corpus import Corpus
from harness.data import Document, HarnessError, Hit, Query
from systems.models.language import open_lm
from systems.models.mamba2 import State
from systems.models.prompts import Prompt
from systems.reader import Reader
from systems.rico.mixture import add_mixed
from systems.rico.states import Store
from systems.rico.system import Rico, RicoSoup, RicoState
from systems.sizes import arithmetic

KINDS = {"mamba2": tiny_models.make_mamba2, "open-mamba2": tiny_models.make_open_mamba2}
MORE = [
    Document("d4", "Ostrava is a town by the river Odra, which flows north.", "Ostrava"),
    Document("d5", "Who was Kolen? A builder of towers, born when the year was 1830.", "Kolen"),
    Document("d6", "The the the.", ""),
]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: Any, tmp_path_factory: Any) -> Path:
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: Any) -> Corpus:
    twin = replace(PASSAGES[0], id="again")
    place = tmp_path_factory.mktemp("c") / "corpus"
    return tiny_models.corpus_of([*PASSAGES, *MORE, twin, Document("", "", "")], place)


@pytest.fixture(scope="module")
def queries(corpus: Corpus) -> list[Query]:
    told = [each for each in corpus.ids if corpus[each].text]
    pools = [tuple(told), tuple(told[1:3]), tuple(told[:5])]
    return [replace(each, pool=pool) for each, pool in zip(QUESTIONS, pools, strict=True)]


def opened(
    folder: Path, corpus: Corpus, place: Path, kind: type[Rico] = Rico, **options: Any
) -> Any:
    """A system with an index, in a new folder."""
    system = kind(str(folder), **options)
    place.mkdir()
    system.build(corpus, place, brief())
    system.open(corpus, place, brief())
    return system


@pytest.mark.parametrize(
    "options",
    [{}, {"conv": "zero"}, {"layers": 1}, {"max_length": 4}, {"states": "bfloat16"}],
    ids=str,
)
def test_weights_are_those_of_gradients_by_hand(
    options: dict[str, Any], folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    """One step, against the likelihood of the question behind h(α) by autograd in α itself."""
    system = opened(folder, corpus, tmp_path / "i", **{"steps": 1, "states": "float32", **options})
    lm: Any = open_lm(folder)
    kept, most = (1,) if options.get("layers") else (0, 1), options.get("max_length", 2048)
    loose = 2e-2 if system.dtype == "bfloat16" else 1e-4
    for query, reply in zip(queries, system.retrieve(queries, 9), strict=True):
        texts = {(corpus[each].title, corpus[each].text): corpus[each] for each in query.pool or ()}
        read = [lm.prompts.passage(each) for each in texts.values()]
        ends = [lm.end_state([each._replace(ids=each.ids[:most])]) for each in read]
        alpha = torch.full((len(ends),), 1 / len(ends), requires_grad=True)
        states: list[list[Any]] = [[], []]
        for layer in range(2):
            ssm = sum(a * e.ssm[layer] for a, e in zip(alpha, ends, strict=True))
            conv = torch.stack([e.conv[layer] for e in ends]).mean(0)
            states[0].append(ssm if layer in kept else 0 * ends[0].ssm[layer])
            states[1].append(conv if layer in kept and "conv" not in options else 0 * conv)
        words = [f"{title} {text}" for title, text in texts]
        asked = lm.asked(Prompt(None, behind=True), query.text, words)
        log_p = lm.target_log_p([asked], State(tuple(states[0]), tuple(states[1]))).sum()
        loss = -log_p / (len(asked.ids) - asked.start)
        (slope,) = torch.autograd.grad(loss, alpha)
        step = 0.5 / (len(ends) * float(slope.abs().max()))
        moved = (alpha.detach() - step * slope).tolist()
        by_text = dict(zip(texts, moved, strict=True))
        pool = query.pool or ()
        expected = {each: by_text[corpus[each].title, corpus[each].text] for each in pool}
        weights = reply.extras["weights"]
        assert weights == pytest.approx(expected, abs=loose)
        assert reply.extras["losses"] == pytest.approx([loss.item()], abs=loose)
        assert [hit.id for hit in reply.hits] == sorted(pool, key=lambda d: (-weights[d], d))
        assert len(set(moved)) == len(moved)


def test_neither_order_nor_batch_nor_memory_matter(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path, monkeypatch: Any
) -> None:
    found = opened(folder, corpus, tmp_path / "a").retrieve(queries, 9)
    assert [len(each.hits) for each in found] == [len(each.pool or ()) for each in queries]
    turned = [replace(each, pool=(each.pool or ())[::-1]) for each in queries]
    assert opened(folder, corpus, tmp_path / "b").retrieve(turned, 9) == found
    monkeypatch.setattr("systems.rico.system.HELD", 1)
    monkeypatch.setattr("systems.rico.states.BLOCK", 1)
    alone = opened(folder, corpus, tmp_path / "c").retrieve(queries, 9)
    for one, other in zip(found, alone, strict=True):
        assert one.extras["weights"] == pytest.approx(other.extras["weights"], abs=1e-4)
        assert len(one.extras["losses"]) > 1
    twins = [each for each in corpus.ids if corpus[each].text == PASSAGES[0].text]
    weights = found[0].extras["weights"]
    assert len(twins) == 2 and weights[twins[0]] == weights[twins[1]]


def test_reading_one_document_from_its_state_is_reading_it(corpus: Corpus, tmp_path: Path) -> None:
    """With open words the prompt behind a state is the rest of the prompt that a reader reads."""
    folder = tiny_models.make_open_mamba2(tmp_path / "m")
    reader = Reader(str(folder))
    reader.open(corpus, None, brief())
    systems = {
        kind: opened(folder, corpus, tmp_path / kind.name, kind, states="float32")
        for kind in (RicoSoup, RicoState)
    }
    said = set()
    for doc_id in [each for each in corpus.ids if corpus[each].text]:
        query = Query("q", "which river flows past the tower?", (doc_id,))
        (expected,) = reader.answer([query], [[corpus[doc_id]]])
        (soup,) = systems[RicoSoup].solve([query], 5)
        assert not isinstance(expected, Exception)
        assert soup.answer == expected.answer and soup.raw == expected.raw
        assert soup.hits == () and soup.read == (doc_id,)
        (state,) = systems[RicoState].solve([query], 5)
        assert state.extras["losses"] and state.answer is not None
        said.add(soup.raw)
    assert len(said) > 1


def test_answers_come_from_the_learned_state(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    system = opened(folder, corpus, tmp_path / "i", RicoState, steps=3)
    lm: Any = open_lm(folder)
    for query, mixture in zip(queries, system._mixtures(queries), strict=True):
        point = torch.zeros(system.layout.ssm)
        add_mixed(point, mixture.view, mixture.learned.weights)
        context = mixture.view.mean_context()
        prompt = Prompt(query.text, behind=True)
        (expected,) = lm.generate(
            [prompt],
            6,
            words=[mixture.pool.texts],
            start=system.layout.state(point[None], context[None]),
        )
        (reply,) = system.solve([query], 9)
        assert reply.raw == expected.text and set(reply.read) == set(query.pool or ())
        assert len(reply.hits) == len(query.pool or ())


def test_a_soup_is_the_mean_of_what_a_stage_found(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    soup = opened(folder, corpus, tmp_path / "s", RicoSoup)
    still = opened(folder, corpus, tmp_path / "t", RicoState, steps=0)
    (mixed,), (same,) = soup.solve(queries[:1], 9), still.solve(queries[:1], 9)
    assert mixed == replace(same, hits=()) and set(mixed.extras["weights"].values()) == {1 / 6}
    prior = tuple(Hit(each, -float(n)) for n, each in enumerate(reversed(queries[0].pool or ())))
    (after,) = soup.solve([replace(queries[0], prior=prior)], 2)
    best = tuple(hit.id for hit in prior[:2])
    (two,) = still.solve([replace(queries[0], pool=best)], 2)
    assert after.hits == prior and set(after.read) == set(best)
    (unranked,) = soup.solve(queries[:1], 2)  # no stage before: the whole pool
    assert (unranked.raw, unranked.read) == (mixed.raw, mixed.read)
    assert (after.raw, after.extras["weights"]) == (two.raw, two.extras["weights"])


def test_a_depth_leaves_the_documents_behind_it_out(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    system = opened(folder, corpus, tmp_path / "i", RicoState, steps=3)
    (whole,) = system.solve(queries[:1], 9)
    ids = [hit.id for hit in whole.hits]
    for k in range(1, 8):
        (reply,) = system.solve(queries[:1], k)
        kept = {corpus[each].text for each in ids[:k]}
        assert reply.hits == whole.hits and len(ids) == 7
        assert reply.read == tuple(each for each in ids if corpus[each].text in kept)
    # Behind one document: as if it were alone, with the weight it has among all.
    (mixture,) = system._mixtures(queries[:1])
    (alone,) = system._mixtures([replace(queries[0], pool=(ids[0],))])
    weight = whole.extras["weights"][ids[0]]
    alone.learned.weights = torch.tensor([weight]).double()
    ((one,), (two,)) = (
        system._written(queries[:1], [each], [each.best(1)]) for each in (mixture, alone)
    )
    assert one.text == two.text


@pytest.mark.parametrize("at", ["zero", "mean", "constant"])
def test_points_of_descent(
    at: str, folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"at": at}
    if at == "constant":
        (tmp_path / "asked.txt").write_text("who built the tower?\n\nwhere is the river?\n")
        options["questions"] = str(tmp_path / "asked.txt")
    usual = opened(folder, corpus, tmp_path / "u", steps=1).retrieve(queries, 9)
    one = opened(folder, corpus, tmp_path / "a", steps=1, **options).retrieve(queries, 9)
    again = opened(folder, corpus, tmp_path / "b", steps=1, **options).retrieve(queries, 9)
    assert one == again
    assert [each.extras["losses"] for each in one] != [each.extras["losses"] for each in usual]
    for reply in one:  # no weight moves by more than c / n from 0
        weights = reply.extras["weights"].values()
        assert max(map(abs, weights)) == pytest.approx(0.5 / reply.extras["states"]["documents"])
    point = tmp_path / "a" / "point.npy"
    assert point.is_file() == (at != "zero")


def test_the_fitted_point_makes_its_questions_likelier(
    folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "asked.txt").write_text("who built the tower?\nwhere is the river?\n")
    means = opened(folder, corpus, tmp_path / "m", at="mean")
    fitted = opened(
        folder, corpus, tmp_path / "f", at="constant", questions=str(tmp_path / "asked.txt")
    )
    found = []
    for system in (means, fitted):
        asked = [
            system._asked("who built the tower?", []),
            system._asked("where is the river?", []),
        ]
        parts = (each.expand(2, -1) for each in (system.base, system.context))
        found.append(float(system._surprise(asked, *parts).mean()))
    assert found[1] < found[0] - 0.01


def test_weights_to_begin_with(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    bm25 = opened(folder, corpus, tmp_path / "b", init="bm25", steps=0).retrieve(queries, 9)
    weights = bm25[0].extras["weights"]
    assert sum(weights.values()) > 1 and len(set(weights.values())) > 2  # the twin counts again
    system = opened(folder, corpus, tmp_path / "p", init="prior", steps=0)
    prior = tuple(Hit(each, float(-n)) for n, each in enumerate(queries[2].pool or ()))
    (reply,) = system.retrieve([replace(queries[2], prior=prior)], 9)
    assert [hit.id for hit in reply.hits] == [hit.id for hit in prior]


def test_states_are_kept_from_run_to_run(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    kept = {"store": str(tmp_path / "kept"), "room_gib": 0.01}
    first = opened(folder, corpus, tmp_path / "a", **kept)
    other = opened(folder, corpus, tmp_path / "o", RicoState, **kept)
    found = first.retrieve(queries, 9)
    assert found[0].extras["states"] == {"encoded": 6, "documents": 6, "bytes": first.store.bytes}
    assert [each.extras["states"]["encoded"] for each in found] == [6, 0, 0]
    assert other.solve(queries, 9)[0].extras["states"]["encoded"] == 0  # one folder for both
    first.close()
    other.close()
    second = opened(folder, corpus, tmp_path / "b", **kept)
    again = second.retrieve(queries, 9)
    assert [each.extras["states"]["encoded"] for each in again] == [0, 0, 0]
    assert [each.hits for each in again] == [each.hits for each in found]
    second.close()
    with pytest.raises(HarnessError, match="states of something else: layers"):
        opened(folder, corpus, tmp_path / "c", layers=1, **kept)
    cut = opened(folder, corpus, tmp_path / "d", max_length=3, **kept)
    assert cut.retrieve(queries, 9)[0].extras["states"]["encoded"] == 6
    assert cut.retrieve(queries, 9)[0].hits != found[0].hits


def test_questions_take_turns_where_there_is_little_room(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    """Room for the six documents of one question and not for those of two."""
    usual = opened(folder, corpus, tmp_path / "a")
    room = 6.5 * usual.store.bytes / 2**30
    small = opened(folder, corpus, tmp_path / "b", room_gib=room)
    assert small.store.capacity == 6
    assert [len(some) for some in small._turns([*queries, *queries])] == [1, 2, 1, 2]
    for one, other in zip(usual.retrieve(queries, 9), small.retrieve(queries, 9), strict=True):
        assert one.extras["weights"] == pytest.approx(other.extras["weights"], abs=1e-4)
    with pytest.raises(HarnessError, match="the states of 6 documents"):
        opened(folder, corpus, tmp_path / "c", room_gib=room / 2).retrieve(queries[:1], 9)
    with pytest.raises(HarnessError, match="the states of 1 documents"):
        opened(folder, corpus, tmp_path / "d", room_gib=1e-9)


def test_a_corpus_is_encoded_ahead(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path
) -> None:
    kept = {"store": str(tmp_path / "kept"), "ahead": True}
    told: list[tuple[int, int]] = []
    system = Rico(str(folder), room_gib=0.01, **kept)
    system.on_progress = lambda *done: told.append(done)
    (tmp_path / "i").mkdir()
    system.build(corpus, tmp_path / "i", brief())
    assert told[-1] == (len(corpus), len(corpus))
    system.open(corpus, tmp_path / "i", brief())
    assert {each.extras["states"]["encoded"] for each in system.retrieve(queries, 9)} == {0}
    system.close()
    with pytest.raises(
        HarnessError, match=r"the states of 8 documents, .* each, are .*room_gib=1e-06"
    ):
        Rico(str(folder), room_gib=1e-6, **kept).build(corpus, tmp_path / "i", brief())


def test_what_is_wrong_with_one_question_is_that_question_s_error(
    folder: Path, corpus: Corpus, queries: list[Query], tmp_path: Path, monkeypatch: Any
) -> None:
    system = opened(folder, corpus, tmp_path / "i")
    (empty,) = (each for each in corpus.ids if not corpus[each].text)
    for query, said in (
        (replace(queries[0], pool=()), "the pool is empty"),
        (
            replace(queries[0], pool=(corpus.ids[0], empty, corpus.ids[1])),
            f"document {empty} is empty",
        ),
        (replace(queries[0], text="tower " * 3000), "the question has .* tokens"),
        (replace(queries[0], text=""), "the question has"),
        (replace(queries[0], pool=None), "no pool"),
    ):
        with pytest.raises(HarnessError, match=said):
            system.retrieve([query], 9)
    weights = load_file(folder / "model.safetensors")
    weights["backbone.layers.0.mixer.D"][0] = torch.nan
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HarnessError, match=r"the state of document .* holds numbers that are none"):
        opened(broken, corpus, tmp_path / "j").retrieve(queries, 9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("steps=-1", "steps=-1 is wrong"),
        ("rate=0", "rate=0.0 is wrong"),
        ("rate=inf", "rate=inf is wrong"),
        ("init=prior", "starts from the scores of a stage before it, and there is none"),
        ("at=mean,init=bm25", "Weights to begin with are for at=uniform"),
        ("at=constant", "Give at=constant the questions=FILE"),
        ("ahead=true", "Say where to: store=FOLDER"),
        ("at=here", "'uniform', 'zero', 'mean' or 'constant'"),
        ("model=mini-llama", "mini-llama is a llama, and rico mixes"),
        ("at=constant,questions=none.txt", "there is no file none.txt"),
        ("layers=9", "layers=9 is wrong: the model has 2"),
    ],
)
def test_wrong_options(options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "run",
                "--task",
                "mini-hotpotqa:documents=200,questions=5",
                "--system",
                f"rico:{options}",
            ]
        )
        == 2
    )
    assert said in capsys.readouterr().err


def test_a_dry_run_does_the_arithmetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of mamba2-130m from its config alone: 24 layers of 2 · 768 · 128 numbers, and contexts."""
    ssm = {"layer": "Mamba2"}
    config = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": ssm}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    task = "mini-hotpotqa:documents=200,questions=5"
    for layers, each in ((0, 24 * (196_608 + 5_376) * 2), (6, 6 * (196_608 + 5_376) * 2)):
        system = f"bm25+rico:model={tmp_path / 'm'},layers={layers}"
        assert main(["run", "--task", task, "--system", system, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert arithmetic(200, each) in said
    assert not (tmp_path / "results").exists()
    assert "75.89 TiB" in arithmetic(8_841_823, 9 * 2**20)


def test_a_corpus_needs_a_stage_before(capsys: pytest.CaptureFixture[str]) -> None:
    task = "mini-hotpotqa:documents=200,questions=5"
    for system in ("rico", "rico-state", "rico-soup"):
        assert main(["run", "--task", task, "--setting", "corpus", "--system", system]) == 2
        assert f"bm25@100+{system}" in capsys.readouterr().err


def test_no_documents_are_no_depth(capsys: pytest.CaptureFixture[str]) -> None:
    for system in ("rico-state", "bm25+rico-soup"):
        asked = ["run", "--task", "mini-hotpotqa:documents=200,questions=5", "--dry-run"]
        assert main([*asked, "--system", f"{system}@0"]) == 2
        assert "passes no documents on. Write @1 or more" in capsys.readouterr().err


def test_an_attention_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.make_llama(tmp_path / "m")
    with pytest.raises(HarnessError, match="is a llama, and rico mixes the states of a Mamba-2"):
        Rico(str(folder)).files()


def test_states_rank_and_shuffled_ones_do_not(tmp_path: Path, monkeypatch: Any) -> None:
    """The shipped model, one step: far above a random order, until documents swap their states."""
    task = "mini-hotpotqa:questions=60"

    def ndcg(name: str) -> float:
        run = api.run(task, ["rico:steps=1"], out=tmp_path / name)
        api.score(run)
        return next(r.value for r in api.records(run) if r.metric == "nDCG@10")

    floor = 0.557  # of a random order, two of ten
    assert ndcg("straight") > floor + 0.2
    whole = Store.blocks

    def shuffled(self: Store, keys: Any) -> Any:
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(len(self)))
        return whole(self, [keys[place] for place in order.tolist()])

    monkeypatch.setattr(Store, "blocks", shuffled)
    assert abs(ndcg("shuffled") - floor) < 0.1


def test_one_empty_document_costs_one_question(tmp_path: Path) -> None:
    """An error row each, and no more: through `run`, from a folder of questions."""
    folder, place = tiny_models.make_open_mamba2(tmp_path / "m"), tmp_path / "data"
    place.mkdir()
    documents = [{"_id": f"d{n}", "text": f"the tower {n} was built"} for n in range(4)]
    documents.append({"_id": "d4", "text": "", "title": ""})
    asked = [{"_id": f"q{n}", "text": "who built the tower?"} for n in range(3)]
    asked.append({"_id": "q3", "text": "tower " * 3000})
    lines = {"corpus.jsonl": documents, "queries.jsonl": asked}
    for name, rows in lines.items():
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "qrels").mkdir()
    qrels = "".join(f"q{n}\td{n}\t1\n" for n in range(4))
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    task = f"jsonl:{place}"
    api.prepare(task)
    run = api.run(task, [f"random@5+rico:model={folder}"], out=tmp_path / "run", setting="corpus")
    api.score(run)
    rows = [json.loads(x) for f in run.rglob("rows.jsonl") for x in f.read_text().splitlines()]
    said = sorted(row["error"] for row in rows if row.get("error"))
    assert len(said) == 4 and all("is empty" in each for each in said)
    run = api.run(task, [f"bm25@3+rico:model={folder}"], out=tmp_path / "two", setting="corpus")
    rows = [json.loads(x) for f in run.rglob("rows.jsonl") for x in f.read_text().splitlines()]
    said = [row["error"] for row in rows if row.get("error")]
    assert len(said) == 1 and "the question has 3000 tokens" in said[0]


def test_the_whole_way(tmp_path: Path) -> None:
    """In the pool setting, behind a stage in the corpus setting, and what stands in the rows."""
    folder = tiny_models.make_open_mamba2(tmp_path / "m")
    task = "mini-hotpotqa:documents=200,questions=6"
    systems = [f"bm25@7+rico:model={folder},steps=2+reader:model={folder}@2"]
    systems += [f"bm25@7+rico-state:model={folder},steps=2", f"bm25@7+rico-soup:model={folder}"]
    for setting in ("pool", "corpus"):
        run = api.run(task, systems, setting=setting, out=tmp_path / setting)
        api.score(run)
        found = {(r.system, r.metric): r for r in api.records(run)}
        assert {r.errors for r in found.values()} == {0}
        rows = [
            json.loads(line)
            for file in (tmp_path / setting).rglob("*.jsonl")
            for line in file.read_text().splitlines()
            if '"weights"' in line
        ]
        assert len(rows) == 18 and all(len(row["extras"]["weights"]) == 7 for row in rows)
