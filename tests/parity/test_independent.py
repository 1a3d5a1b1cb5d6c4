"""Generated cases against slow, naive implementations written another way, in this file.

Characters are walked one by one instead of with expressions and tables, bags are matched by
crossing words off lists, sets by searching lists, F1 is computed from counts in fractions, the
matching of evidence tries every assignment.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache

import pytest

from harness.data import Answer, Gold, GoldTriple
from harness.score import answers, kilt, msmarco
from harness.score.answers import Overlap
from harness.score.normalise import squad_normal, triviaqa_normal, wiki2_evidence_normal

PAIRS = 20_000
Numbers = tuple[Fraction, Fraction, Fraction, Fraction]

# --- naive normalisers --------------------------------------------------------------------

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def naive_words(text: str) -> list[str]:
    words, word = [], ""
    for character in text + " ":
        if not character.isspace():
            word += character
        elif word:
            words.append(word)
            word = ""
    return words


def naive_without_articles(text: str) -> str:
    """Runs of letters, digits and underscores that are an article become a space."""
    result, run = "", ""
    for character in text + "\n":
        if character.isalnum() or character == "_":
            run += character
            continue
        result += " " if run in ("a", "an", "the") else run
        result += character
        run = ""
    return result


@cache
def naive_squad(text: str) -> str:
    kept = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return " ".join(naive_words(naive_without_articles(kept)))


@cache
def naive_triviaqa(text: str) -> str:
    blanked = "".join(" " if c in PUNCTUATION + "‘’´`" else c for c in text.lower())
    return " ".join(naive_words(naive_without_articles(blanked)))


@cache
def naive_evidence(text: str) -> str:
    return " ".join(naive_words("".join(c for c in text.lower() if c not in PUNCTUATION)))


# --- naive comparisons --------------------------------------------------------------------


def f1_of(precision: Fraction, recall: Fraction) -> Fraction:
    if precision == 0 or recall == 0:
        return Fraction(0)
    return 2 / (1 / precision + 1 / recall)


def naive_tokens(prediction: str, gold: str) -> Numbers:
    predicted, left = prediction.split(" "), gold.split(" ")
    predicted, left = [w for w in predicted if w], [w for w in left if w]
    size, shared = len(left), 0
    for word in predicted:
        if word in left:
            left.remove(word)
            shared += 1
    em = Fraction(prediction == gold)
    if shared == 0:
        return em, Fraction(0), Fraction(0), Fraction(0)
    f1 = Fraction(2 * shared, len(predicted) + size)
    return em, f1, Fraction(shared, len(predicted)), Fraction(shared, size)


def naive_squad_answer(prediction: str, gold: str) -> Numbers:
    return naive_tokens(naive_squad(prediction), naive_squad(gold))


def naive_triviaqa_answer(prediction: str, gold: str) -> Numbers:
    return naive_tokens(naive_triviaqa(prediction), naive_triviaqa(gold))


def naive_hotpotqa_answer(prediction: str, gold: str) -> Numbers:
    em, f1, precision, recall = naive_squad_answer(prediction, gold)
    for one in ("yes", "no", "noanswer"):
        if (naive_squad(prediction) == one) != (naive_squad(gold) == one):
            return em, Fraction(0), Fraction(0), Fraction(0)
    return em, f1, precision, recall


def naive_musique_answer(prediction: str, gold: str) -> Numbers:
    if naive_squad(prediction) == "" == naive_squad(gold):
        return Fraction(1), Fraction(1), Fraction(1), Fraction(1)
    return naive_squad_answer(prediction, gold)


def naive_best(found: Sequence[Numbers]) -> Numbers:
    result = []
    for position in range(4):
        highest = found[0][position]
        for numbers in found[1:]:
            if numbers[position] > highest:
                highest = numbers[position]
        result.append(highest)
    return result[0], result[1], result[2], result[3]


def naive_joint(*parts: Numbers) -> Numbers:
    em, precision, recall = (Fraction(math.prod(part[i] for part in parts)) for i in (0, 2, 3))
    return em, f1_of(precision, recall), precision, recall


def agree(found: Overlap, expected: Numbers) -> bool:
    return all(abs(x - y) <= 1e-9 for x, y in zip(found, map(float, expected), strict=True))


# --- generated text -----------------------------------------------------------------------

TRAPS = (
    "a A an An the The THE yes Yes no NO noanswer no-answer lamp Lamp kiln Quill lake 1,234 1234 "
    "3-4 3–4 a-frame the-end well-known and/or U.S. U.S.A. us A. O'Neill O’Neill ‘kiln’ `kiln` "
    "´kiln´ “the” ”a“ «a» a’b the北灯台 北灯台 「北灯台」 aé éa café cafe\u0301 a\u0301 á ÁRIA "
    "ＡＢＣ １２ GROSSE große ΣΟΦΟΣ σοφος İstanbul ΐ the_end snake_case _a_ __ ... … — – - ! ' "
    "don't C# C++ $5 €5 5° 50% #1 @the (a) [the] {an} 🏺 a🏺 the\u200b \u200ba \ufeffthe a\u00ad "
    "лампа а the\u0301 x² ½ ⅷ a⅓ ｔｈｅ"
)
WORDS = TRAPS.split(" ")
SPACES = (" ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u2009", "\u2028", "\u3000", "\x85", "\x1f")
NO_SPACES = ("", "-", "\u200b", "\u2060", "/")


def some_text(rng: random.Random) -> str:
    text = ""
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        text += rng.choice(WORDS) + rng.choice(SPACES if rng.random() < 0.9 else NO_SPACES)
    return text if rng.random() < 0.3 else text.strip()


def near(rng: random.Random, text: str) -> str:
    """A text that scorers may or may not take for the same."""
    changes: tuple[Callable[[str], str], ...] = (
        str,
        str.upper,
        str.title,
        lambda t: f"the {t}",
        lambda t: f"{t} {rng.choice(WORDS)}",
        lambda t: f"{rng.choice(WORDS)}{rng.choice(SPACES)}{t}",
        lambda t: t.replace("-", " "),
        lambda t: t.replace("'", "’"),
        lambda t: t.replace(" ", rng.choice(SPACES + NO_SPACES)),
        lambda t: "".join(c for c in t if c not in PUNCTUATION),
        lambda t: " ".join(rng.sample(t.split(), len(t.split()))),
        lambda t: " ".join(t.split()[1:]),
    )
    return rng.choice(changes)(text)


@cache
def pairs() -> list[tuple[str, tuple[str, ...]]]:
    rng = random.Random(20)
    made = []
    for _ in range(PAIRS):
        prediction = some_text(rng)
        golds = tuple(
            near(rng, prediction) if rng.random() < 0.6 else some_text(rng)
            for _ in range(rng.choice((1, 1, 2, 3)))
        )
        made.append((prediction, golds))
    return made


# --- the tests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normal", "naive"),
    [
        (squad_normal, naive_squad),
        (triviaqa_normal, naive_triviaqa),
        (wiki2_evidence_normal, naive_evidence),
    ],
)
def test_normalisers_agree_on_generated_texts_and_on_every_character_of_the_common_blocks(
    normal: Callable[[str], str], naive: Callable[[str], str]
) -> None:
    texts = {text for prediction, golds in pairs() for text in (prediction, *golds)}
    texts |= {f"x{chr(code)}a{chr(code)}The {chr(code)}an" for code in range(0x3100)}
    wrong = [text for text in texts if normal(text) != naive(text)]
    assert not wrong[:5]


@pytest.mark.parametrize(
    ("compare", "naive"),
    [
        (answers.squad_answer, naive_squad_answer),
        (answers.hotpotqa_answer, naive_hotpotqa_answer),
        (answers.musique_answer, naive_musique_answer),
        (answers.triviaqa_answer, naive_triviaqa_answer),
    ],
)
def test_answers_agree_with_the_naive_scorer(
    compare: Callable[[str, str], Overlap], naive: Callable[[str, str], Numbers]
) -> None:
    wrong = []
    for prediction, golds in pairs():
        expected = naive_best([naive(prediction, gold) for gold in golds])
        if not agree(answers.against(compare, prediction, golds), expected):
            wrong.append((prediction, golds))
    assert not wrong[:5]


def test_kilt_downstream_agrees_with_the_naive_scorer() -> None:
    wrong = []
    for prediction, golds in pairs():
        guess, stripped = prediction.strip(), {gold.strip() for gold in golds} - {""}
        if not stripped:
            continue
        found = kilt.downstream(guess, stripped)
        em, f1, _, _ = naive_best([naive_squad_answer(guess, gold) for gold in stripped])
        accuracy = any(guess == gold for gold in stripped)
        expected = (float(accuracy), float(em), float(f1)) if guess else (0.0, 0.0, 0.0)
        if (found["accuracy"], found["em"]) != expected[:2] or abs(
            found["f1"] - expected[2]
        ) > 1e-9:
            wrong.append((prediction, golds))
    assert not wrong[:5]


def test_the_generated_pairs_tell_the_scorers_apart() -> None:
    """Without these cases the comparisons above would prove little."""
    normals = sum(naive_squad(p) != naive_triviaqa(p) for p, _ in pairs())
    articles = sum(naive_squad(p) != naive_evidence(p) for p, _ in pairs())
    both_empty = yes_no = exact = partial = 0
    for prediction, golds in pairs():
        for gold in golds:
            plain, ruled = (
                naive_squad_answer(prediction, gold),
                naive_hotpotqa_answer(prediction, gold),
            )
            both_empty += plain[0] == 1 and plain[1] == 0
            yes_no += plain != ruled
            exact += plain[1] == 1
            partial += 0 < plain[1] < 1
    assert min(normals, articles, exact, partial) > PAIRS / 10
    assert min(both_empty, yes_no) > PAIRS / 200


# --- support and evidence -----------------------------------------------------------------

TITLES = ("Kiln", "KILN", "kiln", "The Kiln", "İl", "i̇l", "北", "Bay")


def some_facts(rng: random.Random) -> list[tuple[str, int]]:
    return [(rng.choice(TITLES), rng.choice((0, 1, True))) for _ in range(rng.randrange(5))]


def naive_lists(predicted: Sequence[object], gold: Sequence[object]) -> Numbers:
    hits = wrong = missed = 0
    for item in predicted:
        if any(item == other for other in gold):
            hits += 1
        else:
            wrong += 1
    for item in gold:
        if all(item != other for other in predicted):
            missed += 1
    precision = Fraction(hits, max(1, hits + wrong))
    recall = Fraction(hits, max(1, hits + missed))
    f1 = Fraction(2 * hits, max(1, 2 * hits + wrong + missed))
    return Fraction(wrong == missed == 0), f1, precision, recall


def distinct(facts: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return [fact for n, fact in enumerate(facts) if fact not in facts[:n]]


def test_support_agrees_with_the_naive_scorer() -> None:
    rng = random.Random(21)
    for _ in range(PAIRS):
        predicted, gold = some_facts(rng), some_facts(rng)
        plain = naive_lists(distinct(predicted), distinct(gold))
        lowered = [[(t.lower(), n) for t, n in distinct(facts)] for facts in (predicted, gold)]
        assert agree(answers.hotpotqa_support(predicted, gold), plain), (predicted, gold)
        assert agree(answers.wiki2_support(predicted, gold), naive_lists(*lowered)), (
            predicted,
            gold,
        )
        both_empty = not predicted and not gold
        expected = (Fraction(1),) * 4 if both_empty else plain
        assert agree(answers.musique_support(predicted, gold), expected), (predicted, gold)


NAMES = ("Kiln", "the Kiln", "kiln!", "KILN film", "Tove", "T. Ansgar", "O'Dell", "odell", "")
RELATIONS = ("director", "Director.", "the director", "place of birth")


def some_gold_triple(rng: random.Random) -> GoldTriple:
    subjects, objects = (rng.choices(NAMES, k=rng.choice((1, 1, 2, 3))) for _ in range(2))
    return tuple(subjects), rng.choice(RELATIONS), tuple(objects)


def some_triple(rng: random.Random, gold: Sequence[GoldTriple]) -> tuple[str, ...]:
    if gold and rng.random() < 0.6:
        subjects, relation, objects = rng.choice(gold)
        return rng.choice(subjects), relation, rng.choice(objects)
    return tuple(rng.choice(NAMES + RELATIONS) for _ in range(rng.choice((3, 3, 3, 2, 0))))


def naive_evidence_scores(
    predicted: Sequence[Sequence[str]], gold: Sequence[GoldTriple]
) -> tuple[Numbers, Fraction]:
    """The official numbers, and the capped F1 by trying every assignment."""
    triples: list[list[str]] = []
    for triple in predicted:
        normal = [naive_evidence(part) for part in triple]
        if normal not in triples:
            triples.append(normal)
    spelled = [
        [[naive_evidence(s), naive_evidence(r), naive_evidence(o)] for s in ss for o in os]
        for ss, r, os in gold
    ]
    matches = sum(any(triple in forms for forms in spelled) for triple in triples)
    n, m = len(triples), len(gold)
    precision, recall = Fraction(matches, max(1, n)), Fraction(matches, max(1, m))
    em = Fraction(matches == n == m)
    padded = [*triples, *([["nothing"]] * m)]
    most = max(
        (
            sum(triple in forms for triple, forms in zip(order, spelled, strict=True))
            for order in itertools.permutations(padded, m)
        ),
        default=0,
    )
    capped = Fraction(2 * most, max(1, n + m))
    return (em, f1_of(precision, recall), precision, recall), capped


def test_evidence_agrees_with_the_naive_scorer_and_its_capped_f1_with_every_assignment() -> None:
    rng, above_one, differ = random.Random(22), 0, 0
    for _ in range(PAIRS // 4):
        gold = [some_gold_triple(rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]
        predicted = [some_triple(rng, gold) for _ in range(rng.randrange(4))]
        expected, capped = naive_evidence_scores(predicted, gold)
        assert agree(answers.wiki2_evidence(predicted, gold), expected), (predicted, gold)
        found = answers.wiki2_evidence_capped(predicted, gold)
        assert found == pytest.approx(float(capped), abs=1e-9), (predicted, gold)
        above_one += expected[1] > 1
        differ += capped != expected[1]
    assert min(above_one, differ) > 50


def test_joint_over_every_part_agrees_with_the_naive_scorer() -> None:
    rng = random.Random(23)
    for prediction, golds in pairs()[:4000]:
        support, facts = some_facts(rng), some_facts(rng)
        triples = [some_gold_triple(rng) for _ in range(rng.randrange(3))]
        predicted = [some_triple(rng, triples) for _ in range(rng.randrange(3))]
        text = naive_best([naive_hotpotqa_answer(prediction, gold) for gold in golds])
        lowered = [[(t.lower(), n) for t, n in distinct(both)] for both in (support, facts)]
        evidence, _ = naive_evidence_scores(predicted, triples)
        expected = naive_joint(text, naive_lists(*lowered), evidence)
        given = Answer(prediction, triples=tuple(predicted))  # type: ignore[arg-type]
        gold = Gold({}, golds, tuple(facts), tuple(triples))
        scores = answers.score_2wikimultihopqa(given, support, gold)
        names = ("Joint-EM", "Joint-F1", "Joint-Precision", "Joint-Recall")
        assert agree(Overlap(*(scores[name] for name in names)), expected)


# --- KILT's retrieval ---------------------------------------------------------------------


def naive_recall(ranked: Sequence[str], provenances: Sequence[Sequence[str]], k: int) -> float:
    """Play the ranking page by page: a provenance's slot moves to its newest page."""
    open_sets: list[list[str]] = []
    for pages in provenances:
        if not any(set(pages) == set(other) for other in open_sets):
            open_sets.append(list(dict.fromkeys(pages)))
    number, slots, seen = len(open_sets), list[object](), list[str]()
    for page in ranked:
        if page in seen:
            continue
        seen.append(page)
        owners = [index for index, pages in enumerate(open_sets) if page in pages]
        for index in owners:
            if ("part", index) in slots:
                slots.remove(("part", index))
            open_sets[index].remove(page)
            slots.append(("part", index) if open_sets[index] else "whole")
        if not owners:
            slots.append("other")
    return slots[:k].count("whole") / number if number else 0.0


