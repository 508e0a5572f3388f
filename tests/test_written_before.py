"""What commit 955c9f8 wrote still opens, and gives the figures that 955c9f8 gave.

`fixtures/written_by_955c9f8/README.md` says how each piece was made. All is opened through the command line or through
names of `egm` itself, so that these tests outlive the modules behind them.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import egm
from egm.backends.checkpoint import weights_digest
from egm.cli import main
from egm.models import embedded_path

FORMER_WEIGHTS = "ae0451751e948f30"
"""Digest of the weights that egm-tiny had then."""

WRITTEN = Path(__file__).parent / "fixtures" / "written_by_955c9f8"
EVAL = ("eval", "synthref/val", "--json")
ON_CPU = (*EVAL, "--scenes", 2, "--device", "cpu")
VOTING = ("--sample", "--votes", 4, "--thinking-budget", 3)
Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command in this process, inside a copy of what was written; it has to end well. Its standard output."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["egm", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert not end.value.code, err
        return out

    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # so that what a command sets ends with the test
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on the CPU, as was done then."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def as_of_this_version(run: str) -> Path:
    """Put this version of EGM, and egm-tiny's weights of now, into a journal's header.

    A journal of another version or of other weights is refused, which is meant.
    """
    file = Path(run) / "journal.jsonl"
    header, rest = file.read_text().split("\n", 1)
    assert header.count('"egm": "0.1.0"') == 1
    header = header.replace('"egm": "0.1.0"', f'"egm": "{egm.__version__}"')
    header = header.replace(f'"weights": "{FORMER_WEIGHTS}"', f'"weights": "{weights_digest(embedded_path())}"')
    file.write_text(f"{header}\n{rest}")
    return file


def test_a_journal_of_the_former_weights_is_refused(command: Command) -> None:
    file = Path("eval/interrupted/journal.jsonl")
    file.write_text(file.read_text().replace('"egm": "0.1.0"', f'"egm": "{egm.__version__}"', 1))
    answered = file.read_bytes().rpartition(b"\n")[0]
    with pytest.raises(AssertionError, match=f'engine.weights is "[0-9a-f]+", was "{FORMER_WEIGHTS}"'):
        command(*ON_CPU, "--concurrency", 1, "--max-tokens", 4096, "--out", "eval/interrupted")
    assert file.read_bytes().startswith(answered + b"\n")


def counted(out: str) -> dict[str, Any]:
    """What `egm eval --json` counts, without times."""
    whole = json.loads(out)["all"]
    return {name: whole[name] for name in ("n", "accuracy", "mean_iou", "failures", "errors", "tokens")}


def figures(
    n: int, accuracy: float, mean_iou: float, tokens: tuple[float, float, float, float], **failures: int
) -> dict[str, Any]:
    kinds = ("prompt", "reasoning", "answer", "completion")
    return {
        "n": n,
        "accuracy": pytest.approx(accuracy),
        "mean_iou": pytest.approx(mean_iou),
        "failures": failures,
        "errors": {},
        "tokens": dict(zip(kinds, tokens, strict=True)),
    }


TINY = figures(8, 1.0, 0.9522016151734215, (112.75, 145.375, 49.875, 195.25))
VOTES = figures(8, 0.0, 0.002261731340387038, (574.125, 0.0, 208.625, 208.625))
SCRIPTED = figures(12, 0.5, 0.5016114075893098, (0.0, 3.0, 7.25, 10.25), refused=3)
SCRIPTED_VOTES = figures(8, 0.25, 0.2644639360311207, (0.0, 9.0, 34.0, 43.0))


@pytest.mark.parametrize(
    ("run", "arguments", "expected"),
    [
        ("eval/interrupted", (*ON_CPU, "--concurrency", 1, "--max-tokens", 4096), TINY),  # the limit of then
        (
            "eval/votes",
            (
                *ON_CPU,
                "--concurrency",
                2,
                "--model",
                "start",
                "--sample",
                "--votes",
                3,
                "--seed",
                5,
                "--max-tokens",
                100,
            ),
            VOTES,
        ),
    ],
)
def test_an_interrupted_evaluation_goes_on(
    command: Command, run: str, arguments: tuple[object, ...], expected: dict[str, Any]
) -> None:
    journal = as_of_this_version(run)
    answered, _, torn = journal.read_bytes().rpartition(b"\n")
    assert torn
    assert counted(command(*arguments, "--out", run)) == expected
    assert journal.read_bytes().startswith(answered + b"\n")
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 1 + expected["n"]


@pytest.mark.parametrize(
    ("run", "arguments", "expected"),
    [
        ("eval/scripted", ("--scenes", 3), SCRIPTED),
        ("eval/scripted-votes", ("--scenes", 2, *VOTING), SCRIPTED_VOTES),
    ],
)
def test_of_a_complete_evaluation_nothing_is_asked_again(
    command: Command, run: str, arguments: tuple[object, ...], expected: dict[str, Any]
) -> None:
    journal = as_of_this_version(run)
    before = journal.read_bytes()
    scripted = (*EVAL, *arguments, "--script", "script.txt", "--concurrency", 8)
    assert counted(command(*scripted, "--out", run)) == expected
    assert journal.read_bytes() == before
    # A script counts no prompt's tokens, which was 0 once and is unknown now.
    anew = {**expected, "tokens": {**expected["tokens"], "prompt": None}}
    assert counted(command(*scripted, "--out", "anew")) == anew


def test_a_journal_is_replayed(command: Command) -> None:
    assert counted(command(*EVAL, "--scenes", 2, "--script", "eval/tiny", "--out", "again")) == TINY


def test_journals_are_reported(command: Command) -> None:
    runs = ("eval/tiny", "eval/scripted-votes")
    shown = command("report", *runs, "--format", "csv")
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(shown))}
    assert {name: row["synthref/val"] for name, row in rows.items()} == {"egm-tiny": "100.00", "scripted": "25.00"}
    command("report", *runs, "--paired", "--out", "report", "--gallery", "gallery.html")
    costs = list(csv.DictReader(io.StringIO(Path("report/latency.csv").read_text())))
    assert [(row["mean"], row["p99"], row["tokens"]) for row in costs] == [("2625", "3891", "195"), ("0", "0", "43")]
    paired = json.loads(Path("report/paired.json").read_text())
    assert paired["mcnemar"] == {"only_a": 6, "only_b": 0, "both": 2, "neither": 0, "p_value": 0.03125}
    assert paired["missed_by_b"] == {"whole": 2, "other": 4}
    assert paired["mean_iou"]["analytic"]["value"] == pytest.approx(-0.6877376791423008)
    assert Path("gallery.html").read_text().count("<article") == 16


def test_journals_are_scored(command: Command) -> None:
    tiny, voted = json.loads(command("score", "eval/tiny", "eval/scripted-votes", "--json"))["scores"]
    names = ("acc@0.5", "acc@0.9", "mean_iou", "centre")
    assert [tiny["pooled"][name]["value"] for name in names] == pytest.approx([1.0, 0.875, 0.9522016151734215, 1.0])
    assert [voted["pooled"][name]["value"] for name in names] == pytest.approx([0.25, 0.25, 0.2644639360311207, 0.375])
    interval = tiny["pooled"]["mean_iou"]
    assert (interval["low"], interval["high"]) == pytest.approx((0.7692219287144986, 1.0))
    assert (tiny["misses"], sum(voted["misses"].values())) == ({}, 6)


def steps(run: str, *names: str) -> list[list[float]]:
    """Figures of each step in a run's log."""
    entries = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    return [[entry[name] for name in names] for entry in entries if "learning_rate" in entry]


