"""The tables of layouts: what is not in them is told, and what is has a case of its own."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from densessl.transfer import ExportError, read_backbone
from densessl.transfer.layouts import LAYOUTS, MOCO_V3, OFFICIAL, PLAIN
from densessl.transfer.names import NAMES
from densessl.transfer.public import layout_of, unknown
from tests.transfer.public import resnet
from tests.transfer.public_cases import CASES

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"CCOP", "Caffe2 (MSRA)", "Detectron2's ViTDet", "a model with a backbone"}  # tests of their own


def test_every_layout_has_a_case_and_a_row_in_the_docs():
    names = [layout.name for layout in [*LAYOUTS, *PLAIN]]
    assert {case.layout for case in CASES.values()} == set(names) - ELSEWHERE and len(names) == len(set(names))
    docs = (ROOT / "docs/transfer.md").read_text()
    for layout in LAYOUTS:
        assert f"`{layout.name}`" in docs, layout.name


def test_no_rule_touches_the_names_of_torchvision_and_timm():
    for name in [*CASES["torchvision"].tensors("online"), *CASES["timm"].tensors("online")]:
        assert not [pattern for pattern, _ in NAMES if re.search(pattern, name)], name


def test_heads_depend_on_whose_vit_it_is():
    """The small one of MoCo v3 has twelve heads, and DeiT's, which others take, six."""
    state = {"patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}
    state |= {"blocks.0.attn.qkv.weight": torch.zeros(1), "blocks.0.mlp.fc1.weight": torch.zeros(1)}
    by_name = {layout.name: layout.facts for layout in LAYOUTS}
    assert by_name["DINO"].config(state)["num_heads"] == 6 and by_name["MoCo v3"].config(state)["num_heads"] == 12
    assert "num_heads" not in by_name["mmselfsup or mmpretrain"].config(state)
    assert {width: OFFICIAL.heads[width] for width in (192, 768, 1024)} == {192: 3, 768: 12, 1024: 16}
    assert MOCO_V3[768] == 12


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["net.encoder_q.conv1.weight", "net.encoder_q.layer1.0.conv1.weight", "net.queue", "temperature"],
            r"nearest is 'MoCo': 67% .* 4 tensors begin with net\.encoder_q \(2\), net \(1\), temperature \(1\); .*"
            r"Networks lie under \['net\.encoder_q\.'\]: tools/convert.py FILE OUT --prefix net\.encoder_q\.",
        ),
        (["encoder_b.conv1.weight", "momentum_encoder.conv1.weight"], r"nearest is 'MoCo v3': 50% of its marks"),
        (["a.b.c", "a.b.d"], r"none is near\. Its 2 tensors begin with a\.b \(2\); expected 'online\.backbone\.\*'"),
    ],
)
def test_a_layout_that_is_not_known_is_told_with_the_nearest(names, message):
    assert layout_of(names) is None
    with pytest.raises(ExportError, match=rf"no backbone in the given state, .*{message}"):
        read_backbone({name: torch.zeros(1) for name in names})


def test_of_many_prefixes_the_largest_are_shown():
    names = [f"part{i}.inner.{j}" for i in range(12) for j in range(i + 1)]
    said = unknown(names, "x.pth")
    assert "part11.inner (12), part10.inner (11)" in said and "part3.inner" not in said and ", …;" in said


def test_a_prefix_that_no_layout_has_can_be_taken_off(tmp_path, capsys):
    own = resnet(depth=18)
    state = {f"net.trunk.{key}": value for key, value in own.items()} | {"net.head.weight": torch.ones(1)}
    torch.save(dict(state_dict=state), tmp_path / "own.pth")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    words = [str(tmp_path / "own.pth"), str(tmp_path / "new.pth")]
    assert main(words) == 2 and "net.trunk (120)" in capsys.readouterr().err
    assert main([*words, "--prefix", "net.trunks."]) == 2
    assert "--prefix net.trunks.: no name in" in capsys.readouterr().err and not (tmp_path / "new.pth").exists()
    assert main([*words, "--prefix", "net.trunk."]) == 0
    state, _ = read_backbone(tmp_path / "new.pth")
    assert all(torch.equal(state[key], value) for key, value in own.items())


def test_a_branch_that_a_file_has_not_is_refused():
    with pytest.raises(ExportError, match=r"\(SimSiam\) has no 'target' backbone; its branches are \['online'\]"):
        read_backbone(CASES["simsiam"].content(), "target")
    with pytest.raises(ExportError, match="found 'teacher', expected one of"):
        read_backbone(CASES["dino"].content(), "teacher")