def naive_rprec(ranked: Sequence[str], provenances: Sequence[Sequence[str]]) -> float:
    highest = 0.0
    for pages in provenances:
        wanted = list(dict.fromkeys(pages))
        first: list[str] = []
        for page in ranked:
            if page not in first and len(first) < len(wanted):
                first.append(page)
        if wanted:
            highest = max(highest, sum(page in wanted for page in first) / len(wanted))
    return highest


def test_kilt_retrieval_agrees_with_playing_the_ranking() -> None:
    rng = random.Random(24)
    for _ in range(PAIRS):
        ranked = rng.choices("123456789", k=rng.randrange(9))
        provenances = [rng.choices("1234567", k=rng.randrange(4)) for _ in range(rng.randrange(5))]
        case = (ranked, provenances)
        assert kilt.rprec(*case) == pytest.approx(naive_rprec(*case), abs=1e-9), case
        for k in (1, 3, 5):
            found = kilt.recall(ranked, provenances, k)
            assert found == pytest.approx(naive_recall(ranked, provenances, k), abs=1e-9), case


# --- MS MARCO -----------------------------------------------------------------------------


def naive_reciprocal_rank(run: Sequence[tuple[int, int]], relevant: Sequence[int]) -> Fraction:
    for position in range(1, 11):
        standing = 0
        for passage, rank in run:
            if rank == position or rank + 1000 == position:
                standing = passage
        if standing in relevant:
            return Fraction(1, position)
    return Fraction(0)


