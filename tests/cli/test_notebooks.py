"""The notebooks that people start from: their cells are run, small, and hold no stored outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from egm.backends import ScriptedBackend
from egm.datasets import open_dataset
from egm.journal import read_journal
from egm.types import Completion

from ..server.serving import served

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def cells(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((NOTEBOOKS / name).read_text())["cells"]
    return found


def run(name: str, **settings: Any) -> dict[str, Any]:
    """Run the cells of a notebook in order, with other settings behind the one that is tagged parameters."""
    values: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(name):
        if cell["cell_type"] == "code":
            code = "".join(cell["source"])
            exec(compile(code, f"{name} {cell['id']}", "exec"), values)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert settings.keys() <= {*assigned(code)}, "a setting that the notebook does not have"
                values |= settings
    return values


def assigned(code: str) -> list[str]:
    """Names that are assigned to."""
    return [
        node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_they_are_short_and_hold_no_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], len(notebook["cells"]) < 10) == (4, True)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]


def test_all_of_them_are_run_here() -> None:
    ran = {node.args[0].value for node in ast.walk(ast.parse(Path(__file__).read_text())) if is_run(node)}  # type: ignore[attr-defined]
    assert ran == {path.name for path in NOTEBOOKS.glob("*.ipynb")}


def is_run(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run"


def test_ground_your_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    left = run("ground_your_pictures.ipynb")
    assert [tuple(round(edge) for edge in found.box) for found in left["good"]] == [
        (195, 171, 219, 195),
        (289, 83, 312, 106),
    ]
    assert (tmp_path / "egm-out" / "grounded" / "answers.png").stat().st_size > 1000
    tasks = json.loads((tmp_path / "egm-out" / "grounded" / "tasks.json").read_text())
    assert [task["data"]["phrase"] for task in tasks] == left["PHRASES"]


@pytest.mark.usefixtures("small_refcoco")
def test_evaluate_a_hosted_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = {
        f"cup {number}": Completion(f'A cup.</think>[{{"bbox_2d": [0, 0, {corner}, 500]}}]', "stop", 300, 20)
        for number, corner in enumerate((500, 500, 90, 90))
    }
    with served(ScriptedBackend(answers)) as (place, _):
        settings = {
            "SERVER": f"http://{place}/v1",
            "IMAGES": tmp_path / "pictures",
            "PICTURES": 4,
            "WHOLE_SPLITS": False,
        }
        left = run("evaluate_a_hosted_model.ipynb", **settings)
    assert (left["questions"], len(left["result"].records)) == (80, 80)
    said = capsys.readouterr().out
    assert "80 questions in 8 splits" in said
    assert "about 24,000 tokens will be read and 1,600 written" in said
    assert "| EGM-Qwen3-VL-8B" in said  # published, beside ours
    assert "| 70.00 (" in said  # 7 of 10 questions of each split are about the first two cups
    assert "<html" in (tmp_path / "runs" / "eval" / "hosted" / "answers.html").read_text()


def my_rows(folder: Path, count: int) -> None:
    """Rows as a user has them: about one picture a single question, for the model takes its time."""
    (folder / "pictures").mkdir()
    rows = []
    for sample in open_dataset("synthref/test-simple", first=count):
        name = f"pictures/{len(rows) + 3 if rows else 0}.png"
        sample.image.save(folder / name)
        rows.append({"image": name, "sent": sample.phrase, "bbox": list(sample.box)})
    (folder / "my_rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_fine_tune_on_your_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    my_rows(tmp_path, 50)
    left = run("fine_tune_on_your_boxes.ipynb", STEPS=1, BATCH=2, RATE=1e-9, HELD_OUT=0.02)
    held, train = left["parts"]["held_out"], left["parts"]["train"]
    assert (len(held), len(train)) == (1, 49)
    assert not {sample.image for sample in held} & {sample.image for sample in train}
    runs = tmp_path / "runs"
    (before,), (after,) = (read_journal(runs / name)[1] for name in ("before", "after"))
    assert before.id == after.id
    assert before.box == pytest.approx(after.box, abs=2)  # of a step that teaches nothing
    assert (runs / "mine" / "adapter" / "adapter_config.json").exists()
    assert "after minus before" in capsys.readouterr().out
    assert (runs / "before_and_after.html").read_text().count("<article") == 2


def test_without_rows_of_their_own_people_get_drawn_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings, rows = ("".join(cell["source"]) for cell in cells("fine_tune_on_your_boxes.ipynb")[1:3])
    values: dict[str, Any] = {}
    exec(settings + "\n" + rows, values)
    held, train = values["parts"]["held_out"], values["parts"]["train"]
    assert (len(held) + len(train), len(open_dataset(tmp_path / "egm-out" / "drawn_rows.jsonl"))) == (50, 50)
    assert 0.1 < len(held) / 50 < 0.35
