from tests.objectives.cases import STOP, Case

SIMSIAM = dict(type="SimSiam", hidden=12, dim=12, bottleneck=6)
CASES = {
    "simsiam": Case([SIMSIAM], (STOP,), single_image="refused", collapsed=("simsiam.channel_std", 0.0)),
}
