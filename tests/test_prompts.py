"""Prompt sets: clusters and splits on made-up texts, local files, and what is committed under
data/.
"""

import re
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ssah
from ssah.claims import RESULTS
from ssah.errors import SsahError
from ssah.inputs import archives
from ssah.inputs.prompts import (
    SPLITS,
    clusters,
    load_prompts,
    load_questions,
    make_splits,
    text_hash,
)
from ssah.inputs.words import data_file, refusal_keywords
from ssah.lab import Store

# ---- clusters --------------------------------------------------------------------------------


def groups(texts, threshold: float = 0.6) -> set[frozenset[int]]:
    """The clusters as sets of positions."""
    numbers = clusters(texts, threshold)
    return {frozenset(np.flatnonzero(numbers == number).tolist()) for number in numbers}


def test_near_duplicates_share_a_cluster():
    """
    0 and 1: 4 of 5 words in common (0.8). 2 and 3: 3 of 5 (0.6, just enough). 4 and 5: 2 of 4 (0.5,
    too few).
    """
    texts = [
        "bake a red cake",
        "bake a red cake quickly",
        "one two three four",
        "one two three five",
        "build the bridge",
        "build the house",
    ]
    assert groups(texts) == {frozenset({0, 1}), frozenset({2, 3}), frozenset({4}), frozenset({5})}


def test_single_link_is_transitive():
    """0-1 and 1-2 are near, 0-2 (2 of 6 words) is not: one cluster all the same, in whatever order
    they come.
    """
    texts = ["a b c d", "b c d e", "c d e f"]
    assert groups(texts) == {frozenset({0, 1, 2})}
    assert groups([texts[0], texts[2]]) == {frozenset({0}), frozenset({1})}
    assert groups([texts[0], texts[2], texts[1]]) == {frozenset({0, 1, 2})}


def test_the_order_of_the_texts_does_not_matter():
    """Each of the five shares 3 of 5 words with the next one only: one cluster in all 120 orders.
    """
    chain = ["a b c d", "b c d e", "c d e f", "d e f g", "e f g h"]
    split = [order for order in permutations(chain) if len(groups(order)) != 1]
    assert not split, f"{len(split)} of 120 orders are split up, as {split[0]}"


def test_two_clusters_are_merged_by_a_text_between_them():
    texts = ["a b c d", "a b c d", "w x", "c d e f", "c d e f", "b c d e"]
    assert groups(texts) == {frozenset({0, 1, 3, 4, 5}), frozenset({2})}


def test_case_punctuation_order_and_repetition_do_not_count():
    assert groups(["Bake a CAKE!", "cake, a... bake", "bake bake a a cake"]) == {
        frozenset({0, 1, 2})
    }


@pytest.mark.parametrize("threshold, n", [(0.79, 1), (0.8, 1), (0.81, 2)])
def test_the_threshold_is_reached_by_equality(threshold, n):
    assert len(groups(["a b c d", "a b c d e"], threshold)) == n


def test_clusters_equal_brute_force_on_random_texts():
    """Connected components by repeated spreading of the smallest number over the similarity matrix.
    """
    draw = np.random.default_rng(0)
    texts = [
        " ".join(draw.choice(list("abcdefghijkl"), size=draw.integers(2, 6), replace=False))
        for _ in range(60)
    ]
    sets = [set(text.split()) for text in texts]
    near = np.array([[len(a & b) / len(a | b) >= 0.6 for a in sets] for b in sets])
    number = np.arange(60)
    for _ in range(60):
        number = np.array([number[row].min() for row in near])
    expected = {frozenset(np.flatnonzero(number == n).tolist()) for n in number}
    assert 5 < len(expected) < 50
    assert groups(texts) == expected


# ---- splits ----------------------------------------------------------------------------------

SIZES = dict(zip(SPLITS, (20, 10, 5, 12)))


