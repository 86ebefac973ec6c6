"""What `--cfg-options` changes in a config, and what it refuses."""

import copy

import pytest
from mmengine.config import Config, ConfigDict

from densessl.errors import SettingError
from densessl.overrides import apply_options

CONTENT = dict(
    views=[dict(size=224, scale=(0.2, 1.0)), dict(size=224, photometric=[dict(type="Blur", p=0.5)])],
    model=dict(backbone=dict(type="ResNet", depth=50), target=None),
    optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, betas=(0.9, 0.999))),
    default_hooks=dict(lr=dict(schedule=dict(type="constant"))),
    milestones=[3, 6],
    empty=[],
)


def overridden(options):
    cfg = Config(copy.deepcopy(CONTENT))
    apply_options(cfg, options)
    return cfg


@pytest.mark.parametrize(
    "options",
    [
        {"views.1.size": 96, "model.backbone.depth": 18},
        {"views.1": {"size": 96}},
        {"views": {"0": {"size": 96}}},
        {"views": [dict(size=1)]},
        {"model.backbone": dict(depth=18)},
        {"model.backbone": dict(_delete_=True, type="ViT")},
        {"model": dict(backbone=dict(_delete_=True, type="ViT"))},
        {"milestones": [1], "new.key": 3, "default_hooks.lr.schedule.type": "warmup_cosine"},
        {"optim_wrapper.optimizer.betas": (0.8, 0.9)},
    ],
)
def test_as_mmengine_does(options):
    expected = Config(copy.deepcopy(CONTENT))
    expected.merge_from_dict(copy.deepcopy(options))
    cfg = overridden(options)
    assert cfg.to_dict() == expected.to_dict()
    assert cfg.to_dict() != Config(CONTENT).to_dict()


def test_entries_of_lists_and_tuples_and_a_dict_for_a_number():
    """What MMEngine's merge ends with an AttributeError or a TypeError for."""
    cfg = overridden({"milestones.1": 7, "optim_wrapper.optimizer.betas.0": 0.5, "views.0.size": dict(a=1)})
    assert cfg.milestones == [3, 7] and cfg.optim_wrapper.optimizer.betas == (0.5, 0.999)
    assert cfg.views[0].size == dict(a=1)


def test_a_star_is_every_entry():
    cfg = overridden({"views.*.size": 160, "milestones.*": 0, "default_hooks.*.rule": "none"})
    assert [view.size for view in cfg.views] == [160, 160] and cfg.milestones == [0, 0]
    assert cfg.default_hooks.lr.rule == "none"


def test_a_star_within_a_value_is_a_name():
    cfg = overridden({"optim_wrapper": {"paramwise_cfg": {"lr_mult": {"*": 0.1}}}})
    assert cfg.optim_wrapper.paramwise_cfg.lr_mult == {"*": 0.1}


def test_later_options_see_earlier_ones():
    cfg = overridden({"views": [dict(size=1), dict(size=2), dict(size=3)], "views.2.size": 4})
    assert [view.size for view in cfg.views] == [1, 2, 4]
    assert all(type(view) is ConfigDict for view in cfg.views)


def test_what_shares_a_dict_with_another_entry_leaves_that_alone():
    cfg = Config(dict(a=dict(x=1)))
    cfg.b = cfg.a
    apply_options(cfg, {"b.x": 2})
    assert cfg.a.x == 1 and cfg.b.x == 2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("views.2.size", "views has 2 entries: expected 0 to 1, or * for all"),
        ("views.first.size", "views has 2 entries: expected 0 to 1, or * for all"),
        ("views.-1.size", "views has 2 entries: expected 0 to 1, or * for all"),
        ("views.1.photometric.1.p", "views.1.photometric has 1 entry: expected 0"),
        ("views.*.photometric.0.p", "there is no views.0.photometric; known: scale, size"),
        ("empty.0", "empty has 0 entries"),
        ("empty.*.size", "empty has 0 entries"),
        ("view.0.size", "there is no view; did you mean views?"),
        ("model.backbones.*", "there is no model.backbones; did you mean backbone?"),
        ("model.backbone.depth.x", "model.backbone.depth is 50 and has no entries"),
        ("model.target.momentum", "model.target is None and has no entries"),
        ("custom_hooks.1.schedule.base", "custom_hooks has 0 entries; the learning rate is optim_wrapper.optimizer.lr"),
        (
            "custom_hooks.1.schedule",
            "custom_hooks has 0 entries; the learning rate's schedule is default_hooks.lr.schedule",
        ),
        (
            "custom_hooks.1.schedule.warmup_epochs",
            "custom_hooks has 0 entries; the learning rate's schedule is default_hooks.lr.schedule",
        ),
        (
            "custom_hooks.1.reference_batch",
            "custom_hooks has 0 entries; the learning rate's reference batch is default_hooks.lr.reference_batch",
        ),
        (
            "custom_hooks.2.branch",
            "custom_hooks has 0 entries; the hooks of a pretraining stand by name in default_hooks: init, step, lr, "
            "export",
        ),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(key, message):
    with pytest.raises(SettingError) as error:
        overridden({key: 1})
    assert str(error.value) == f"{key}: {message}"


def test_a_dict_that_is_merged_by_index_names_the_list():
    with pytest.raises(SettingError, match=r"^views: views has 2 entries"):
        overridden({"views": {"5": {"size": 1}}})


def test_other_configs_keep_their_custom_hooks():
    cfg = Config(dict(custom_hooks=[dict(type="LoadBackboneHook", checkpoint=None)]))
    apply_options(cfg, {"custom_hooks.0.checkpoint": "r50.pth"})
    assert cfg.custom_hooks[0].checkpoint == "r50.pth"
    with pytest.raises(SettingError, match=r"^custom_hooks\.7\.branch: custom_hooks has 1 entry: expected 0$"):
        apply_options(cfg, {"custom_hooks.7.branch": "target"})


def test_all_bad_options_are_told_and_none_is_applied():
    cfg = Config(copy.deepcopy(CONTENT))
    with pytest.raises(SettingError) as error:
        apply_options(cfg, {"milestones": [1], "views.7.size": 1, "views.0.size": 2, "milestones.0.x": 3})
    assert str(error.value).splitlines() == [
        "views.7.size: views has 2 entries: expected 0 to 1, or * for all",
        "milestones.0.x: milestones.0 is 1 and has no entries",
    ]
    assert cfg.to_dict() == Config(CONTENT).to_dict()
