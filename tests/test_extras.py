"""Where a package is missing, one line says what needs it and how to install it."""

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from densessl.configs import read_config
from densessl.errors import MissingPackage, SettingError
from densessl.extras import EXTRAS, how_to_install, import_extra
from densessl.version import __version__

ROOT = Path(__file__).parent.parent
IMPORTED = {  # under another name than the distribution's
    "onedl-mmcv": "mmcv",
    "onedl-mmdetection": "mmdet",
    "onedl-mmsegmentation": "mmseg",
    "scikit-image": "skimage",
    "ImageHash": "imagehash",
    "pillow-heif": "pillow_heif",
}


def test_extras_are_those_that_can_be_installed():
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg")
    wanted = {}
    for extra, lines in declared["options.extras_require"].items():
        names = [line.partition(">")[0].strip() for line in lines.split("\n") if line]
        wanted[extra] = {IMPORTED.get(name, name.replace("-", "_")) for name in names}
    del wanted["test"]
    assert {extra: set(packages) for extra, packages in EXTRAS.items()} == wanted


def test_the_command_is_that_of_a_checkout_or_a_wheel():
    assert how_to_install("det") == (
        f"pip install -e '.[det]' in a checkout, "
        f"or pip install 'densessl-{__version__}-py3-none-any.whl[det]' with the wheel at hand"
    )


def test_a_package_that_another_one_wants_is_named(tmp_path, monkeypatch):
    """`needy` is there, what it imports is not."""
    (tmp_path / "needy.py").write_text("import cityscapesscripts.helpers")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "cityscapesscripts", None)  # an import of what is not there finds the same
    config = tmp_path / "config.py"
    config.write_text("custom_imports = dict(imports=['needy'])")
    for name, run in {"this": lambda: import_extra("needy", "this"), str(config): lambda: read_config(config)}.items():
        with pytest.raises(MissingPackage) as caught:
            run()
        assert caught.value.name == "cityscapesscripts"
        assert str(caught.value) == (
            f"{name} needs the package 'cityscapesscripts', which is not installed: {how_to_install('cityscapes')}"
        )


@pytest.mark.parametrize("line", ["import no_such_module", "from scipy import no_such_name"])
def test_what_no_extra_would_mend_stays_the_error_it_is(tmp_path, monkeypatch, line):
    (tmp_path / "broken.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "config.py"
    config.write_text("custom_imports = dict(imports=['broken'])")
    with pytest.raises(ImportError) as caught:
        import_extra("broken", "this test")
    assert not isinstance(caught.value, MissingPackage)
    with pytest.raises(SettingError, match=r"config\.py cannot be read as a config: .*broken"):
        read_config(config)


def test_configs_of_detectors_say_what_they_need():
    """Without mmdet, importing `densessl.detectors` fails inside MMEngine's reading of the config."""
    configs = [*ROOT.glob("configs/detreg_*.py"), *ROOT.glob("configs/updetr_*.py")]
    code = "import sys; sys.modules['mmdet'] = None; from densessl.cli.train import main; "
    code += "sys.exit({main([config, '--demo']) for config in sys.argv[1:]} != {2})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, configs)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert configs and result.returncode == 0 and "Traceback" not in result.stdout + result.stderr
    for path in configs:
        told = f"{path} needs the package 'mmdet', which is not installed: {how_to_install('det')}\n"
        assert told in result.stdout + result.stderr


def test_nothing_tells_to_install_it_from_an_index():
    """It is on none: `pip install densessl` would find nothing, or something else."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.py"), *ROOT.glob("densessl/**/*.py")]
    wrong = re.compile(r"pip install ['\"]?densessl(?![-\w])|['\"]densessl\[")
    assert len(pages) > 200
    assert [page.relative_to(ROOT).as_posix() for page in pages if wrong.search(page.read_text())] == []