@pytest.fixture
def pool():
    """Sixty prompts of two sources: twenty pairs of near-duplicates and twenty that stand alone.

    Some pairs cross the sources.
    """
    rows = []
    for i in range(20):
        rows += [
            ("x" if i < 15 else "y", f"one{i} two{i} three{i} four{i}"),
            ("x", f"one{i} two{i} three{i} five{i}"),
            ("y", f"alone{i}"),
        ]
    return pd.DataFrame(rows, columns=["source", "text"]).assign(id=[f"p{i}" for i in range(60)])


def test_a_cluster_never_crosses_splits(pool):
    splits = make_splits(pool, SIZES)
    assert splits["cluster"].nunique() == 40
    assert (splits.groupby("cluster")["split"].nunique() == 1).all()
    assert list(splits.columns) == ["id", "source", "hash", "cluster", "split"]
    assert splits["id"].tolist() == pool["id"].tolist()
    assert splits["hash"].tolist() == [text_hash(text) for text in pool["text"]]


def test_splits_have_their_sizes_and_the_rest_is_spare(pool):
    counts = make_splits(pool, SIZES)["split"].value_counts()
    assert counts.to_dict() == SIZES | {"spare": 60 - sum(SIZES.values())}


@pytest.mark.parametrize("seed", range(5))
def test_sizes_are_never_exceeded(pool, seed):
    """Also where whole clusters do not add up to a size (three pairs do not make five)."""
    paired = pool[pool["text"].str.startswith("one")]
    counts = make_splits(paired, SIZES, seed=seed)["split"].value_counts()
    assert all(counts[name] <= SIZES[name] for name in SPLITS)
    assert counts["select"] == 4


def test_clusters_of_an_evaluation_source_go_to_evaluate_whole(pool):
    """Also the members from other sources: a near-duplicate of an evaluation prompt must not be
    trained on.
    """
    splits = make_splits(pool, SIZES, evaluate_only=("y",))
    touched = splits[splits["cluster"].isin(splits.loc[splits["source"] == "y", "cluster"])]
    assert set(touched["source"]) == {"x", "y"}
    assert set(touched["split"]) == {"evaluate"}
    assert set(splits.loc[splits["split"].isin(["align", "identify", "select"]), "source"]) == {"x"}


def test_the_size_of_evaluate_counts_the_other_sources(pool):
    """5 prompts of x come along with y.

    12 of x are wanted, so 7 more, of which only pairs are left: 6.
    """
    splits = make_splits(pool, dict(zip(SPLITS, (8, 6, 4, 12))), evaluate_only=("y",))
    assert ((splits["split"] == "evaluate") & (splits["source"] == "x")).sum() == 11
    assert ((splits["split"] == "evaluate") & (splits["source"] == "y")).sum() == 25


def test_splits_are_fixed_by_their_seed(pool):
    first = make_splits(pool, SIZES, seed=1)
    pd.testing.assert_frame_equal(first, make_splits(pool, SIZES, seed=1))
    assert not first.equals(make_splits(pool, SIZES, seed=2))


def test_a_split_that_stays_empty_is_refused(pool):
    with pytest.raises(
        SsahError,
        match="no prompts are left for the split align, identify, select; lower the sizes",
    ):
        make_splits(pool, SIZES, evaluate_only=("x", "y"))


# ---- local files -----------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {"prompt": ["bake a cake", "sing, please"], "response": ["sure", "no"], "other": [1, 2]}
)


def write(path, table: pd.DataFrame) -> str:
    """`table` in the format that the file name says."""
    if path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".json":
        table.to_json(path, orient="records")
    elif path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        path.write_text("".join(f"{text}\n" for text in table["prompt"]))
    return str(path)


@pytest.mark.parametrize("suffix", ("jsonl", "json", "csv", "parquet", "txt"))
def test_a_local_file_is_a_prompt_set(tmp_path, suffix):
    table = load_prompts(write(tmp_path / f"mine.{suffix}", TABLE))
    assert table["text"].tolist() == TABLE["prompt"].tolist()
    assert table["id"].tolist() == [f"mine.{suffix}-0000", f"mine.{suffix}-0001"]
    assert ("response" in table) == (suffix != "txt")
    if suffix != "txt":
        assert table["response"].tolist() == ["sure", "no"]


