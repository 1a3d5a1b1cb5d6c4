"""Systems that shipped checkpoints cannot serve, on real data: models of random weights in the
official format. Rows are valid; what they say means nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Literal

import pytest
import tiny_models

from harness import api
from harness.canonical import open_corpus
from harness.corpus import content_id
from harness.run.store import read_rows
from harness.score.results import read_manifest
from harness.train import train_on
from systems.models.tuning import Tunable
from systems.retrollm.form import SIGNS, sentence_spans

FIVE = pytest.mark.parametrize(
    ("task", "file", "split"),
    [
        ("hotpotqa", "hotpotqa/validation.jsonl.gz", "validation"),
        ("musique", "musique/validation.jsonl.gz", "validation"),
        ("2wikimultihopqa", "2wikimultihopqa/validation.jsonl.gz", "validation"),
        ("msmarco-qa", "msmarco/v1.1.jsonl.gz", "validation"),
        ("triviaqa", "triviaqa", "validation"),
    ],
)


@FIVE
def test_dro_chooses_from_real_passages_and_answers(
    real_data: Path, task: str, file: str, split: str, tmp_path: Path
) -> None:
    selector = tiny_models.make_llama(tmp_path / "selector", positions=8192)
    generator = tiny_models.make_qwen2(tmp_path / "generator", seed=1, positions=8192)
    api.prepare(task, real_data / file, split)
    system = f"bm25@20+dro:selector={selector},generator={generator}@5"
    folder = api.run([task], [system], setting="pool", limit=4, split=split)
    api.score(folder)
    (entry,) = read_manifest(folder)["pipelines"]
    rows = list(read_rows(folder / entry["rows"]))
    assert len(rows) == 4 and not any(row.error for row in rows)
    for row in rows:
        ids = [hit.id for hit in row.hits]
        chosen = row.extras["list"]
        assert len(set(chosen)) == min(5, len(ids)) and ids[: len(chosen)] == chosen
        assert row.answer is not None and row.extras["log_p"] < 0
        assert list(row.read) == chosen[: len(row.read)]


def test_dro_is_trained_on_real_questions(real_data: Path, tmp_path: Path) -> None:
    models = {
        "selector": str(tiny_models.make_llama(tmp_path / "selector", positions=4096)),
        "generator": str(tiny_models.make_qwen2(tmp_path / "generator", positions=4096)),
    }
    api.prepare("musique", real_data / "musique", "train")
    sizes = {"iterations": "1", "questions": "2", "batch": "2", "samples": "3", "dev": "2"}
    options = {**models, **sizes, "lora": "2", "max_new_tokens": "4"}
    made = train_on("dro", tmp_path / "dro", tasks=["musique"], first="bm25@20", options=options)
    last = json.loads((made / "about.json").read_text())["iterations"][-1]
    assert last["iteration"] == 1 and last["ess"] >= 1
    api.prepare("musique", real_data / "musique", "validation")
    system = f"bm25@20+dro:checkpoint={made}@5"
    folder = api.run(["musique"], [system], setting="pool", limit=2, split="validation")
    (entry,) = read_manifest(folder)["pipelines"]
    assert [row.error for row in read_rows(folder / entry["rows"])] == ["", ""]


def with_signs(folder: Path, name: str, lora: int) -> Path:
    """A model of random weights that knows RetroLLM's signs."""
    made = {"llama": tiny_models.make_llama, "qwen2": tiny_models.make_qwen2}[name]
    base = made(folder / name, positions=4096)
    Tunable(base, lora=lora, name=str(base), signs=SIGNS).save(folder / f"{name}-signs")
    return folder / f"{name}-signs"


@FIVE
@pytest.mark.parametrize("setting", ["pool", "corpus"])
def test_retrollm_writes_evidence_of_real_documents(
    real_data: Path,
    task: str,
    file: str,
    split: str,
    setting: Literal["pool", "corpus"],
    tmp_path: Path,
) -> None:
    model = with_signs(tmp_path, "llama" if setting == "pool" else "qwen2", 2)
    scorer = tiny_models.make_classifier(tmp_path / "scorer", positions=512)
    api.prepare(task, real_data / file, split)
    base = f"retrollm:model={model},scorer={scorer},window=16"
    systems = [base, f"{base},mode=released", f"{base},constraint=corpus,lookahead=0"]
    folder = api.run([task], systems, setting=setting, limit=3, split=split)
    api.score(folder, metrics=["Acc", "AccOutput", "EvidenceR@1"])
    for entry in read_manifest(folder)["pipelines"]:
        corpus = open_corpus(Path(entry["data"]))
        rows = list(read_rows(folder / entry["rows"]))
        assert [row.error for row in rows] == ["", "", ""]
        for row in rows:
            assert row.answer is not None and row.answer.evidence
            for each in row.answer.evidence:
                assert each.span is not None
                text = corpus[each.doc_id].text
                assert 0 <= each.span[0] < each.span[1] <= len(text)
                if "released" not in entry["system"]:
                    starts = {start for start, _ in sentence_spans(corpus[each.doc_id])}
                    assert each.span[0] in starts


