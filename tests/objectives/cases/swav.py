import math

from tests.objectives.cases import AFTER, EMA, STOP, Case

SWAV = dict(type="SwAV", hidden=12, dim=8, prototypes=10, views=((0, 1), (2, 3)), train_prototypes=True)
SIZES = (64, 64, 32, 32)
CASES = {
    "swav": Case([SWAV], targets=(STOP, EMA, AFTER), sizes=SIZES, collapsed=("swav.code_entropy", math.log(10))),
    "swav-queue": Case([dict(SWAV, queue_length=8)], targets=(STOP,), sizes=SIZES),
    "swav-two-crops": Case([dict(SWAV, hidden=None, views=((0, 1),), assign=(1,))], targets=(STOP,)),
}