@pytest.mark.parametrize("name", ("Behavior", "goal", "instruction", "question", "text"))
def test_the_published_names_of_prompt_columns_are_known(tmp_path, name):
    path = write(tmp_path / "mine.csv", TABLE.rename(columns={"prompt": name}))
    assert load_prompts(path)["text"].tolist() == TABLE["prompt"].tolist()


def test_an_edited_file_is_read_afresh(tmp_path):
    path = tmp_path / "mine.csv"
    load_prompts(write(path, TABLE))
    assert load_prompts(write(path, TABLE.assign(prompt=["write a poem", "draw"])))[
        "text"
    ].tolist() == ["write a poem", "draw"]


def test_rows_without_a_prompt_are_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "write a poem"}\n{"prompt": null}\n')
    with pytest.raises(SsahError, match="has 1 rows without prompt; remove them"):
        load_prompts(str(path))


def test_a_file_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / "mine.csv", TABLE)
    assert load_prompts("~/mine.csv")["text"].tolist() == TABLE["prompt"].tolist()


def test_comments_end_where_the_table_begins(monkeypatch):
    """An answer may have lines that begin with ``#``: they are no comments."""
    text = '# origin\nobjective,assistant_response,human_score\nask,"one\n# two\nthree",1\n'
    monkeypatch.setattr(archives, "read_member", lambda name: text.encode())
    assert load_prompts("refusal-labels")["response"].tolist() == ["one\n# two\nthree"] * 2


def test_a_file_without_a_prompt_column_is_refused_naming_its_columns(tmp_path):
    with pytest.raises(
        SsahError, match="none of the prompt columns prompt, Behavior, .*it has .*'words'"
    ):
        load_prompts(write(tmp_path / "mine.csv", TABLE.rename(columns={"prompt": "words"})))


@pytest.mark.parametrize("suffix", ("jsonl", "csv", "parquet", "txt"))
def test_an_empty_prompt_set_is_refused(tmp_path, suffix):
    with pytest.raises(SsahError, match="mine"):
        load_prompts(write(tmp_path / f"mine.{suffix}", TABLE[:0]))


@pytest.mark.parametrize("suffix", ("jsonl", "parquet"))
def test_a_damaged_file_is_refused_by_its_name(tmp_path, suffix):
    (tmp_path / f"mine.{suffix}").write_text("{no such format")
    with pytest.raises(SsahError, match="mine"):
        load_prompts(str(tmp_path / f"mine.{suffix}"))


