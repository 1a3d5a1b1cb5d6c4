"""Whole prediction files scored exactly as each benchmark's official script scores them.

The scorers take parsed files and give a `Report` under the script's own keys and scale. What a
script refuses (often with a traceback) raises `HarnessError`; what it silently scores 0 is in
``Report.log``, in its words where it has any. `score_file` reads the files first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.data import GoldTriple, HarnessError, Hit
from harness.run.external import trec_order
from harness.score import answers, ranking
from harness.score.answers import Fact, Overlap, against
from harness.score.checks import (
    Report,
    field,
    items,
    mapping,
    mean,
    no_questions,
    questions,
    text,
    texts,
)
from harness.score.kilt import kilt
from harness.score.msmarco import msmarco_passage, msmarco_qa


def _section(file: Any, key: str) -> Mapping[str, Any]:
    """A part of a prediction file that maps question ids to something."""
    return mapping(field(file, key, "The prediction file"), f"The section {key!r}")


def _facts(value: Any, place: str) -> set[Fact]:
    """Supporting facts; a string stands for its characters, as officially."""
    try:
        return set(map(tuple, value))
    except TypeError:
        raise HarnessError(
            f"{place} is not a list of [title, sentence] pairs.",
            "Write [] where there is no supporting fact.",
        ) from None


def _keys(prefix: str, overlap: Overlap) -> dict[str, float]:
    return dict(zip((f"{prefix}{k}" for k in ("em", "f1", "prec", "recall")), overlap, strict=True))


# --- HotpotQA and 2WikiMultihopQA -------------------------------------------------------

_Part = Callable[[Any, Any, str], Overlap]
"""(what was predicted, gold row, place) → how well they agree."""


@dataclass(frozen=True)
class _Section:
    """A section of a prediction file, the prefix of its metrics, and how it is compared."""

    name: str
    prefix: str
    said_if_missing: str
    compare: _Part


def _sectioned(
    prediction: Any, gold: Any, sections: Sequence[_Section]
) -> tuple[list[dict[str, float]], list[str]]:
    """Per gold row the metrics of each section, and joint where no section misses the id."""
    predicted = {section.name: _section(prediction, section.name) for section in sections}
    scores: list[dict[str, float]] = []
    log: list[str] = []
    # Every key is present even if every id is missing.
    empty = {section.prefix: answers.NOTHING for section in sections} | {"joint_": answers.NOTHING}
    for number, row in enumerate(questions(gold), 1):
        question = field(row, "_id", f"Gold row {number}")
        parts = dict(empty)
        for section in sections:
            if question not in predicted[section.name]:
                log.append(f"missing {section.said_if_missing} {question}")
                continue
            value = predicted[section.name][question]
            place = f"The {section.name!r} of question {question}"
            parts[section.prefix] = section.compare(value, row, place)
        if all(question in predicted[section.name] for section in sections):
            parts["joint_"] = answers.joint(*(parts[section.prefix] for section in sections))
        scores.append(
            {k: v for prefix, part in parts.items() for k, v in _keys(prefix, part).items()}
        )
    return scores, log


def _gold(row: Any, key: str) -> tuple[Any, str]:
    place = f"Gold question {row['_id']}"
    return field(row, key, place), f"{place}: {key!r}"


def _hotpotqa_answer(value: Any, row: Any, place: str) -> Overlap:
    return answers.hotpotqa_answer(text(value, place), text(*_gold(row, "answer")))


def _hotpotqa_support(value: Any, row: Any, place: str) -> Overlap:
    return answers.hotpotqa_support(_facts(value, place), _facts(*_gold(row, "supporting_facts")))


def hotpotqa(prediction: Any, gold: Any) -> Report:
    """hotpot_evaluate_v1.py@3635853: 12 keys in 0..1, printed unrounded.

    prediction: {"answer": {id: text}, "sp": {id: [[title, sentence], …]}}; gold: the data file.
    Missing ids score 0 and are logged, other ids are ignored. Raises `HarnessError` where the
    script fails: a section missing, a value of the wrong type, no gold.
    """
    sections = (
        _Section("answer", "", "answer", _hotpotqa_answer),
        _Section("sp", "sp_", "sp fact", _hotpotqa_support),
    )
    rows, log = _sectioned(prediction, gold, sections)
    scores = mean(rows, len(rows))
    return Report(scores, scores, tuple(log))


Aliases = Mapping[str, Sequence[Any]]
"""Q-id → aliases and demonyms, checked only where they are used: the file has a million rows."""


def wiki2_aliases(lines: Iterable[Any]) -> dict[str, Sequence[Any]]:
    """Rows of id_aliases.json as Q-id → aliases and demonyms; a later row replaces an earlier."""
    table: dict[str, Sequence[Any]] = {}
    for number, line in enumerate(lines, 1):
        place = f"Alias row {number}"
        aliases, demonyms = (
            items(field(line, key, place), place) for key in ("aliases", "demonyms")
        )
        table[field(line, "Q_id", place)] = [*aliases, *demonyms]
    return table


def wiki2_gold_triples(row: Any, aliases: Aliases) -> list[GoldTriple]:
    """A gold row's evidences with every accepted subject and object.

    Raises `HarnessError` where evidences_id does not fit evidences.
    """
    triples = [_three(triple, place) for triple, place in _each(row, "evidences")]
    ids = [_three(triple, place) for triple, place in _each(row, "evidences_id")]
    if ids and [i[1] for i in ids] != [triple[1] for triple in triples]:
        raise HarnessError(
            f"Gold question {row['_id']}: 'evidences_id' does not fit 'evidences'.",
            "Fetch the gold file again.",
        )
    forms: list[GoldTriple] = []
    for triple, named in zip(triples, ids or [(None, None, None)] * len(triples), strict=True):
        subject, relation, object_ = texts(list(triple), f"Gold question {row['_id']}")
        subject_id, _, object_id = named
        subjects = (subject, *_forms(aliases, subject_id))
        forms.append((subjects, relation, (object_, *_forms(aliases, object_id))))
    return forms


def _each(row: Any, key: str) -> Iterable[tuple[Any, str]]:
    values, place = _gold(row, key)
    return [(value, place) for value in items(values, place)]


def _three(value: Any, place: str) -> tuple[Any, Any, Any]:
    if len(items(value, place)) != 3:
        raise HarnessError(f"{place} is not made of triples.", "Fetch the gold file again.")
    return value[0], value[1], value[2]


def _forms(aliases: Aliases, identifier: Any) -> Sequence[str]:
    found = aliases.get(identifier, ()) if isinstance(identifier, str) else ()
    return texts(list(found), f"The aliases of {identifier}")


def _wiki2_support(value: Any, row: Any, place: str) -> Overlap:
    predicted, expected = _facts(value, place), _facts(*_gold(row, "supporting_facts"))
    for fact in predicted | expected:
        text(fact[0] if fact else None, f"{place}: a title")
    return answers.wiki2_support(predicted, expected)


def _wiki2_evidence(value: Any, row: Any, place: str, aliases: Aliases) -> Overlap:
    # A string among the triples stands for its characters, as officially.
    predicted = [
        tuple(triple) if isinstance(triple, str) else texts(triple, place)
        for triple in items(value, place)
    ]
    return answers.wiki2_evidence(predicted, wiki2_gold_triples(row, aliases))


def wiki2multihopqa(prediction: Any, gold: Any, aliases: Iterable[Any]) -> Report:
    """2wikimultihop_evaluate_v1.1.py@13800e5: 16 keys in percent, printed with 2 decimals.

    prediction: as `hotpotqa` and {"evidence": {id: [[subject, relation, object], …]}}; gold: the
    data file with answer_id and evidences_id; aliases: the rows of id_aliases.json. Evidence
    recall and F1, and joint, can exceed 100: see `answers.wiki2_evidence`. Raises `HarnessError`
    where the script fails.
    """
    table = wiki2_aliases(aliases)

    def answer(value: Any, row: Any, place: str) -> Overlap:
        golds = {text(*_gold(row, "answer")), *_forms(table, _gold(row, "answer_id")[0])}
        return against(answers.hotpotqa_answer, text(value, place), golds)

    def evidence(value: Any, row: Any, place: str) -> Overlap:
        return _wiki2_evidence(value, row, place, table)

    sections = (
        _Section("answer", "", "answer", answer),
        _Section("sp", "sp_", "sp fact", _wiki2_support),
        _Section("evidence", "evi_", "evidence", evidence),
    )
    rows, log = _sectioned(prediction, gold, sections)
    scores = mean(rows, len(rows), scale=100)
    return Report(scores, {key: round(value, 2) for key, value in scores.items()}, tuple(log))


# --- MuSiQue ----------------------------------------------------------------------------


@dataclass
class _Pair:
    """The rows of one id in MuSiQue-Full: flags in file order, scores of the answerable row."""

    flags: list[bool]
    predicted_flags: list[Any]
    scores: dict[str, float] | None = None


def musique(predictions: Any, gold: Any) -> Report:
    """evaluate_v1.0.py@922ac98: 3 keys in 0..1 (5 if any gold row is unanswerable), 3 decimals.

    predictions: rows with id, predicted_answer, predicted_support_idxs, predicted_answerable, in
    the order of gold. Only answerable rows are scored. MuSiQue-Full: every id twice. Raises
    `HarnessError` where the script fails; two empty files give zeros, as there.
    """
    rows, predicted_rows = items(gold, "The gold file"), items(predictions, "The prediction file")
    if len(rows) != len(predicted_rows):
        raise HarnessError(
            f"{len(predicted_rows)} predictions for {len(rows)} gold rows.",
            "Write one prediction a gold row, in the same order.",
        )
    pairs: dict[str, _Pair] = {}
    scored: list[dict[str, float]] = []
    for number, (row, predicted) in enumerate(zip(rows, predicted_rows, strict=True), 1):
        scores = _musique_row(row, predicted, f"Row {number}")
        pair = pairs.setdefault(str(row["id"]), _Pair([], []))
        pair.flags.append(bool(row["answerable"]))
        pair.predicted_flags.append(predicted["predicted_answerable"])
        if scores is not None:
            scored.append(scores)
            pair.scores = scores  # a second answerable row replaces the first, as officially
    keys = ("answer_f1", "answer_em", "support_f1")
    means = dict.fromkeys(keys, 0.0) | mean(scored, len(scored))
    if not all(row["answerable"] for row in rows):
        means |= _musique_groups(pairs)
    return Report(means, {key: round(value, 3) for key, value in means.items()})


def _musique_row(row: Any, predicted: Any, place: str) -> dict[str, float] | None:
    """The scores of an answerable row; None of an unanswerable one, whose values are ignored."""
    if field(row, "id", f"{place} of gold") != field(predicted, "id", f"{place} of predictions"):
        raise HarnessError(
            f"{place}: gold has id {row['id']}, the prediction {predicted['id']}.",
            "Write predictions in the order of the gold file.",
        )
    answer, indices, _ = (
        field(predicted, key, f"{place} of predictions")
        for key in ("predicted_answer", "predicted_support_idxs", "predicted_answerable")
    )
    place_in_gold = f"{place} of gold"
    aliases = items(field(row, "answer_aliases", place_in_gold), place_in_gold)
    golds = [field(row, "answer", place_in_gold), *aliases]
    support = [
        field(paragraph, "idx", place_in_gold)
        for paragraph in items(field(row, "paragraphs", place_in_gold), place_in_gold)
        if field(paragraph, "is_supporting", place_in_gold)
    ]
    if not field(row, "answerable", place_in_gold):
        return None
    found = against(
        answers.musique_answer,
        text(answer, f"{place}: 'predicted_answer'"),
        texts(golds, place_in_gold),
    )
    paragraphs_found = answers.musique_support(
        _indices(indices, f"{place}: 'predicted_support_idxs'"), _indices(support, place_in_gold)
    )
    return {"answer_f1": found.f1, "answer_em": found.em, "support_f1": paragraphs_found.f1}


def _indices(value: Any, place: str) -> set[int]:
    """Paragraph numbers through ``int``: "3", 3.9 and the keys of an object pass, as officially."""
    try:
        return set(map(int, value))
    except (TypeError, ValueError, OverflowError):
        raise HarnessError(
            f"{place} is not a list of paragraph numbers.", "Write the paragraphs' 'idx'."
        ) from None


def _musique_groups(pairs: Mapping[str, _Pair]) -> dict[str, float]:
    """A pair has the F1 of its answerable row if both flags are right, else 0."""
    totals = {"group_answer_sufficiency_f1": 0.0, "group_support_sufficiency_f1": 0.0}
    for question, pair in pairs.items():
        if len(pair.flags) != 2 or pair.scores is None:
            raise HarnessError(
                f"Question {question} is not a pair with an answerable row.",
                "In MuSiQue-Full every id stands in two rows: use the whole file.",
            )
        if pair.flags == pair.predicted_flags:
            totals["group_answer_sufficiency_f1"] += pair.scores["answer_f1"]
            totals["group_support_sufficiency_f1"] += pair.scores["support_f1"]
    return {key: total / len(pairs) for key, total in totals.items()}


# --- TriviaQA and SQuAD -----------------------------------------------------------------


def triviaqa_keys(dataset: Any) -> dict[str, Any]:
    """Key → Answer of a TriviaQA data file: question ids if its Domain is exactly "Wikipedia",
    else ``<QuestionId>--<Filename>`` for every document of a question. A verified set is cut to
    its verified questions (Web: and documents)."""
    domain, rows, verified = (
        field(dataset, key, "The gold file") for key in ("Domain", "Data", "VerifiedEval")
    )
    keys: dict[str, Any] = {}
    for row in items(rows, "'Data' of the gold file"):
        question = field(row, "QuestionId", "A gold row")
        place = f"Gold question {question}"
        if verified and not field(row, "QuestionPartOfVerifiedEval", place):
            continue
        names = [question]
        if domain != "Wikipedia":
            pages = _documents(row, place, verified and domain == "Web")
            names = [f"{question}--{field(page, 'Filename', place)}" for page in pages]
        for name in names:
            keys[name] = field(row, "Answer", place)
    return keys


def _documents(row: Any, place: str, verified: bool) -> list[Any]:
    pages = [
        page for key in ("EntityPages", "SearchResults") for page in items(row.get(key, []), place)
    ]
    if verified:
        pages = [page for page in pages if field(page, "DocPartOfVerifiedEval", place)]
        if not pages:
            raise HarnessError(f"{place} has no verified document.", "Fetch the file again.")
    return pages


def triviaqa(prediction: Any, dataset: Any) -> Report:
    """triviaqa_evaluation.py@ca43b58: exact_match and f1 in percent, and four counts.

    prediction: {key: text} with the keys of `triviaqa_keys`; missing keys score 0 and are
    logged, so the wrong style of keys is a silent 0 with ``common`` 0. Accepted answers are
    NormalizedAliases and HumanAnswers. Raises `HarnessError` where the script fails.
    """
    gold, predicted = triviaqa_keys(dataset), mapping(prediction, "The prediction file")
    if not gold:
        raise no_questions()
    rows: list[dict[str, float]] = []
    log: list[str] = []
    if (version := field(dataset, "Version", "The gold file")) != 1.0:
        log.append(f"The scorer is for version 1.0 of the data, this is {version}.")
    for key, answer in gold.items():
        if key not in predicted:
            log.append(f"Missed question {key} will receive score 0.")
            continue
        place = f"Gold question {key}"
        golds = texts(field(answer, "NormalizedAliases", place), place)
        golds += texts(answer.get("HumanAnswers", []), place)
        rows.append(_em_f1(answers.triviaqa_answer, predicted[key], golds, key))
    scores = {"exact_match": 0.0, "f1": 0.0} | mean(rows, len(gold), scale=100)
    scores |= {"common": len(rows), "denominator": len(gold)}
    scores |= {"pred_len": len(predicted), "gold_len": len(gold)}
    return Report(scores, scores, tuple(log))


def squad_rows(dataset: Any) -> list[dict[str, Any]]:
    """Rows {"id", "golds"} of a SQuAD v1.1 data file."""
    place = "The gold file"
    return [
        {
            "id": field(question, "id", place),
            "golds": [
                field(a, "text", place) for a in items(field(question, "answers", place), place)
            ],
        }
        for article in field(dataset, "data", place)
        for paragraph in field(article, "paragraphs", place)
        for question in field(paragraph, "qas", place)
    ]


def squad(prediction: Any, rows: Any) -> Report:
    """SQuAD v1.1 (huggingface/evaluate@a7dd338): exact_match and f1 in percent, unrounded.

    prediction: {id: text}; rows: {"id", "golds"} as `squad_rows` gives. Unanswered questions
    score 0 and are logged. Raises `HarnessError` where the script fails.
    """
    predicted, scored, log = mapping(prediction, "The prediction file"), [], []
    for row in questions(rows):
        question = field(row, "id", "A gold row")
        if question not in predicted:
            log.append(f"Unanswered question {question} will receive score 0.")
            continue
        golds = texts(field(row, "golds", f"Gold question {question}"), f"Question {question}")
        scored.append(_em_f1(answers.squad_answer, predicted[question], golds, question))
    scores = {"exact_match": 0.0, "f1": 0.0} | mean(scored, len(rows), scale=100)
    return Report(scores, scores, tuple(log))


def _em_f1(
    compare: Callable[[str, str], Overlap], value: Any, golds: Sequence[str], question: str
) -> dict[str, float]:
    if not golds:
        raise HarnessError(f"Question {question} has no gold answer.", "Leave the question out.")
    found = against(compare, text(value, f"The answer to {question}"), golds)
    return {"exact_match": found.em, "f1": found.f1}


# --- TREC runs --------------------------------------------------------------------------

TREC = ("nDCG@10", "RR", "AP", "R@100")
"""What a run is scored by where no task says."""


def trec(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Sequence[str] = TREC,
    rel: int = 1,
) -> Report:
    """A TREC run by trec_eval's measures as ir-measures spells them, in 0..1, printed with 4
    decimals: means over all judged queries, of which one that is not ranked scores 0.

    run: query → document → score; qrels: query → document → grade; rel: see `ranking.measure`
    """
    judged = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not judged:
        raise no_questions()
    rankings = {
        query: [hit.id for hit in trec_order(Hit(*each) for each in scores.items())]
        for query, scores in run.items()
    }
    rows = ranking.evaluate(rankings, judged, metrics, rel).values()
    scores = mean(rows, len(judged))
    log = [f"Query {query} is not ranked and scores 0." for query in judged if query not in run]
    return Report(scores, {key: round(value, 4) for key, value in scores.items()}, tuple(log))


def _qrels(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for place, (query, _, document, grade) in files.word_rows(path, "qid 0 docid grade"):
        if not re.fullmatch(r"-?\d+", grade):
            raise HarnessError(f"{place}: {grade!r} is not a grade.", "Write a whole number.")
        found.setdefault(query, {})[document] = int(grade)
    return found


# --- files ------------------------------------------------------------------------------


def _json_lines(path: Path) -> list[Any]:
    return [
        files.decode(place, line)
        for place, line in files.lines(path, may_be_empty=True)
        if line.strip()
    ]


def _raw_lines(path: Path) -> list[str]:
    """Lines of a file without blank lines; one that has any is refused, as officially."""
    found = []
    for place, line in files.every_line(path):
        if not line.strip():
            raise HarnessError(f"{place} is a blank line.", "Delete it.")
        found.append(line)
    return found


def _squad_file(path: Path) -> list[dict[str, Any]]:
    return squad_rows(files.json_value(path))


_Reader = Callable[[Path], Any]

BENCHMARKS: dict[str, tuple[Callable[..., Report], _Reader, _Reader]] = {
    "hotpotqa": (hotpotqa, files.json_value, files.json_value),
    "2wikimultihopqa": (wiki2multihopqa, files.json_value, files.json_value),
    "musique": (musique, _json_lines, _json_lines),
    "triviaqa": (triviaqa, files.json_value, files.json_value),
    "squad": (squad, files.json_value, _squad_file),
    "kilt": (kilt, _json_lines, _json_lines),
    "msmarco-passage": (msmarco_passage, _raw_lines, _raw_lines),
    "msmarco-qa": (msmarco_qa, _json_lines, _json_lines),
    "trec": (trec, files.trec_run, _qrels),
}
"""Benchmark → its scorer, and how its prediction and gold files are read."""


def score_file(benchmark: str, prediction: Path, gold: Path, aliases: Path | None = None) -> Report:
    """Score a prediction file against the benchmark's own gold file.

    Raises `HarnessError` as `read_files`, and for whatever the official script refuses.
    """
    values = read_files(benchmark, prediction, gold, aliases)
    return BENCHMARKS[benchmark][0](*values)


def read_files(
    benchmark: str, prediction: Path, gold: Path, aliases: Path | None = None
) -> list[Any]:
    """What a benchmark's scorer takes, from its files (each may be .gz or .bz2).

    aliases: id_aliases.json, which 2wikimultihopqa needs. Raises `HarnessError` for an unknown
    benchmark and unreadable files.
    """
    if benchmark not in BENCHMARKS:
        raise HarnessError(
            f"No file scorer for {benchmark!r}.", f"Choose one of {', '.join(BENCHMARKS)}."
        )
    scorer, read_prediction, read_gold = BENCHMARKS[benchmark]
    values = [read_prediction(prediction), read_gold(gold)]
    if scorer is wiki2multihopqa:
        if aliases is None:
            raise HarnessError(
                "2WikiMultihopQA v1.1 needs aliases.", "Name id_aliases.json with --aliases."
            )
        values.append(_json_lines(aliases))
    return values
