"""The sample data set: valid, without overlap, learnable."""

import itertools
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.generate import SHARES, Grammar, queries, raw_queries
from distilled_router.data.conversation import Example, examples, normalised
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.task.task import Task
from local.bedrock.student import Row, train

TASK = Task.load()
DATA = Path(__file__).parents[2] / "data"
PUBLIC_SETS = DATA.parents[1] / "shared" / "data"
GRAMMARS = {split: Grammar.load(split) for split in ("training", "holdout")}
LABELS, CUES = GRAMMARS["training"].labels, GRAMMARS["training"].cues

# Words that indicate no channel, allowed in both vocabularies.
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        a an the of in on at to and or for from by with over under up down into through off out about near
        is was be will not no never again my your his her their this that it you we they he she him me i
        another one two three some how don t s
        """,
    )
)


def read(split: str) -> list[Example]:
    with (DATA / f"{split}.jsonl").open(encoding="utf-8") as file:
        return list(examples(file, TASK))


TRAINING, HOLDOUT = read("training"), read("holdout")


def phrases(grammar: Grammar) -> Iterator[str]:
    for entry in itertools.chain.from_iterable(grammar.vocabulary.values()):
        if phrase := normalised(re.sub(r"\{\w+\}", " ", entry)):
            yield phrase


def words(text: str) -> set[str]:
    return set(normalised(text).split())


def test_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, DATA / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_files_are_valid() -> None:
    with (DATA / "training.jsonl").open("rb") as training, (DATA / "holdout.jsonl").open("rb") as holdout:
        report = check_dataset(training, holdout, TASK, "distillation")
    assert report.findings == []


def test_there_are_enough_rows_of_every_kind() -> None:
    assert len(TRAINING) >= 1_200
    assert len(HOLDOUT) >= 150
    for rows in (TRAINING, HOLDOUT):
        dominant = Counter(TASK.dominant(example.weights) for example in rows)
        assert min(dominant[name] for name in LABELS) >= 0.15 * len(rows)


def test_readme_states_the_row_counts() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    assert f"| `training.jsonl` | {len(TRAINING):,} |" in text
    assert f"| `holdout.jsonl` | {len(HOLDOUT):,} |" in text


def test_readme_states_the_cues() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    for cue, parts in CUES.items():
        numbers = " | ".join(f"{part * 100:.0f}" for part in parts)
        assert re.search(rf"^\| {cue} \| [^|]+ \| {re.escape(numbers)} \|$", text, re.M), cue


def test_labels_are_steps_of_five_percent_with_a_clear_maximum() -> None:
    for grammar in GRAMMARS.values():
        for group in grammar.groups:
            weights = sorted(grammar.label(group.cues).values(), reverse=True)
            assert sum(weights) == pytest.approx(1)
            assert all(round(value * 20, 9).is_integer() for value in weights)
            assert weights[0] - weights[1] >= 0.10 - 1e-9, group.cues


def test_shares_and_cues_sum_to_one() -> None:
    assert all(sum(parts) == pytest.approx(1) for parts in [*CUES.values(), *SHARES.values()])


def test_no_query_occurs_twice() -> None:
    counts = Counter(normalised(example.query) for example in TRAINING + HOLDOUT)
    assert counts.most_common(1)[0][1] == 1


def test_no_template_is_shared() -> None:
    templates = {
        split: {
            normalised(re.sub(r"\{\w+\}", "_", each)) for group in grammar.groups for each in group.templates
        }
        for split, grammar in GRAMMARS.items()
    }
    assert templates["training"] & templates["holdout"] == set()
    assert set(GRAMMARS["training"].requests) & set(GRAMMARS["holdout"].requests) == set()


def test_no_phrase_and_no_content_word_is_shared() -> None:
    training, holdout = (set(phrases(grammar)) for grammar in GRAMMARS.values())
    assert training & holdout == set()
    shared = set().union(*map(words, training)) & set().union(*map(words, holdout))
    assert shared - FUNCTION_WORDS == set()


def test_no_phrase_of_the_holdout_occurs_in_a_training_query() -> None:
    # Bounded by spaces, so that "1" is not found in "1984".
    training = "\n".join(f" {normalised(example.query)} " for example in TRAINING)
    found = [each for each in phrases(GRAMMARS["holdout"]) if f" {each} " in training]
    assert [each for each in found if words(each) - FUNCTION_WORDS] == []


def test_no_near_duplicates_across_the_files() -> None:
    by_word = defaultdict(list)
    trained = [words(example.query) for example in TRAINING]
    for index, each in enumerate(trained):
        for word in each:
            by_word[word].append(index)
    for example in HOLDOUT:
        asked = words(example.query)
        common = Counter(index for word in asked for index in by_word[word])
        nearest = max(
            (count / (len(asked) + len(trained[index]) - count), index) for index, count in common.items()
        )
        assert nearest[0] < 0.75, (example.query, TRAINING[nearest[1]].query)


def test_generation_is_deterministic() -> None:
    assert queries("holdout") == queries("holdout") == HOLDOUT


def test_queries_are_plain_text() -> None:
    for example in TRAINING + HOLDOUT:
        assert re.fullmatch(r"[A-Za-z0-9 ,.'\"()-]+", example.query), example.query
        assert "  " not in example.query
        assert len(example.query) <= TASK.max_query_characters


def test_raw_queries_are_current() -> None:
    assert (DATA / "queries.txt").read_text(encoding="utf-8") == raw_queries()
    assert len(raw_queries().splitlines()) == 440


def test_sample_queries_are_new_and_routable() -> None:
    lines = (DATA / "sample_queries.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12
    known = {normalised(example.query) for example in TRAINING + HOLDOUT}
    for line in lines:
        assert 0 < len(line.strip()) == len(line) <= TASK.max_query_characters
        assert normalised(line) not in known


def test_simple_student_learns_the_task_for_unseen_words() -> None:
    student = train([Row(TASK.student_prompt, each.query, TASK.render(each.weights)) for each in TRAINING])
    right, error = 0, 0.0
    for example in HOLDOUT:
        weights = TASK.parse(student.answer(TASK.student_prompt, example.query))
        right += TASK.dominant(weights) in TASK.dominants(example.weights)
        error += sum(abs(weights[name] - example.weights[name]) for name in LABELS) / len(LABELS)
    assert right / len(HOLDOUT) > 0.85
    assert error / len(HOLDOUT) < 0.12


def test_no_query_comes_from_a_public_set() -> None:
    files = sorted(PUBLIC_SETS.glob("*.jsonl"))
    if not files:
        pytest.skip(f"the public sets are not at {PUBLIC_SETS}")
    public = {
        normalised(json.loads(line)["query"])
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    own = {normalised(example.query) for example in TRAINING + HOLDOUT}
    assert own & public == set()
