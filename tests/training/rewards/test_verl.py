"""The reward under verl: what `egm data convert` writes is asked as `egm grpo` asks, and pays what evaluation pays."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from egm.boxes import Box, iou
from egm.cli import app
from egm.codecs import DEFAULT_CODEC, Codec, codec_names, get_codec
from egm.datasets import Dataset, open_dataset, write_dataset
from egm.errors import DataError, EgmError, RecipeError
from egm.images import load_image
from egm.models import build_processor
from egm.training.grpo.prompts import PromptCollator
from egm.training.rewards.reward import Reward, RewardSection
from egm.training.rewards.verl import compute_score
from egm.types import Sample

from .test_reward import HIT, NEAR, SIZE, TRUTH, answers, reward, text

PROCESSOR = build_processor()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset from the command line's drawing to its rows for verl, one of them about a whole object."""
    folder = tmp_path_factory.mktemp("verl")
    made = CliRunner().invoke(app, ["data", "synthetic", "--scenes", "3", "--out", str(folder)])
    assert made.exit_code == 0, made.output
    rows = [json.loads(line) for line in (folder / "val.jsonl").read_text().splitlines()]
    rows.append(rows[0] | {"id": "whole", "amodal": True, "bbox": [-20, 10, 200, 210]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["data", "convert", str(folder / "rows.jsonl"), str(folder / "rows.parquet")])
    assert done.exit_code == 0, done.output
    return folder / "rows.parquet"


def as_verl_asks(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Put pictures in the place of `<image>`, as `RLHFDataset._build_messages` of verl 0.9.1 does."""
    pictures = iter(row["images"])
    messages = []
    for turn in row["prompt"]:
        parts = [part for part in re.split("(<image>|<video>|<audio>)", turn["content"]) if part]
        content = [
            {"type": "image", **next(pictures)} if part == "<image>" else {"type": "text", "text": part}
            for part in parts
        ]
        messages.append({"role": turn["role"], "content": content})
    assert next(pictures, None) is None
    return messages


def test_verl_asks_token_for_token_what_grpo_asks(parquet: Path) -> None:
    samples = list(open_dataset(parquet, images=parquet.parent))
    rows = pq.read_table(parquet).to_pylist()
    assert len(rows) == len(samples) > 4
    ours = PromptCollator(PROCESSOR, get_codec(DEFAULT_CODEC), None)(samples)
    for row, ids in zip(rows, ours.ids, strict=True):
        messages = as_verl_asks(row)
        text = PROCESSOR.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        [picture] = [load_image(part["image"]) for part in messages[0]["content"] if part["type"] == "image"]
        assert PROCESSOR(text=[text], images=[picture])["input_ids"][0] == ids


def test_a_perfect_answer_earns_almost_all_and_the_wrong_scale_nothing(parquet: Path) -> None:
    codec = get_codec(DEFAULT_CODEC)
    disjoint = 0
    for sample, row in zip(
        open_dataset(parquet, images=parquet.parent), pq.read_table(parquet).to_pylist(), strict=True
    ):
        assert sample.box is not None
        assert sample.size is not None
        given = row["data_source"], row["reward_model"]["ground_truth"], row["extra_info"]

        def earned(text: str, given: tuple[Any, ...] = given) -> float:
            return compute_score(given[0], text, *given[1:])["score"]

        answer = codec.target(sample.phrase, sample.box, size=sample.size, rationale="It is there.")
        assert earned(answer) >= 0.95
        assert earned(answer.rpartition("</think>")[2].strip()) == earned(answer)  # an Instruct model's
        pixels = codec.answer(sample.phrase, tuple(round(value) for value in sample.box))  # type: ignore[arg-type]
        misread = Box.from_1000(map(round, sample.box), sample.size)
        assert earned(f"It is there.\n</think>\n\n{pixels}") < 0.5 * iou(misread, sample.box) + 1e-9 < 0.25
        disjoint += earned(pixels) == 0
    assert disjoint >= 4


CODECS = [*map(get_codec, codec_names()), get_codec("qwen2_5_vl", max_pixels=60 * 28 * 28)]


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_rows_say_how_their_answers_are_read(tmp_path: Path, codec: Codec) -> None:
    sizes, boxes = [(60, 50), (650, 433), (20, 2000)], [Box(5, 2, 40, 40), Box(300, 100, 650, 400), Box(1, 9, 19, 900)]
    samples = []
    for number, (size, box) in enumerate(zip(sizes, boxes, strict=True)):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
        samples.append(Sample(f"{number}", tmp_path / f"{number}.png", "the cup", box, size))
    write_dataset(Dataset("set", samples, root=tmp_path), tmp_path / "set.parquet", "parquet", codec=codec)
    for sample, row in zip(samples, pq.read_table(tmp_path / "set.parquet").to_pylist(), strict=True):
        assert sample.box is not None and sample.size is not None  # noqa: PT018
        answer = codec.target(sample.phrase, sample.box, size=sample.size)
        given = row["reward_model"]["ground_truth"], row["extra_info"]
        least = 0.9 if codec.name == "kosmos2" else 0.95  # its numbers are patches of a grid of 32
        assert compute_score(row["data_source"], answer, *given)["score"] >= least
    assert [sample.box for sample in open_dataset(tmp_path / "set.parquet", images=tmp_path)] == boxes


@pytest.mark.parametrize(
    ("phrase", "words"),
    [
        ("sign [100,100,550,600]", "It is the sign [100,100,550,600]"),
        (" sign (100, 100, 550, 600) ", "sign (100, 100, 550, 600)"),
        ("none of the dogs", "none of the dogs: [100, 100, 550, 600]"),
        ("no one here", "no one here [100, 100, 550, 600]"),
        ("the cup", "the cup [100, 100, 550, 600]"),
    ],
)
@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_instruct", "internvl"])
def test_rewards_know_the_phrase_as_evaluation_does(phrase: str, words: str, name: str) -> None:
    codec, answer = get_codec(name), f"So.\n</think>\n\n{words}"
    read = codec.parse(answer, size=SIZE, phrase=phrase.strip()).box
    expected = 0.0 if read is None else iou(read, TRUTH)
    extra = {"width": SIZE[0], "height": SIZE[1], "codec": name, "sent": phrase}
    assert compute_score("egm", answer, tuple(TRUTH), extra)["iou"] == pytest.approx(expected)
    function = Reward(RewardSection.model_validate({"terms": [{"kind": "iou"}]}), codec)
    theirs = function([None], [answer], None, truth=[tuple(TRUTH)], size=[SIZE], phrase=[phrase])
    assert theirs == [pytest.approx(expected)]
    assert bool(expected) is ("[" not in phrase and "(" not in phrase)


@pytest.mark.parametrize(
    "extra",
    [
        {"width": 200.0, "height": 100, "amodal": None},
        {"width": np.int64(200), "height": np.float64(100), "amodal": np.bool_(False)},
        {"width": 200, "height": 100, "codec": "qwen3_vl_instruct"},
    ],
)
@pytest.mark.parametrize("truth", [tuple(TRUTH), np.array(tuple(TRUTH)), "[20, 10, 120.0, 60]"])
def test_verl_may_pass_numbers_of_any_sort(extra: dict[str, Any], truth: Any) -> None:
    answer = '[{"bbox_2d": [100, 100, 550, 600], "label": "it"}]'
    assert compute_score("egm/rows", answer, truth, extra)["iou"] == pytest.approx(HIT)


def test_the_codec_comes_with_the_row_or_the_configuration() -> None:
    extra, words = {"width": 200, "height": 100}, 'Here it is: [{"bbox_2d": [100, 100, 550, 600], "label": "it"}]'
    instruct = "qwen3_vl_instruct"
    assert compute_score("egm", words, tuple(TRUTH), extra)["iou"] == 0
    assert compute_score("egm", words, tuple(TRUTH), extra, codec=instruct)["iou"] == pytest.approx(HIT)
    assert compute_score("egm", words, tuple(TRUTH), extra | {"codec": instruct})["iou"] == pytest.approx(HIT)
    assert compute_score("egm", words, tuple(TRUTH), extra | {"codec": instruct}, codec="qwen3_vl")["iou"] == 0


def test_rows_of_the_official_files_are_on_the_0_1000_scale() -> None:
    extra, answer = {"width": 200, "height": 100}, text(NEAR)
    official = list(TRUTH.to_1000(SIZE))
    assert compute_score("grounding", answer, official, extra)["iou"] == pytest.approx(HIT)
    written = extra | {"bbox": list(TRUTH)}  # as egm data convert wrote them before
    assert compute_score("grounding", answer, official, written)["iou"] == pytest.approx(HIT)
    for source, truth in (("grounding", [1, 2, 3, 4]), ("egm", official), ("egm", str(official))):
        with pytest.raises(DataError, match=r"ground_truth .* and extra_info.bbox .* are two boxes"):
            compute_score(source, answer, truth, written)
    assert compute_score("egm", answer, tuple(TRUTH), written)["iou"] == pytest.approx(HIT)
    with pytest.raises(
        DataError, match="the true box 100, 100, 600, 600 lies outside an image of 200 x 100: is it in p"
    ):
        compute_score("other", answer, official, extra)


def test_verl_gets_the_same_reward() -> None:
    section = {
        "terms": [{"kind": "mix"}, {"kind": "giou_below", "weight": 0.5}],
        "format_gate": {"factor": 0.5},
        "repetition": {},
    }
    function = reward(**section)
    for sample, reply in answers(60, seed=1):
        assert sample.box is not None and sample.size is not None  # noqa: PT018
        truth, size = tuple(sample.box), sample.size
        extra = {"width": size[0], "height": size[1], "amodal": sample.amodal, "split": "train", "index": 3}
        ours = function([None], [reply.text], None, truth=[truth], size=[size], amodal=[sample.amodal])[0]
        for ground_truth in (list(truth), json.dumps(truth)):
            theirs = compute_score("egm", reply.text, ground_truth, extra, reward=section, more="of verl's")
            assert theirs["score"] == ours
        assert theirs["acc"] == float(theirs["iou"] >= 0.5)


def test_verl_finds_the_reward_under_the_path_that_clusters_name() -> None:
    import egm.training.verl

    # verl runs the file that its configuration names, as a module of another name.
    spec = importlib.util.spec_from_file_location("custom_module", egm.training.verl.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.compute_score is compute_score


def test_verl_counts_tokens_as_the_trainer_does(tmp_path: Path) -> None:
    tokenizer = build_processor().tokenizer
    tokenizer.save_pretrained(tmp_path)
    section = {"terms": [{"kind": "iou"}], "overlong": {"limit": 60, "buffer": 40}}
    completion = text(NEAR)
    ids = [*tokenizer(completion)["input_ids"], tokenizer.eos_token_id]
    ours = reward(**section)([None], [completion], [ids], truth=[tuple(TRUTH)], size=[SIZE])[0]
    extra = {"width": SIZE[0], "height": SIZE[1]}
    given = {"reward": section, "tokenizer": str(tmp_path)}
    assert ours < HIT
    assert compute_score("egm", completion, tuple(TRUTH), extra, **given)["score"] == ours


@pytest.mark.parametrize(
    ("extra", "options", "error", "says"),
    [
        ({}, {}, DataError, "lacks width and height"),
        (None, {}, DataError, "extra_info lacks width and height"),
        ({"width": None, "height": None}, {}, DataError, "lacks width and height"),
        ({"width": "9", "height": 9}, {}, DataError, "are not whole numbers of pixels"),
        ({"width": 9, "height": 9, "amodal": "no"}, {}, DataError, "amodal 'no' is neither true nor false"),
        ({"width": 9, "height": 9, "sent": 7}, {}, DataError, "sent 7 is not the words"),
        ({"width": 9, "height": 9, "seen_size": [0, 28]}, {}, DataError, "not whole numbers of pixels"),
        ({"width": 9, "height": 9, "seen_size": "28"}, {}, DataError, "seen_size '28' is not a width and a height"),
        ('{"width": 9, "height": 9}', {}, DataError, "extra_info must be an object, not '"),
        ([9, 9], {}, DataError, r"extra_info must be an object, not \[9, 9\]"),
        ({"width": 9, "height": 9, "codec": ["internvl"]}, {}, DataError, r"codec \['internvl'\] is not the name"),
        ({"width": 9, "height": 9}, {"codec": "qwen9"}, EgmError, "qwen9"),
        ({"width": 9, "height": 9}, {"reward": {"overlong": {"limit": 9}}}, DataError, "name a tokenizer"),
        (
            {"width": 9, "height": 9},
            {"reward": {"terms": [{"kind": "x"}]}},
            RecipeError,
            "reward: terms.0: unknown kind",
        ),
    ],
)
def test_verl_is_told_what_is_wrong(extra: Any, options: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        compute_score("egm", text(NEAR), (1, 1, 8, 8), extra, **options)


@pytest.mark.parametrize("completion", [None, b"[1, 2, 3, 4]", 7, ["x"]])
def test_a_completion_that_is_no_text_is_named(completion: Any) -> None:
    with pytest.raises(DataError, match=r"^solution_str .* is not the text of a completion"):
        compute_score("egm", completion, tuple(TRUTH), {"width": 200, "height": 100})


@pytest.mark.parametrize("truth", [None, "", "[1, 2", [1, 2, 3], [1, 2, 3, "4"], [5, 5, 5, 5], "[" * 100_000])
def test_a_truth_that_is_no_box_is_named(truth: Any) -> None:
    with pytest.raises(DataError, match=r"^ground_truth .* is not x1, y1, x2, y2 in pixels"):
        compute_score("egm", text(NEAR), truth, {"width": 9, "height": 9})


@pytest.mark.parametrize("rationale", [None, "It stands at the left, by the [1] sign."])
@pytest.mark.parametrize("phrase", ["the cup", "a cup, left", ""])
def test_tags_that_verls_decoding_strips_are_form(phrase: str, rationale: str | None) -> None:
    codec, section = get_codec("internvl"), {"terms": [{"kind": "iou"}], "format_gate": {"factor": 0.5}}
    whole = codec.target(phrase, NEAR, size=SIZE, rationale=rationale)
    stripped = re.sub("</?(ref|box)>", "", whole)
    extra = {"width": SIZE[0], "height": SIZE[1], "codec": "internvl", "sent": phrase}

    def earned(words: str) -> dict[str, float]:
        return compute_score("egm", words, tuple(TRUTH), extra, reward=section)

    assert "<box>" not in stripped
    assert earned(stripped) == earned(whole)
    assert earned(whole)["score"] == pytest.approx(HIT)


@pytest.mark.parametrize(
    "answer",
    [
        "[100, 100, 550, 600]",  # one list is not what tags leave
        "the cup [[100, 100, 550, 600], [1, 2, 3, 4]]",
        "the cup[[100, 100, 550, 600]] and the plate",
        '[{"bbox_2d": [100, 100, 550, 600]}]',
        "<ref>the cup</ref>[[100, 100, 550, 600]]",
    ],
)
def test_what_stripping_cannot_have_left_is_out_of_form(answer: str) -> None:
    section = {"terms": [{"kind": "iou"}], "format_gate": {"factor": 0.5}}
    extra = {"width": SIZE[0], "height": SIZE[1], "codec": "internvl"}
    earned = compute_score("egm", answer, tuple(TRUTH), extra, reward=section)
    assert earned["score"] == pytest.approx(0.5 * earned["iou"])
    assert get_codec("internvl").restore_tags(answer) == answer


def test_stripped_tags_count_as_the_tokens_that_they_were(tmp_path: Path) -> None:
    tokenizer = build_processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<ref>", "</ref>", "<box>", "</box>"]})
    tokenizer.save_pretrained(tmp_path)
    whole = get_codec("internvl").target("the cup", NEAR, size=SIZE, rationale="There.")
    ids = tokenizer(whole)["input_ids"]
    stripped = tokenizer.decode(ids, skip_special_tokens=True)
    given = {"reward": {"terms": [{"kind": "iou"}], "overlong": {"limit": len(ids) + 11, "buffer": 20}}}
    extra = {"width": SIZE[0], "height": SIZE[1], "codec": "internvl"}
    score = compute_score("egm", stripped, tuple(TRUTH), extra, tokenizer=str(tmp_path), **given)["score"]
    assert score == pytest.approx(HIT - 0.5)
