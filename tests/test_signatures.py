from torch import nn

from densessl.signatures import arguments_of


class Base:
    def __init__(self, width, *, depth=1):
        pass


class Handing(Base):
    def __init__(self, height, **kwargs):
        pass


class Silent(Handing):
    pass


class Anything:
    def __init__(self, **kwargs):
        pass


def test_a_class_takes_its_own_arguments_and_those_it_hands_on():
    assert list(arguments_of(Base)) == ["width", "depth"]
    assert list(arguments_of(Handing)) == list(arguments_of(Silent)) == ["height", "width", "depth"]
    assert arguments_of(Anything) is None and arguments_of(lambda a, **more: a) is None
    assert list(arguments_of(lambda a, b=1: a)) == ["a", "b"] and list(arguments_of(type("E", (), {}))) == []
    assert "kernel_size" in arguments_of(nn.Conv2d) and "self" not in arguments_of(nn.Conv2d)