def test_retrollm_is_trained_on_real_questions_by_their_supporting_facts(
    real_data: Path, tmp_path: Path
) -> None:
    base = tiny_models.make_llama(tmp_path / "base", positions=4096)
    scorer = tiny_models.make_classifier(tmp_path / "scorer", positions=512)
    api.prepare("hotpotqa", real_data / "hotpotqa", "train")
    options = {"model": str(base), "scorer": str(scorer), "epochs": "1", "batch": "16", "lora": "2"}
    made = train_on(
        "retrollm", tmp_path / "made", tasks=["hotpotqa"], first="bm25@10", options=options
    )
    about = json.loads((made / "about.json").read_text())
    assert about["questions"] == {"train": 61, "left_out": 39} and about["recipe"]["masked"] == 0.8
    api.prepare("hotpotqa", real_data / "hotpotqa/validation.jsonl.gz", "validation")
    ranked = tmp_path / "splade.run"
    with gzip.open(real_data / "hotpotqa" / "validation.jsonl.gz", "rt") as file:
        every = [json.loads(line) for line in file]
    lines = [
        f"{row['_id']} Q0 {content_id(title, ''.join(sentences))} {n} {-n} x"
        for row in every
        for n, (title, sentences) in enumerate(row["context"])
    ]
    ranked.write_text("\n".join(dict.fromkeys(lines)))
    system = f"retrollm:model={made},scorer={scorer},expansion=trec:{ranked}"
    folder = api.run(["hotpotqa"], [system], setting="corpus", limit=2, split="validation")
    (entry,) = read_manifest(folder)["pipelines"]
    assert [row.error for row in read_rows(folder / entry["rows"])] == ["", ""]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_raggd_is_trained_and_answers_on_real_questions(
    real_data: Path, kind: str, tmp_path: Path
) -> None:
    maker = {"llama": tiny_models.make_llama, "qwen2": tiny_models.make_qwen2}[kind]
    base = maker(tmp_path / "base", positions=8192)
    tasks = {"hotpotqa": "hotpotqa", "musique": "musique"}
    for task, place in tasks.items():
        api.prepare(task, real_data / place, "train", limit=40)
    options = {"model": str(base), "lora": "2", "base_steps": "2", "base_batch": "2"}
    options |= {"predictor_steps": "2", "predictor_batch": "2", "update_rank": "2", "code": "4"}
    options |= {"rivals": "all", "rival_steps": "1", "prompt_steps": "1", "shown": "0.5"}
    made = train_on("raggd", tmp_path / "made", tasks=list(tasks), first="bm25@1", options=options)
    about = json.loads((made / "about.json").read_text())
    assert about["recipe"]["feature"] == "end" and about["recipe"]["descent_rate"] == 0.01
    api.prepare("hotpotqa", real_data / "hotpotqa/validation.jsonl.gz", "validation")
    ours = f"bm25+raggd:checkpoint={made}"
    modes = ("raggd", "base", "few-shot", "ttsgd", "hypertuning", "prompt-tuning")
    systems = [f"bm25+reader:model={base},shots=2@5", *(f"{ours},mode={each}@5" for each in modes)]
    systems += [f"{ours},support=per-question,bank=4@5"]
    folder = api.run(["hotpotqa"], systems, setting="pool", limit=3, split="validation")
    api.score(folder)
    entries = read_manifest(folder)["pipelines"]
    assert len(entries) == len(systems)
    for entry in entries:
        rows = list(read_rows(folder / entry["rows"]))
        assert [row.error for row in rows] == ["", "", ""]
        shown = "shots=" in entry["system"] or "few-shot" in entry["system"]
        for row in rows:  # demonstrations in the prompt leave less room
            assert row.answer is not None and len(row.read) <= 5
            assert shown or len(row.read) == 5