def assert_near(found: list[list[float]], expected: list[list[float]]) -> None:
    """Other threads move them by a tenth of this; a lost optimiser or generator moves them by more."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def assert_same_weights(found: str, expected: str) -> None:
    from safetensors.torch import load_file

    ours, theirs = load_file(found), load_file(expected)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert weight.float().numpy() == pytest.approx(theirs[name].float().numpy(), rel=0.01, abs=1e-3), name


@pytest.mark.usefixtures("on_cpu")
def test_a_fine_tuning_goes_on(command: Command) -> None:
    """From the third step on, as the run that nothing interrupted."""
    names = ("loss", "grad_norm", "mean_token_accuracy")
    assert_near(
        steps("sft-ended", *names),
        [
            [0.7466025352478027, 1.519696593284607, 0.7272727489471436],
            [0.7273403406143188, 1.3314677476882935, 0.7441176176071167],
            [0.7422560453414917, 1.2743865251541138, 0.7318840622901917],
            [0.76657634973526, 1.7807550430297852, 0.7292418479919434],
        ],
    )
    assert command("sft", "sft.yaml", "--resume", "--out", "sft") == "sft/model\n"
    assert_near(steps("sft", *names), steps("sft-ended", *names))
    assert_same_weights("sft/model/model.safetensors", "sft-ended/model/model.safetensors")


@pytest.mark.usefixtures("on_cpu")
def test_a_fine_tuning_of_an_adapter_goes_on(command: Command) -> None:
    names = ("loss", "grad_norm", "mean_token_accuracy")
    assert_near(
        steps("lora-ended", *names),
        [
            [0.7466025352478027, 0.40918445587158203, 0.7272727489471436],
            [0.7273403406143188, 0.3734009861946106, 0.7441176176071167],
            [0.7349411249160767, 0.2806505560874939, 0.72826087474823],
            [0.739258885383606, 0.35770875215530396, 0.7400721907615662],
        ],
    )
    assert command("sft", "lora.yaml", "--resume", "--out", "lora") == "lora/adapter\n"
    assert_near(steps("lora", *names), steps("lora-ended", *names))
    weights = "adapter/adapter_model.safetensors"
    assert_same_weights(f"lora/{weights}", f"lora-ended/{weights}")


@pytest.mark.usefixtures("on_cpu")
def test_a_reinforcement_goes_on(command: Command) -> None:
    assert command("grpo", "grpo.yaml", "--resume", "--out", "grpo") == "grpo/model\n"
    assert_near(
        steps("grpo", "loss", "grad_norm", "reward", "kl", "completions/mean_length"),
        [
            [0.030191047117114067, 1.1330759525299072, -1.2665797472000122, 0.0, 68.875],
            [0.03150898963212967, 0.851311981678009, -1.2918965816497803, 0.02229657769203186, 80.0],
            [0.03158324211835861, 1.3791223764419556, -1.4092332124710083, 0.04603338614106178, 76.875],
            [0.0506972037255764, 0.9079659581184387, -1.2087962627410889, 0.03040093183517456, 72.125],
        ],
    )
    assert "<p>4 of 4 groups." in Path("grpo/rollouts.html").read_text()  # two of them from before
    assert len(list(Path("grpo/rollouts").glob("step-*.jsonl"))) == 4


@pytest.mark.parametrize(
    ("run", "box", "logprob"),
    [
        ("sft-ended", (6.72, 47.04, 85.12, 59.136), -0.5547944941419236),
        ("lora-ended", (8.0, 47.04, 80.0, 56.0), -0.5803153667044132),  # the adapter is folded into its model
    ],
)
def test_a_run_is_exported_and_its_model_answers(
    command: Command, run: str, box: tuple[float, ...], logprob: float
) -> None:
    journal = Path("eval/scripted/journal.jsonl")
    served = journal.read_text().replace('"ReplayBackend"', '"OpenAIBackend"').replace('"scripted"', f'"{run}"', 1)
    journal.write_text(served)  # as if a server had answered
    assert command("models", "export", run, "--out", "exported", "--scores", "eval/scripted") == "exported\n"
    card = Path("exported/README.md").read_text()
    row = rf"\| {run} \(served\) \| synthref/val \| 12 of 1,983 \| 50\.0 \(.+\) \| 0\.502 \(.+\) \| 25\.0 \| 10 \|"
    assert re.search(row, card)
    assert f"| command | `egm sft {run.removesuffix('-ended')}.yaml --out {run}` |" in card
    settings, picture = egm.GenerationSettings(max_new_tokens=100), Image.new("RGB", (320, 224), "orange")
    for model in ("exported", *(["sft-ended/model"] if run == "sft-ended" else [])):
        found = egm.Grounder.load(model, device="cpu", settings=settings).ground(picture, "the circle")
        assert found.box is not None
        assert tuple(found.box) == pytest.approx(box)
        assert found.logprob == pytest.approx(logprob, abs=1e-4)


def test_a_reproduction_is_reported_again(command: Command) -> None:
    """From journals and latencies, without the models: nothing is trained, asked or timed."""
    assert command("reproduce", "reproduce.yaml", "--out", "reproduce").endswith("reproduce/report/report.md\n")
    assert Path("reproduce/latency.json").read_bytes() == (WRITTEN / "reproduce" / "latency.json").read_bytes()
    claims = json.loads(Path("reproduce/report/claims.json").read_text())
    assert {claim["key"]: claim["verdict"] for claim in claims} == {
        "beats_large": "not decided",  # of four pictures, as all accuracies here
        "faster": "held",
        "faster_under_load": "not decided",
        **{f"fewer_{currency}": "held" for currency in ("tokens", "operations", "bytes")},
        "complex_errors": "not decided",
        "closes_gap": "not decided",
        "sft_adds": "not decided",
        "rl_adds": "not decided",
        "thinking_beats_large": "not decided",
        "amodal": "not decided",
    }
    expected = [1.0, 16.62203689066655, 61.54184381074991, -0.25, -0.25, 2 / 3, 0.0, 1.0]
    later = ("fewer_", "thinking_beats_")
    values = [claim["difference"]["value"] for claim in claims if not claim["key"].startswith(later)]
    assert values == pytest.approx(expected)
    rows = csv.DictReader(io.StringIO(Path("reproduce/report/models.csv").read_text()))
    names = ("model", "parameters", "training samples", "synthref/val", "average", "tokens", "mean ms")
    assert [[row[name] for name in names] for row in rows] == [
        ["direct", "11.5M", "24", "50.00", "25.00", "214", "4207.8"],
        ["large", "40.4M", "24", "0.00", "0.00", "256", "27047.0"],
        ["thinking", "11.5M", "24", "100.00", "100.00", "200", "19214.7"],
        ["reinforced", "11.5M", "24 + 2", "100.00", "100.00", "200", "10425.0"],
    ]
