"""A model card: what it says, and that its lines run as they are printed."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from egm.backends.checkpoint import tensors_digest
from egm.codecs import get_codec
from egm.datasets.synthetic import SynthRef
from egm.datasets.synthetic.example import EXAMPLE_SCENE, example_picture
from egm.errors import ModelError
from egm.journal import Header, Journal, Record
from egm.models import embedded_path
from egm.publish.export import export_model
from egm.publish.model_card import model_card
from egm.publish.model_folder import new_folder
from egm.publish.push import plan_push
from egm.publish.scores import latency_table, read_scores, score_table
from egm.publish.usage import EXAMPLE, PHRASE, PORT

RIGHT = next(sample for sample in SynthRef("val").samples(EXAMPLE_SCENE) if sample.phrase == PHRASE).box


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(Path("egm-tiny"), tmp_path_factory.mktemp("models") / "out", dtype="float32")


def blocks(folder: Path, language: str) -> list[str]:
    """The lines of the card's use, in one language; a shell's without their prompt."""
    use = (folder / "README.md").read_text().partition("## Use")[2].partition("## Scores")[0]
    return [re.sub(r"^\$ ", "", block) for block in re.findall(rf"```{language}\n(.*?)```", use, flags=re.DOTALL)]


def said(code: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    return out.getvalue()


def is_right(text: str) -> bool:
    assert RIGHT is not None
    return get_codec("qwen3_vl").parse(text, size=(320, 256)).box is not None


def test_egms_lines_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    (code,) = (block for block in blocks(exported, "python") if "import egm" in block)
    assert RIGHT is not None
    numbers = [float(number) for number in re.findall(r"[\d.]+(?=[,)])", said(code))]
    assert numbers == pytest.approx(list(RIGHT), abs=2)


def test_transformers_lines_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    (code,) = (block for block in blocks(exported, "python") if "pipeline" in block)
    shorter = code.replace("max_new_tokens=640", "max_new_tokens=8")
    assert shorter != code  # a whole answer takes long here; what is begun is the list of what it sees
    assert re.match(r"1 \(\d+,\d+", said(shorter))


def test_servers_and_their_clients_are_told_the_same_port(exported: Path) -> None:
    commands = [shlex.split(command) for command in blocks(exported, "console")]
    assert [words[0] for words in commands] == ["vllm", "python", "transformers", "egm", "egm"]
    for words in commands[:4]:
        assert "." in words  # which is what a client calls the model too
        assert words[words.index("--port") + 1] == str(PORT)
    (code,) = (block for block in blocks(exported, "python") if "openai" in block)
    assert f'"http://127.0.0.1:{PORT}/v1"' in code
    assert 'model="."' in code
    assert f"http://127.0.0.1:{PORT}" in commands[4]
    assert commands[4][commands[4].index("--model") + 1] == "."


def test_the_card_of_egm_tiny_says_what_it_knows_and_whose_it_is(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert (exported / EXAMPLE).read_bytes() == example_picture().read_bytes()
    assert EXAMPLE in {path.name for path, _ in plan_push(exported, "me/it").files}
    for words in (
        "license: apache-2.0",
        "| model | apache-2.0 |",
        "| data, synthref/train | drawn by EGM, apache-2.0 |",
        "drawn shapes alone: on photographs its boxes mean nothing",
        "It was not scored",
        "None was measured",
        "numbers: 0-1000, x first",
    ):
        assert words in card


def scored(folder: Path, name: str, *, hits: int, n: int, **engine: object) -> Path:
    versions = {"egm": "0.1.0", "numpy": "2.4", "openai": "3", "hardware": "CPU (A | B,\n2 cores)"}
    header = Header(
        name, {"name": "qwen3_vl"}, {}, {}, {"mine": {"n": n}}, concurrency=4, started="2026-11-30T10:00:00+00:00",
        engine={"backend": "NumpyBackend", "dtype": "auto", **engine}, versions=versions,
    )  # fmt: skip
    with Journal(folder, header) as journal:
        for number in range(n):
            right = number < hits
            box = (0.0, 0.0, 10.0, 10.0) if right else (20.0, 20.0, 30.0, 30.0)
            journal.append(
                Record(
                    str(number),
                    f"{number}.png",
                    "it",
                    (0.0, 0.0, 10.0, 10.0),
                    split="mine",
                    box=box,
                    iou=float(right),
                    seconds=0.1 * (number + 1),
                )
            )
    return folder


def test_scores_have_intervals_and_latencies_their_hardware(tmp_path: Path) -> None:
    run = read_scores([scored(tmp_path / "run", "egm-tiny", hits=15, n=20, tensors="x")])
    row = score_table(run)[1]
    accuracy, low, high = map(float, re.findall(r"\| ([\d.]+) \(([\d.]+)-([\d.]+)\) \| 0\.750", row)[0])
    assert accuracy == 75.0
    assert 45 < low < 60  # Wilson's of 15 of 20, by Student's t, is 52 to 89
    assert 85 < high < 92
    time = latency_table(run)[1]
    assert "| 20 | 4 | 1.05 | 1.05 |" in time
    assert "| CPU (A B, 2 cores); NumpyBackend, dtype auto; numpy 2.4 | 2026-11-30 |" in time
    served_run = read_scores([scored(tmp_path / "served", "it", hits=1, n=2, serve="vllm", backend="OpenAIBackend")])
    assert "; vllm |" in latency_table(served_run)[1]


def test_a_card_is_no_place_for_other_lines_or_escapes(tmp_path: Path) -> None:
    card = model_card("mine\n---\nlicense: mit\x1b[2J", None, license_id="x\ny: z").render({"weights": "a\n|\x9b"})
    assert "\n# mine --- license: mit\N{REPLACEMENT CHARACTER}[2J\n" in card
    assert card.startswith("---\nlicense: 'x y: z'\n")
    assert "| weights | a \\|\N{REPLACEMENT CHARACTER} |" in card
    assert "\x1b" not in card


def test_a_card_tells_no_password_of_a_run(tmp_path: Path) -> None:
    url = "http://me:Xk9Qz@host:8000"
    (tmp_path / "recipe.yaml").write_text(f"rollout: {{url: '{url}'}}")
    (tmp_path / "run.json").write_text(json.dumps({"command": ["egm", "grpo", f"--set=rollout.url={url}"]}))
    card = model_card("it", tmp_path).render({})
    assert card.count("http://host:8000") == 2
    assert "Xk9Qz" not in card


@pytest.mark.parametrize(
    ("recipe", "facts"),
    [
        ("data: {train: [a.jsonl]}", "{}"),
        ("model: [1]", "{}"),
        ("data: {train: [{path: a, weight: much}, {path: b}]}", "{}"),
        ("{}", '{"command": 5}'),
        ("{}", '{"loss": "low"}'),
        ("{}", '{"versions": [1]}'),
    ],
)
def test_a_run_folder_that_was_edited_is_named(tmp_path: Path, recipe: str, facts: str) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "run.json").write_text(facts)
    with pytest.raises(ModelError, match=r"is not what egm sft wrote there: restore it"):
        model_card("it", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(ModelError, match=r"the weights cannot be written to .*: make room on its disk"):
            export_model(Path("egm-tiny"), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_two_exports_do_not_write_into_one_folder(tmp_path: Path) -> None:
    (tmp_path / ".out.part" / "left").mkdir(parents=True)  # by one that was killed
    with new_folder(tmp_path / "out") as folder:
        assert not list(folder.iterdir())
        (folder / "config.json").write_text("{}")
        with pytest.raises(ModelError, match="is being written by another process"), new_folder(tmp_path / "out"):
            pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "config.json"]


def test_a_journal_of_the_model_fills_its_card(tmp_path: Path) -> None:
    run = scored(tmp_path / "run", "egm-tiny", hits=1, n=2, tensors=tensors_digest(embedded_path()))
    card = (export_model(Path("egm-tiny"), tmp_path / "out", scores=[run], dtype="float32") / "README.md").read_text()
    assert "| egm-tiny | mine | 2 of 2 | 50.0 (" in card
    assert "2026-11-30 |" in card.partition("## Latency")[2]
    assert "Scores are of the splits above alone" in card


def test_licences_of_base_and_data_are_said_by_files_or_by_users(tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    base.mkdir()
    run.mkdir()
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: my-own\n---\n# Base\n")
    train = [{"name": "synthref/train", "weight": 1.0}, {"path": str(tmp_path / "a.jsonl"), "weight": 2.0}]
    recipe = {"model": {"name": str(base)}, "data": {"train": train}}
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    card = model_card("it", run, license_id="mit", data_license=["a.jsonl=cc-by-4.0"]).render({})
    for row in (
        "| model | mit |",
        "| base, base | my-own, by its card |",
        "| data, synthref/train | drawn by EGM, apache-2.0 |",
        "| data, a.jsonl | cc-by-4.0 |",
    ):
        assert row in card
    assert str(tmp_path) not in card
    (base / "README.md").write_text("# No metadata\n")
    card = model_card("it", run).render({})
    assert card.count("| not stated to the export |") == 3
    for wrong, says in (
        ("b.jsonl=mit", "was not trained on: its sources are synthref/train, a.jsonl"),
        ("x", "is not SOURCE=L"),
    ):
        with pytest.raises(ModelError, match=says):
            model_card("it", run, data_license=[wrong])
