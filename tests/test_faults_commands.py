"""Wrong command lines of all commands but ``densessl train``: each has an exit code and a message."""

import pytest

from densessl.cli import main
from tests.faults import exit_code, expect, rows

TOP = """
    trian | densessl has no command 'trian'; did you mean train\\?
    --hlep | densessl has no command '--hlep'
"""
REGIONS = """
    regions | the following arguments are required: COMMAND
    regions biuld | invalid choice: 'biuld'
    regions build photos | the following arguments are required: out
    regions build nowhere out | no data set at .*nowhere.*\\. Give a folder of images, a list .* as DATA$
    regions build list.json out | list.json is not in COCO format
    regions build broken.json out | broken.json is not JSON
    regions build photos.csv out | photos.csv: expected a column path, .*it has
    regions build empty out | no image in .*empty
    regions build photos.txt out --root nowhere | 'photos/p0.png', which is not a file .* --root FOLDER$
    regions build photos '' | out: found '', expected the folder of the store
    regions build photos photos --generator grid | out: photos is the folder of the images, expected another
    regions build photos a_file --generator grid | a_file: is a file, expected a folder
    regions build photos out --generator fats | --generator: invalid choice: 'fats'
    regions build photos out --per-image -1 | per_image is -1, expected at least 1
    regions build photos out --draws 0 | draws is 0, expected at least 1
    regions build photos out --workers -1 | --workers: found -1, expected at least 0
    regions build photos out --workers x | --workers: invalid int value: 'x'
    regions build photos out --max-side 0 | max_side is 0, expected a positive number
    regions build photos out --generator selectivesearch --max-side -3 | max_side is -3, expected a positive number
    regions build photos out --generator grid --generator-options scales=3 | generator grid does not take
    regions build photos out --generator grid --generator-options scale=1 | generator grid takes no 'scale', but scales
    regions build photos out --generator grid --generator-options overlap=2 | Grid.overlap is 2, expected at least 0
    regions build photos out --generator grid --generator-options overlap | found 'overlap', expected KEY=VALUE
    regions build photos out --generator random --generator-options count=0 | RandomBoxes.count is 0
    regions build photos store --generator random | store was built of something else
    regions check nowhere | nowhere does not exist. Make one with `densessl regions build DATA nowhere`$
    regions check store --data nowhere | no data set at .*nowhere.*\\. Give a folder of images, a list .* with --data$
    regions check photos | no store of regions: photos has no manifest.json
    regions check a_file | no store of regions: a_file is not a folder
    regions check store_damaged | boxes.bin has .* bytes, the manifest says
    regions check store_unfinished | store_unfinished has no manifest.json
    regions check store --picture out.png | --picture needs --data
    regions check store --data photos --picture out.xyz | out.xyz: expected a name that ends as pictures do
    regions check store --data photos --picture nowhere/out.png | there is no folder nowhere
    regions check store --coco nowhere.json | there is no nowhere.json
    regions check store --coco photos | photos is a folder, expected a JSON file
    regions check store --coco list.json | list.json is not in COCO format
    regions check store --coco broken.json | broken.json is not JSON
    regions check store --coco gone.json | none of the 1 image of gone.json, such as 'gone.png', is among the 9
    regions check store --data others | no image of others, such as 'o0.png', is in store, such as 'p0.png'
    regions import nowhere out | there is no file nowhere
    regions import photos out | photos is a folder, expected a file
    regions import photos.csv out | photos.csv: expected .json, .npz, .pkl
    regions import list.json out --data nowhere | no data set at .*nowhere.*\\. Give .* with --data$
    regions import list.json out | list.json is a list of results: give --data
    regions import broken.json out | broken.json is not JSON
    regions import no_images.json out | no_images.json is not in COCO format: expected a list under 'annotations'
    regions import gone.json out --format npz | gone.json is not a readable npz file
    regions import ours.pth out --format pickle | ours.pth: it is damaged, cut short, or of another kind
    regions import gone.json out --format yaml | invalid choice: 'yaml'
    regions import gone.json out --top 0 | top is 0, expected a positive number
"""
LOOK = """
    look | the following arguments are required: COMMAND
    look near | invalid choice: 'near'
    look matching | the following arguments are required: checkpoint, out
    look matching nowhere.pth out.png | no checkpoint nowhere.pth
    look matching photos out.png | photos is a folder, expected a checkpoint
    look matching text.pth out.png | text.pth is not a readable checkpoint
    look matching cut.pth out.png | cut.pth is not a readable checkpoint
    look matching unknown.pth out.png | unknown.pth: meta\\['densessl'\\]\\['backbone'\\] is missing
    look matching liar.pth out.png | liar.pth describes a network that cannot be built, or that its weights do not fit
    look matching ours.pth out.xyz | out.xyz: expected a name that ends as pictures do
    look matching ours.pth nowhere/out.png | there is no folder nowhere
    look matching ours.pth out.png --size 32 | --size: expected 2 arguments
    look matching ours.pth out.png --device gpu | --device: found 'gpu', which is not available
    look spread ours.pth nowhere | no data set at .*nowhere.*\\. Give a folder of images as FOLDER$
    look knn ours.pth nowhere | no data set at .*nowhere.*\\. Give a folder with a subfolder .* as FOLDER$
    look spread ours.pth empty | no image in .*empty
    look spread ours.pth photos --images 1 | --images: found 1, expected at least 2
    look spread ours.pth photos --size 0 | --size: found 0, expected at least 1
    look spread tensor.pth photos | tensor.pth: expected a training checkpoint
    look knn ours.pth photos | photos: expected a folder of images for each of two or more classes
    look knn ours.pth classes --size -3 | --size: found -3, expected at least 1
    look knn part.pth classes | part.pth: meta
    look knn code.pth classes | code.pth holds the object `pathlib.PosixPath`
"""
LOOK_AT_IMAGES = """
    look matching ours.pth out.png --level 9 | --level: found 9, expected 0 to 0, or -1 for the last map
    look matching ours.pth out.png --size 0 0 | --size: found 0, expected at least 1
    look spread ours.pth one | expected at least 2
    look spread ours.pth photos --size 32 --level 7 | --level: found 7
    look knn ours.pth classes --size 32 -k 0 | -k: found 0, expected at least 1
"""
EXPORT = """
    export | the following arguments are required: checkpoint, out
    export ours.pth | the following arguments are required: out
    export our.pth out.pth | no checkpoint our.pth; near it are ours.pth
    export photos out.pth | photos is a folder, expected a checkpoint
    export text.pth out.pth | text.pth is not a readable checkpoint
    export cut.pth out.pth | cut.pth is not a readable checkpoint
    export empty.pth out.pth | empty.pth is not a readable checkpoint
    export tensor.pth out.pth | tensor.pth: expected named tensors, found Tensor
    export code.pth out.pth | code.pth: expected named tensors
    export list.json out.pth | list.json is not a readable checkpoint
    export ours.pth out.pth --to timm | timm's resnet18 is another network: width: found 8, timm has 64
    export ours.pth out.pth --to torchvision | torchvision's resnet18 is another network: .* torchvision has 64
    export ours.pth out.pth --to caffe | --to: invalid choice: 'caffe'
    export ours.pth out.pth --branch target | ours.pth has no 'target' backbone; its branches are \\['online'\\]
    export ours.pth out.pth --branch techer | --branch: invalid choice: 'techer'
    export ours.pth out.pth --parts neck | found \\['neck'\\], ours.pth has \\['backbone'\\]
    export ours.pth out.onnx --to onnx --size 64 | size: found 64, expected none
    export ours.pth out.onnx --to onnx --into RETINANET | --into: found --to onnx, expected one of
    export ours.pth out.pth --into nowhere.py | no config at nowhere.py
    export ours.pth out.pth --into mmdet::retinanet/retinanet_r50 | mmdet has no config
    export ours.pth out.pth --into tiny.py | tiny.py pretrains; expected the config of a detector
    export ours.pth out.pth --into no_config.py | no_config.py has no `model`
    export ours.pth out.pth --into RETINANET --min-coverage 3 | --min-coverage: found 3, expected a share from 0 to 1
    export ours.pth out.pth --min-coverage 0.5 | --min-coverage needs --into
    export ours.pth out.pth --min-coverage x | --min-coverage: invalid float value: 'x'
    export ours.pth out --to mmdet-detector | ours.pth holds no pretrained detector
    export ours.pth photos | photos: is a folder, expected a file
    export ours.pth a_file/out.pth | a_file: is a file, expected a folder
    export liar.pth out.onnx --to onnx | describes a network that cannot be built, or that its weights do not fit
    export unknown.pth out.onnx --to onnx | the checkpoint does not state eps
    convert | the following arguments are required: checkpoint, out
    convert nowhere.pth out.pth | no checkpoint nowhere.pth
    convert text.pth out.pth | text.pth is not a readable checkpoint
    convert cut.pth out.pth | cut.pth is not a readable checkpoint
    convert tensor.pth out.pth | tensor.pth: expected named tensors, found Tensor
    convert code.pth out.pth --drop-objects | code.pth: expected named tensors
    convert ours.pth out.pth --prefix model. | --prefix model.: no name in ours.pth begins with it
    convert ours.pth out.pth --coco-classes | --coco-classes: ours.pth holds a backbone
    convert ours.pth out.pth --options x | --options: found 'x', expected KEY=VALUE
    convert ours.pth out.pth --options encoder.num_layers=3 | --options: ours.pth holds a backbone
    convert ours.pth out.pth --family yolo | --family: invalid choice: 'yolo'
    convert ours.pth out.pth --family detr | ours.pth holds no DETR
    convert ours.pth out.pth --to tensorflow | --to: invalid choice: 'tensorflow'
    convert ours.pth photos | photos: is a folder, expected a file
"""
COMPARE = """
    compare | the following arguments are required: --out
    compare --out out | --config: expected a file or mmdet::NAME
    compare --out out --config nowhere.py --init a=none | no config at nowhere.py
    compare --out out --config tiny.py --init a=none | --config: tiny.py pretrains; expected the config of a detector
    compare --out out --config tiny.py --init a | --init a: expected NAME=FILE
    compare --out out --config tiny.py | --init: expected NAME=FILE at least once
    compare --out out --config tiny.py --init a=none --init a=ours.pth | --init a=ours.pth: a was given before
    COMPARE --init b=nowhere.pth | --init b: no checkpoint nowhere.pth; near it are unknown.pth
    COMPARE --init b=our.pth | --init b: no checkpoint our.pth; near it are ours.pth
    COMPARE --init b=photos | --init b: photos is a folder, expected a checkpoint
    COMPARE --data-root a_file | --data-root: a_file is a file, expected a folder
    COMPARE --seeds 0 | --seeds: expected one or more
    COMPARE --seeds x | --seeds: invalid int value: 'x'
    COMPARE --steps 0 | --steps: expected more than 0, found 0
    COMPARE --minutes -1 | --minutes: expected more than 0
    COMPARE --steps 1 --minutes 1 | not allowed with argument --steps
    COMPARE --evaluations 3 | --evaluations: the config says when to evaluate
    COMPARE --labels many | --labels: found 'many', expected a share, shots or images
    COMPARE --jobs 0 | --jobs: expected 1 or more, found 0
    COMPARE --threads 0 | --threads: expected 1 or more, found 0
    COMPARE --data-root nowhere | --data-root: nothing at nowhere
    compare --show --out nowhere | no comparison was begun in nowhere: there is no nowhere/grid.json
    compare --show --out a_file | a_file/grid.json: leads through a file
"""
OTHERS = """
    segment | the following arguments are required: config, checkpoint, --images, --labels
    segment nowhere.py ours.pth --images photos --labels labels | no config at nowhere.py
    segment tiny.py ours.pth --images photos --labels labels | tiny.py: no objective segments; found \\['pixpro'\\]
    segment segments.py nowhere.pth --images photos --labels labels | no checkpoint nowhere.pth
    segment segments.py text.pth --images photos --labels labels | text.pth is not a readable checkpoint
    segment segments.py ours.pth --images photos --labels labels | the weights do not fit
    SEGMENT --images nowhere | no data set at .*nowhere.*\\. Give a folder of images, .* with --images$
    SEGMENT --mapping nowhere.json | nowhere.json
    SEGMENT --mapping list.json | --mapping: list.json: expected
    SEGMENT --mapping broken.json | --mapping: broken.json is not JSON
    SEGMENT --mapping words.json | --mapping: words.json: expected
    SEGMENT --batch-size 0 | --batch-size: found 0, expected at least 1
    SEGMENT --size 0 | --size: found 0, expected at least 1
    SEGMENT --device gpu | --device: found 'gpu', which is not available
    SEGMENT --cfg-options x | found 'x', expected KEY=VALUE
    SEGMENT --set model.objectives.0.clases=3 | model.objectives.0.clases: unknown; did you mean .*classes
    cityscapes | the following arguments are required: root
    cityscapes nowhere | nowhere/leftImg8bit/train has no images of Cityscapes
    cityscapes a_file | a_file/leftImg8bit/train has no images of Cityscapes
    cityscapes photos --splits tran | photos/leftImg8bit/tran has no images of Cityscapes
    cityscapes photos --workers x | --workers: found 'x', expected a whole number of at least 1 or 'auto'
    cityscapes photos --workers 0 | --workers: found '0'
"""
SEGMENT_IMAGES = """
    SEGMENT --labels empty | has no labels: expected empty/p0.png
    SEGMENT | labels/p0.png has mode RGB, expected one number a pixel
"""


@pytest.fixture(autouse=True)
def in_room(fault_room, monkeypatch):
    monkeypatch.chdir(fault_room)


@pytest.mark.parametrize(("words", "said"), rows(TOP + REGIONS + LOOK + EXPORT + COMPARE + OTHERS))
def test_nothing_is_touched(words, said, fault_room, capsys):
    expect(fault_room, words, said, capsys)


@pytest.mark.parametrize(("words", "said"), rows(LOOK_AT_IMAGES + SEGMENT_IMAGES))
def test_what_shows_in_the_images_is_told_once_they_are_read(words, said, fault_room, capsys):
    expect(fault_room, words, said, capsys, reads=True)


def test_no_command_lists_them(capsys):
    assert main([]) == 2
    assert "usage: densessl COMMAND" in capsys.readouterr().out


def test_what_is_right_passes(fault_room, tmp_path, capsys):
    assert exit_code(["export", "ours.pth", str(tmp_path / "out.pth")]) == 0
    assert exit_code(["regions", "check", "store", "--data", "photos", "--picture", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().err == ""