def test_reciprocal_rank_agrees_with_looking_up_each_position() -> None:
    rng = random.Random(25)
    for _ in range(PAIRS // 4):
        ranks = (*range(1, 13), 0, -990, -998, -999, 1000)
        run = [(rng.randrange(8), rng.choice(ranks)) for _ in range(rng.randrange(8))]
        relevant = rng.choices(range(8), k=rng.choice((1, 1, 2)))
        found = msmarco.reciprocal_rank(msmarco.passage_slots(run), set(relevant))
        assert found == pytest.approx(float(naive_reciprocal_rank(run, relevant)), abs=1e-9), run


def some_sentence(rng: random.Random, least: int = 1) -> str:
    return " ".join(rng.choices(("a", "kiln", "in", "bay", "."), k=rng.randrange(least, 8)))


def naive_rouge_l(candidate: str, references: Sequence[str]) -> float:
    words = candidate.split(" ")

    def common(reference: list[str]) -> int:
        for size in range(len(words), 0, -1):
            for chosen in itertools.combinations(words, size):
                rest = iter(reference)
                if all(word in rest for word in chosen):
                    return size
        return 0

    longest = [(common(r.split(" ")), len(r.split(" "))) for r in references]
    precision = max(Fraction(n, len(words)) for n, _ in longest)
    recall = max(Fraction(n, size) for n, size in longest)
    beta2 = Fraction(144, 100)
    if precision == 0:
        return 0.0
    return float((1 + beta2) / (1 / precision + beta2 / recall))


def naive_bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], n: int) -> float:
    logs = 0.0
    for size in range(1, n + 1):
        total = correct = 0
        for candidate, accepted in zip(candidates, references, strict=True):
            words = candidate.split()
            grams = [words[i : i + size] for i in range(len(words)) if i + size <= len(words)]
            total += len(grams)
            for gram in [g for i, g in enumerate(grams) if g not in grams[:i]]:
                there = [
                    sum(r.split()[i : i + size] == gram for i in range(len(r.split())))
                    for r in accepted
                ]
                correct += min(grams.count(gram), max(there))
        logs += math.log(correct + 1e-15) - math.log(total + 1e-9)
    ours, theirs = 0, 0
    for candidate, accepted in zip(candidates, references, strict=True):
        size = len(candidate.split())
        ours += size
        theirs += sorted((len(r.split()) for r in accepted), key=lambda s: (abs(s - size), s))[0]
    brevity = min(1.0, math.exp(1 - (theirs + 1e-9) / (ours + 1e-15)))
    return math.exp(logs / n) * brevity


def test_rouge_and_bleu_agree_with_the_naive_scorer() -> None:
    rng = random.Random(26)
    for _ in range(600):
        candidates = [some_sentence(rng) for _ in range(rng.choice((1, 2, 5)))]
        references = [[some_sentence(rng) for _ in range(rng.choice((1, 2)))] for _ in candidates]
        for candidate, accepted in zip(candidates, references, strict=True):
            expected = naive_rouge_l(candidate, accepted)
            assert msmarco.rouge_l(candidate, accepted) == pytest.approx(expected, abs=1e-9)
        wanted = [naive_bleu(candidates, references, n) for n in (1, 2, 3, 4)]
        assert msmarco.bleu(candidates, references) == pytest.approx(wanted, rel=1e-6, abs=1e-12)