@pytest.mark.parametrize(
    "source, message",
    [
        ("nonsense", "unknown source 'nonsense'"),
        ("boolq", "'boolq' is not a prompt set; known: advbench"),
        ("mine.pdf", "known formats: .json"),
    ],
)
def test_an_unknown_source_is_refused_with_the_known_ones(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pdf").touch()
    with pytest.raises(SsahError, match=message):
        load_prompts(source)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(SsahError, match="missing.csv"):
        load_prompts(str(tmp_path / "missing.csv"))


def test_a_hub_set_that_cannot_be_reached_is_refused_by_its_name(monkeypatch):
    import datasets

    def unreachable(*args, **options):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(SsahError, match="hub:owner/name"):
        load_prompts("hub:owner/name")


# ---- the sets of the package -----------------------------------------------------------------


def test_the_synthetic_prompts_are_in_words_of_the_tiny_tokenizer(chat):
    assert load_prompts("pip:tiny-harmful").equals(load_prompts("tiny-harmful"))
    for name in ("tiny-harmful", "tiny-benign"):
        table = load_prompts(name)
        assert table["id"].is_unique and table["text"].is_unique
        for text in [*table["text"], *table["response"]]:
            assert chat.tokenizer.unk_token_id not in chat.tokenizer(text)["input_ids"], text


def test_questions_are_drawn_by_seed_and_keep_their_ids():
    everything, some = load_questions("tiny-choice", 100), load_questions("tiny-choice", 4, seed=1)
    assert len(some) == 4 and some["id"].is_unique
    assert some.merge(everything, on=["id", "question", "answer"]).shape[0] == 4
    assert some["id"].tolist() == load_questions("tiny-choice", 4, seed=1)["id"].tolist()
    assert all(0 <= row.answer < len(row.options) for row in everything.itertuples())


# ---- what is committed -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    """The splits that all results stand on."""
    result = Store(RESULTS / "default").load("splits", "result")
    assert result is not None, "data/results/default/splits is missing; run `ssah recompute splits`"
    return result.tables["splits"]


def test_no_committed_cluster_is_in_two_splits(committed):
    assert (committed.groupby(["kind", "cluster"])["split"].nunique() == 1).all()


def test_no_committed_prompt_is_in_two_splits(committed):
    assert not committed["hash"].duplicated().any()
    assert not committed["id"].duplicated().any()
    assert set(committed["split"]) <= {*SPLITS, "spare"}


def test_evaluation_has_enough_prompts_of_both_harmful_sets(committed):
    excluded = set(data_file("excluded")["hash"])
    harmful = committed[committed["kind"] == "harmful"]
    counts = harmful[harmful["split"] == "evaluate"]["source"].value_counts()
    assert counts["advbench"] >= 100
    assert set(harmful.loc[harmful["source"] == "harmbench", "split"]) == {"evaluate"}
    assert 200 - len(excluded) <= counts["harmbench"] <= 200
    assert not set(committed["hash"]) & excluded


def test_all_committed_splits_hold_prompts_of_both_kinds(committed):
    counts = committed.groupby(["kind", "split"]).size()
    assert (counts.loc["harmful"][list(SPLITS)] >= [150, 100, 50, 100]).all()
    assert (counts.loc["benign"][list(SPLITS)] >= [150, 100, 50, 100]).all()


def test_committed_splits_hold_no_text(committed):
    assert set(committed.columns) == {"id", "source", "hash", "cluster", "split", "kind"}
    assert committed["hash"].str.fullmatch("[0-9a-f]{16}").all()
    assert committed["id"].str.fullmatch(r"[a-z-]+-\d{4}").all()


def test_excluded_prompts_are_hashes_only():
    table = data_file("excluded")
    assert table["hash"].str.fullmatch("[0-9a-f]{16}").all() and table["hash"].is_unique
    assert (table["reason"] != "").all()


# ---- files made by hand ----------------------------------------------------------------------


def first_word(text: str) -> str:
    """In lower case and without punctuation, unless it is nothing else."""
    word = text.split()[0].lower()
    return re.sub(r"[^a-z0-9']", "", word) or word


@pytest.mark.parametrize(
    "name", ("refusals", "openings", "borderline", "safe_requests", "taught_refusals")
)
def test_hand_made_rows_are_complete_and_unique(name):
    table = data_file(name)
    assert table["id"].is_unique
    assert table["text"].str.lower().is_unique
    assert (table != "").all(axis=None)
    assert (table["text"] == table["text"].str.strip()).all()


def test_refusal_wordings_are_many_and_some_are_held_out():
    table = data_file("refusals")
    assert set(table["split"]) == {"train", "held_out"}
    assert (table["split"] == "train").sum() >= 30
    assert (table["split"] == "held_out").sum() >= 10


def test_held_out_wordings_are_no_near_copies_of_trained_ones():
    table = data_file("refusals")
    assert (table.groupby(clusters(table["text"].tolist()))["split"].nunique() == 1).all()


def test_borderline_requests_are_many_in_every_category():
    table = data_file("borderline")
    assert len(table) >= 100
    assert (table["category"].value_counts() >= 5).all() and table["category"].nunique() >= 5
    assert len(groups(table["text"].tolist())) == len(table)  # no near-duplicates


def test_no_first_word_opens_both_a_refusal_and_a_fulfilment():
    words = {
        kind: {first_word(text) for text in table["text"]}
        for kind, table in data_file("openings").groupby("kind")
    }
    assert set(words) == {"refusal", "fulfilment"}
    assert not words["refusal"] & words["fulfilment"]
    assert min(map(len, words.values())) >= 10


def test_probes_are_equally_many_of_both_kinds():
    counts = data_file("openings").query("probe == '1'")["kind"].value_counts()
    assert counts["refusal"] == counts["fulfilment"] > 0


def test_keywords_are_the_published_ones():
    """31 entries with their capitals.

    Comments are not among them, and every hand-made table is where it should be.
    """
    keywords = refusal_keywords()
    assert len(keywords) == len(set(keywords)) == 31
    assert keywords[:2] == ("I'm sorry", "Sorry") and keywords[-1] == "However"
    assert not any(keyword.startswith("#") for keyword in keywords)
    assert {path.name for path in archives.PACKAGED.glob("*.csv")} >= {
        "refusals.csv",
        "openings.csv",
        "borderline.csv",
        "excluded.csv",
    }


# ---- companion columns -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ("json", "jsonl", "csv", "parquet"))
@pytest.mark.parametrize("prompt, companion", [
    ("instruction", "input"), ("instruction", "context"), ("Behavior", "ContextString"),
    ("question", "context"),
])  # fmt: skip
def test_what_a_prompt_is_about_follows_it(tmp_path, suffix, prompt, companion):
    """As in the built-in alpaca; nothing follows where there is nothing."""
    rows = pd.DataFrame({
        prompt: ["Summarize", "Sing", "Draw"],
        companion: ["A long text.", "", None],
        "output": ["Short.", "La", "A line"],
    })  # fmt: skip
    table = load_prompts(write_rows(tmp_path / f"mine.{suffix}", rows))
    assert table["text"].tolist() == ["Summarize\n\nA long text.", "Sing", "Draw"]
    assert table["response"].tolist() == ["Short.", "La", "A line"]


def write_rows(path, table: pd.DataFrame) -> str:
    """As `write`, for tables without a column prompt."""
    assert path.suffix != ".txt"
    return write(path, table)


def test_dolly_as_json_has_its_contexts(tmp_path):
    """Columns of databricks-dolly-15k: instruction, context, response, category."""
    path = tmp_path / "dolly.jsonl"
    path.write_text(
        '{"instruction": "When?", "context": "It began.", "response": "2001", "category": "qa"}\n'
        '{"instruction": "Sing.", "context": "", "response": "La", "category": "creative"}\n'
    )
    table = load_prompts(str(path))
    assert table["text"].tolist() == ["When?\n\nIt began.", "Sing."]


def test_numbers_are_texts_too(tmp_path):
    """A column of numbers in a csv file is read as numbers; an answer may be one."""
    table = load_prompts(write(tmp_path / "mine.csv", TABLE.assign(response=[4, 5])))
    assert table["response"].tolist() == ["4", "5"]


def test_a_companion_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "When?", "context": ["a", "b"]}\n')
    with pytest.raises(SsahError, match="the column context holds list, which is no text"):
        load_prompts(str(path))


def test_the_package_reads_its_word_lists_without_a_repository(monkeypatch, tmp_path):
    """As where it was installed from a wheel."""
    monkeypatch.setattr(archives, "DATA", tmp_path / "no such folder")
    for name in ("refusals", "openings", "prefills", "borderline", "excluded"):
        assert len(data_file(name)) > 0
    refusal_keywords.cache_clear()
    assert len(refusal_keywords()) == 31
    assert load_prompts("borderline")["text"].notna().all()
    assert archives.PACKAGED.is_relative_to(Path(ssah.__file__).parent)
