from tests.objectives.cases import AFTER, Case
from tests.objectives.cases.dino import DINO, VIEWS

SCFS = dict(type="SCFS", views=VIEWS, levels=(0, 1), width=6, hidden=12, dim=8)
CASES = {
    "scfs": Case([DINO, SCFS], (AFTER,), sizes=(64, 64, 32, 32), collapsed=("scfs.target_information_level1", 0.0)),
}
