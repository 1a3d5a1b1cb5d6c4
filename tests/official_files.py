"""Invented data files in the official shapes, each with the odd cases of its benchmark: aliases,
yes and no, unanswerable questions, equal titles, passages that stand twice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COUNT = 18
THINGS = "kiln lamp heron bay tower dam mill ferry quarry harbour chapel lantern".split()


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lines(rows: Iterable[Any]) -> str:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows)


def passages(number: int) -> list[tuple[str, list[str]]]:
    """Five titled passages of two sentences: the second and the fourth have the same title, the
    last is the first once more."""
    things = [THINGS[(number + step) % 12] for step in range(4)]
    made = []
    for place, thing in enumerate(things):
        title = f"Twin {number}" if place % 2 else f"{thing.title()} {number}"
        made.append(
            (title, [f"The {thing} of {number} is old.", f" Its {thing} keeper is {place}."])
        )
    return [*made, made[0]]


def question(number: int) -> str:
    return f"How old is the {THINGS[(number + number % 4) % 12]} of {number}?"


def answer(number: int) -> str:
    """What the first four words of the passage asked for are, in part or wholly; or yes or no."""
    thing = THINGS[(number + number % 4) % 12]
    return (f"{thing} of {number}", "yes", f"old {thing} of {number}", "The no.")[number % 4]


def gold(number: int) -> tuple[int, int]:
    """The places of two supporting passages; never the repeated last one."""
    return number % 4, (number + 1) % 4


# --- one file a benchmark: where it is prepared from, and its gold file ------------------


def hotpotqa(folder: Path) -> tuple[Path, Path]:
    rows = [
        {
            "_id": f"hot{(number * 7) % COUNT}",
            "question": question(number),
            "answer": answer(number),
            "supporting_facts": [[passages(number)[place][0], place % 2] for place in gold(number)],
            "context": [list(each) for each in passages(number)],
        }
        for number in range(COUNT)
    ]
    file = put(folder / "hotpot_dev_distractor_v1.json", rows)
    return file, file


def wiki2(folder: Path) -> tuple[Path, Path]:
    file, _ = hotpotqa(folder)
    rows = json.loads(file.read_text())
    file.unlink()
    for number, row in enumerate(rows):
        subject, thing = f"keeper {number}", THINGS[number % 12]
        row["evidences"] = [
            [f"The {thing}", "keeper", subject],
            [subject, "place", f"Bay {number}"],
        ]
        row["evidences_id"] = [["Q1", "keeper", f"Q9{number}"], [f"Q9{number}", "place", "Q2"]]
        row["answer_id"] = "Q3" if number % 5 == 0 else None
    rows[1]["evidences_id"] = []
    put(
        folder / "id_aliases.json",
        lines(
            [
                {"Q_id": "Q3", "aliases": ["the kiln of", "The lamp of 0 is"], "demonyms": ["old"]},
                {"Q_id": "Q1", "aliases": ["heron"], "demonyms": []},
                {"Q_id": "Q2", "aliases": [], "demonyms": ["bay"]},
            ]
        ),
    )
    file = put(folder / "dev.json", rows)
    return file, file


def musique(folder: Path, full: bool = False) -> tuple[Path, Path]:
    """Paragraph numbers are not places: they count down from 30."""
    rows = []
    for number in reversed(range(COUNT)):
        for answerable in (True, False) if full else (True,):
            given = passages(number) if answerable else passages(number)[2:]
            rows.append(
                {
                    "id": f"2hop__{(number * 5) % COUNT}",
                    "paragraphs": [
                        {
                            "idx": 30 - place,
                            "title": title,
                            "paragraph_text": "".join(sentences),
                            "is_supporting": answerable and place in gold(number),
                        }
                        for place, (title, sentences) in enumerate(given)
                    ],
                    "question": question(number),
                    "question_decomposition": [],
                    "answer": answer(number),
                    "answer_aliases": [f"the {THINGS[number % 12]} of {number} is"],
                    "answerable": answerable,
                }
            )
    if full:  # twins need not stand side by side
        rows = rows[::2] + rows[1::2][::-1]
    name = f"musique_{'full' if full else 'ans'}_v1.0_dev.jsonl"
    file = put(folder / name, lines(rows))
    return file, file


def triviaqa(folder: Path, domain: str = "Wikipedia") -> tuple[Path, Path]:
    """In the web part, the first question has a page of which nothing was kept."""
    column, place = {
        "Wikipedia": ("EntityPages", "wikipedia"),
        "Web": ("SearchResults", "web"),
    }[domain]
    rows = []
    for number in range(COUNT):
        pages = []
        for page, (title, sentences) in enumerate(passages(number)):
            name = f"{number}/{page}.txt"
            put(folder / "evidence" / place / name, "".join(sentences))
            pages.append({"Title": title, "Filename": name})
        rows.append(
            {
                "QuestionId": f"tq_{(number * 5) % COUNT}",
                "Question": question(number),
                "Answer": {
                    "Value": answer(number),
                    "NormalizedAliases": [answer(number).lower(), f"{THINGS[number % 12]} of"],
                    "HumanAnswers": [f"the {number}"],
                },
                column: pages,
            }
        )
    put(folder / "evidence" / place / "blank.txt", " \n")
    if domain == "Web":
        rows[0][column].append({"Title": "", "Filename": "blank.txt"})
    data = {"Domain": domain, "VerifiedEval": False, "Version": 1.0, "Data": rows}
    file = put(folder / f"{place}-dev.json", data)
    return file, file


def msmarco_qa(folder: Path) -> tuple[Path, Path]:
    rows = [
        {
            "query_id": 900_000 + (number * 5) % COUNT,
            "query": question(number),
            "passages": [
                {"is_selected": int(place in gold(number)), "passage_text": "".join(sentences)}
                for place, (_, sentences) in enumerate(passages(number)[:4])
            ],
            "answers": [answer(number), f"the {number}"] if number % 6 else ["No Answer Present."],
        }
        for number in range(COUNT)
    ]
    file = put(folder / "dev_v1.1.json", lines(rows))
    return file, put(folder / "reference.json", lines(rows))


def msmarco_passage(folder: Path) -> tuple[Path, Path]:
    texts = ["".join(s) for number in range(COUNT) for _, s in passages(number)[:4]]
    put(folder / "collection.tsv", lines(f"{7 * n}\t{text}" for n, text in enumerate(texts)))
    put(
        folder / "queries.dev.small.tsv",
        lines(f"{900_000 + number}\t{question(number)}" for number in range(COUNT)),
    )
    judged = [(number, 4 * number + place) for number in range(COUNT) for place in gold(number)]
    qrels = lines(f"{900_000 + number}\t0\t{7 * place}\t1" for number, place in judged)
    return folder, put(folder / "qrels.dev.small.tsv", qrels)
