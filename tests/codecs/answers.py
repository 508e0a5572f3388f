"""Answers that models did write, from public sources: what each says, and what must be read from it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from egm.types import Failure


class Answer(NamedTuple):
    """An answer of a family.

    Attributes:
        text: What the model wrote; shortened only where an ellipsis in the source does, or whole boxes were left out.
        boxes: Every box as the picture's thousandths `x1, y1, x2, y2`, rounded; pixels for families that speak them; or
            the failure.
        label: Of the first box.
        source: Where it stands.
        seen: The picture as the model saw it, for families that speak pixels.
    """

    text: str
    boxes: list[tuple[float, ...]] | Failure
    label: str | None
    source: str
    seen: tuple[int, int] | None = None


_QWEN_VL = "github.com/QwenLM/Qwen-VL at aa00ed0, "
_KOSMOS = "github.com/huggingface/transformers, tests/models/kosmos2/test_modeling_kosmos2.py"
_FLORENCE = "github.com/huggingface/transformers, tests/models/florence2/test_modeling_florence2.py"
_REX = "github.com/IDEA-Research/Rex-Omni at 478e44f, tutorials/detection_example/_full_notebook.ipynb"
_LOCATE = "github.com/huggingface/transformers, pull request 46991 (nvidia/LocateAnything-3B)"
_GEMINI = "github.com/google-gemini/cookbook at f1e7e3d, quickstarts/Spatial_understanding.ipynb"
_GLM = 'blog "Run GLM-4.6V on AMD MI300X GPU with vLLM", 2025-12-09'
_GIRAFFE = "<|ref|>The giraffe at the back.<|/ref|><|det|>[[580, 270, 999, 900]]<|/det|><｜end▁of▁sentence｜>"
_CATS = [("American Shorthair-1", [109, 152, 193, 822]), ("American Shorthair-2", [191, 331, 311, 852])]
_POODLES = [[222, 253, 348, 535], [390, 103, 440, 167], [289, 102, 345, 164]]


def _listed(key: str, boxes: list[tuple[str, list[int]]]) -> str:
    return json.dumps([{"label": label, key: box} for label, box in boxes])


def _object(label: str, *boxes: str) -> str:
    return f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>{','.join(boxes)}<|box_end|>"


ANSWERS: dict[str, list[Answer]] = {
    "qwen_vl": [
        Answer("<ref>击掌</ref><box>(536,509),(588,602)</box>", [(536, 509, 588, 602)], "击掌", _QWEN_VL + "README.md"),
        Answer(
            "<ref>上海环球金融中心</ref><box>(667,437),(760,874)</box>和<ref>东方明珠</ref><box>(506,75),(582,946)</box>",
            [(667, 437, 760, 874), (506, 75, 582, 946)],
            "上海环球金融中心",
            _QWEN_VL + "TUTORIAL.md",
        ),
        Answer(
            "<ref> Two apples</ref><box>(302,257),(582,671)</box><box>(603,252),(878,642)</box> and"
            "<ref> a bowl</ref><box>(2,269),(304,674)</box>",
            [(302, 257, 582, 671), (603, 252, 878, 642), (2, 269, 304, 674)],
            "Two apples",
            _QWEN_VL + "TUTORIAL.md",
        ),
        Answer(
            "<ref> Woman</ref><box>(451,379),(731,806)</box> and<ref> her dog</ref><box>(219,424),(576,896)</box>"
            " playing on the beach<|endoftext|>",
            [(451, 379, 731, 806), (219, 424, 576, 896)],
            "Woman",
            _QWEN_VL + "README.md",
        ),
    ],
    "qwen2_vl": [
        Answer(
            "<|object_ref_start|>击掌<|object_ref_end|><|box_start|>(531,516),(581,596)<|box_end|><|im_end|>",
            [(531, 516, 581, 596)],
            "击掌",
            "github.com/QwenLM/Qwen3-VL/issues/9",
        ),
        Answer("[[61, 320, 938, 373]]", [(61, 320, 938, 373)], None, "github.com/QwenLM/Qwen3-VL/issues/601"),
    ],
    "qwen3_vl_instruct": [
        Answer(
            '```json\n[\n\t{"bbox_2d": [0, 614, 224, 825], "name_zh": "米饭", "name_en": "Rice"},\n'
            '\t{"bbox_2d": [0, 207, 227, 333], "name_zh": "米饭", "name_en": "Rice"}\n]\n```',
            [(0, 614, 224, 825), (0, 207, 227, 333)],
            None,
            "github.com/QwenLM/Qwen3-VL, cookbooks/omni_recognition.ipynb",
        ),
        Answer(
            'json\n[\n    {"bbox_2d": [323, 118, 444, 825], "label": "watch"},\n'
            '    {"bbox_2d": [444, 118, 565, 825], "label": "watch"}\n]',
            [(323, 118, 444, 825), (444, 118, 565, 825)],
            "watch",
            "github.com/QwenLM/Qwen3-VL/issues/2020",
        ),
        Answer(
            '{\n  "object_name": "monitor",\n  "bbox": [195, 138, 617, 480],\n  "object_name": "laptop",\n'
            '  "bbox": [663, 399, 917, 657]\n}',
            [(195, 138, 617, 480), (663, 399, 917, 657)],
            None,
            "github.com/QwenLM/Qwen3-VL/issues/1720",
        ),
    ],
    "qwen2_5_vl": [
        Answer(
            '```json\n[\n\t{"bbox_2d": [14, 135, 136, 470], "label": "man standing far left in orange"}\n]\n```',
            [(14, 135, 136, 470)],
            "man standing far left in orange",
            "github.com/yzF5x/VLM-R1 at 6fd7e5e, src/eval/logs",
            (640, 480),
        ),
        Answer(
            '<think> The relevant part of the image is the oven. </think>\n<answer> {"bbox_2d": [207, 231, 334, 315], '
            '"label": "bottom stove."} </answer>',
            [(207, 231, 334, 315)],
            "bottom stove.",
            "github.com/yzF5x/VLM-R1 at 6fd7e5e, src/eval/logs (thought shortened)",
            (640, 480),
        ),
        Answer(
            "<think>\n</think>\n\n```json\n[\n"
            + ",\n".join(f'\t{{"bbox_2d": {box}, "label": "Poodle"}}' for box in _POODLES)
            + "\n]\n```",
            [tuple(box) for box in _POODLES],
            "Poodle",
            "github.com/XiaomiMiMo/MiMo-VL at ca17cb3, examples/grounding.ipynb (3 of 13 boxes)",
            (532, 588),
        ),
    ],
    "internvl": [
        Answer(
            "<ref>XXX</ref><box>[[253, 231, 733, 787]]</box>",
            [(253, 231, 733, 787)],
            "XXX",
            "github.com/OpenGVLab/InternVL/issues/227",
        ),
        Answer(
            "The bounding box coordinates of the region this sentence describes are [x1, y1, x2, y2].",
            Failure.MALFORMED,
            None,
            "github.com/OpenGVLab/InternVL/issues/625",
        ),
    ],
    "glm_v": [
        Answer(
            "\nThe coordinates of the second bottle of beer from the right on the table are "
            "<|begin_of_box|>[[94,598,177,991]]<|end_of_box|>.",
            [(94, 598, 177, 991)],
            None,
            _GLM,
        ),
        Answer(
            "\nThe list of cat breeds and their bounding box coordinates in the required JSON format is "
            f"<|begin_of_box|>{_listed('bbox_2d', _CATS)}<|end_of_box|>.",
            [(109, 152, 193, 822), (191, 331, 311, 852)],
            "American Shorthair-1",
            f"{_GLM} (2 of 8 boxes)",
        ),
        Answer(
            "\nThe coordinates of the second bottle of beer from the right on the table are [[97,595,179,988]].",
            [(97, 595, 179, 988)],
            None,
            "toiotech.apifox.cn, glm-4.5v, example of a response: tags stripped by the service",
        ),
    ],
    "deepseek_vl2": [
        Answer(
            _GIRAFFE,
            [(581, 270, 1000, 901)],
            "The giraffe at the back.",
            "github.com/deepseek-ai/DeepSeek-VL2 at ef9f91e, README.md",
        ),
        Answer(
            "<|ref|>mazdaughters<|/ref|><|det|>[[220, <|ref|>compact car<|/ref|><|det|>[[220, 416, 417, 720]]<|/det|>"
            "<｜end▁of▁sentence｜>",
            [(220, 416, 417, 721)],
            "mazdaughters",
            "github.com/deepseek-ai/DeepSeek-VL2/issues/100",
        ),
        Answer(
            "<|ref|>head without helmet<|/ref|><|det|>[[0, 50, 55, 9999], [0, 5, 533, 17, 9999999999999999",
            Failure.OUT_OF_RANGE,
            None,
            "github.com/deepseek-ai/DeepSeek-VL2/issues/96 (nines shortened)",
        ),
    ],
    "seed_vl": [
        Answer(
            "<bbox>175 98 791 476</bbox>",
            [(175, 98, 791, 476)],
            None,
            "volcengine.com/docs/82379, visual grounding: the answer of its first example",
        ),
    ],
    "rex_omni": [
        Answer(_object("sofa", "<643><453><999><977>"), [(644, 453, 1000, 978)], "sofa", _REX),
        Answer(
            _object("robot-shape light", "<128><95><218><259>", "<771><96><876><254>"),
            [(128, 95, 218, 259), (772, 96, 877, 254)],
            "robot-shape light",
            _REX,
        ),
        Answer(
            _object("yellow flower", "<441><439><594><588>") + ", " + _object("blanket", "<828><560><962><947>"),
            [(441, 439, 595, 589), (829, 561, 963, 948)],
            "yellow flower",
            f"{_REX} (2 of its objects)",
        ),
    ],
    "locate_anything": [
        Answer("<ref>stop sign</ref><box><165><132><361><422></box>", [(165, 132, 361, 422)], "stop sign", _LOCATE),
        Answer("<ref>car</ref><box><528><546><917><761></box>", [(528, 546, 917, 761)], "car", _LOCATE),
        Answer(
            "<ref>person</ref><box><365><526><380><590></box><box><381><526><396><570></box>"
            "<box><473><531><488><599></box>",
            [(365, 526, 380, 590), (381, 526, 396, 570), (473, 531, 488, 599)],
            "person",
            f"{_LOCATE} (3 of 5 boxes)",
        ),
    ],
    "kosmos2": [
        Answer(
            "An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming"
            " himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>.",
            [(390.625, 46.875, 984.375, 828.125), (171.875, 15.625, 484.375, 890.625)],
            "a snowman",
            _KOSMOS,
        ),
        Answer(
            "He is wearing<phrase> a hat</phrase><object><patch_index_0048><patch_index_0250></object>,<phrase> scarf"
            "</phrase><object><patch_index_0240><patch_index_0604></object>",
            [(515.625, 46.875, 828.125, 234.375), (515.625, 234.375, 890.625, 578.125)],
            "a hat",
            _KOSMOS,
        ),
        Answer(
            "with<phrase> a pot</phrase><object><patch_index_0610><patch_index_0872></object> nearby",
            [(78.125, 609.375, 265.625, 859.375)],
            "a pot",
            _KOSMOS,
        ),
    ],
    "florence2": [
        Answer(
            "</s><s>wheels<loc_144><loc_570><loc_870><loc_778>wheels<loc_711><loc_573><loc_866><loc_774>"
            "wheels<loc_148><loc_579><loc_304><loc_774></s><pad><pad>",
            [(144.5, 570.5, 870.5, 778.5), (711.5, 573.5, 866.5, 774.5), (148.5, 579.5, 304.5, 774.5)],
            "wheels",
            _FLORENCE,
        ),
        Answer(
            "</s><s>car<loc_53><loc_333><loc_933><loc_774>door handle<loc_425><loc_503><loc_474><loc_515>"
            "wheel<loc_709><loc_576><loc_865><loc_772><loc_150><loc_584><loc_309><loc_773></s>",
            [
                (53.5, 333.5, 933.5, 774.5),
                (425.5, 503.5, 474.5, 515.5),
                (709.5, 576.5, 865.5, 772.5),
                (150.5, 584.5, 309.5, 773.5),
            ],
            "car",
            _FLORENCE,
        ),
        Answer(
            "</s><s>car<loc_52><loc_334><loc_932><loc_774></s><pad>", [(52.5, 334.5, 932.5, 774.5)], "car", _FLORENCE
        ),
    ],
    "paligemma": [
        Answer(
            "<loc0000><loc0000><loc1022><loc1022> cat",
            [(0, 0, 998, 998)],
            "cat",
            "github.com/modelscope/ms-swift, a test of paligemma-3b-mix-224",
        ),
        Answer(
            "<loc0051><loc0309><loc0708><loc0646> shoe",
            [(302, 50, 631, 691)],
            "shoe",
            "github.com/huggingface/transformers, tests/models/paligemma/test_modeling_paligemma.py",
        ),
        Answer(
            "<loc0504><loc0430><loc0882><loc0815> 6 of clubs ; <loc0102><loc0482><loc0416><loc0840> 7 of clubs ; ",
            [(420, 492, 796, 861), (471, 100, 820, 406)],
            "6 of clubs",
            "github.com/roboflow/notebooks at 01b2246, how-to-finetune-paligemma2 (2 of 4 boxes)",
        ),
    ],
    "gemini": [
        Answer(
            '```json\n[\n  {"box_2d": [599, 339, 725, 395], "label": "dogs tail"}\n]\n```',
            [(339, 599, 395, 725)],
            "dogs tail",
            "github.com/roboflow/notebooks at 01b2246, zero-shot-...-with-google-gamini-2-5.ipynb",
        ),
        Answer(
            '[\n  {"box_2d": [393, 67, 574, 206], "label": "red sprinkle topping"},\n'
            '  {"box_2d": [379, 248, 539, 370], "label": "pink swirl topping with sprinkles"}\n]',
            [(67, 393, 206, 574), (248, 379, 370, 539)],
            "red sprinkle topping",
            f"{_GEMINI} (2 of 13 boxes)",
        ),
        Answer(
            '```json\n[\n  {"box_2d": [662, 248, 786, 365], "mask": "data:image/png;base64,iVBORw0KGgo=", '
            '"label": "peper"},\n  {"box_2d": [698, 387, 839, 532], "mask": "data:image/png;base64,iVBORw0KGgo=", '
            '"label": "salt"}\n]\n```',
            [(248, 662, 365, 786), (387, 698, 532, 839)],
            "peper",
            "github.com/roboflow/notebooks at 01b2246, zero-shot-...-with-google-gamini-2-5.ipynb (masks shortened)",
        ),
    ],
}
"""By the codec's name. Families that are not here have no public answers that were found: their conventions stand in
their documentation alone."""

OUT_OF_PLACE: dict[str, Any] = {
    "a point of Molmo": '<point x="10.5" y="20.1" alt="cup">cup</point>',
    "shares, by Kimi-VL": '{"bbox_2d": [0.280, 0.500, 0.520, 0.700]}',
    "a box of three dimensions, by Qwen3-VL": "[{'bbox_3d': [2.88, 0.56, 6.28, 4.45, 1.7, 1.84, 0.75, 0.49, 0.75]}]",
}
"""What is no box to any codec."""
