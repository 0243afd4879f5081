"""EfficientNet-lite0 in plain torch: the network of timm, folded without a difference."""

import pytest
import torch

from tellsign.plugins.semantic.student import SIDE, TOP, Student, folded
from tellsign.plugins.semantic.training.lite import from_published


@pytest.fixture(scope="module")
def trained():
    """A student with batch norms that have something to fold."""
    torch.manual_seed(0)
    student = Student(folded=False)
    for name, value in student.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "norm.bias", "norm.weight")):
            value.normal_(0.2 if name.endswith("weight") else 0.0, 0.1)
    return student.eval()


@pytest.fixture(scope="module")
def squares():
    return torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_folding_changes_nothing(trained, squares):
    flat = Student()
    flat.load_state_dict(folded(trained.state_dict()))
    with torch.inference_mode():
        torch.testing.assert_close(flat.eval()(squares), trained(squares), atol=1e-4, rtol=1e-4)
    assert not [n for n in flat.state_dict() if "norm" in n]


def test_it_is_timms_network(trained, squares):
    timm = pytest.importorskip("timm", reason="timm builds the reference")
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=3).eval()
    own = [v for k, v in trained.state_dict().items() if not k.startswith("head.")]
    theirs = [k for k in reference.state_dict() if not k.startswith("classifier.")]
    reference.load_state_dict(reference.state_dict() | dict(zip(theirs, own, strict=True)))
    with torch.inference_mode():
        x = ((squares.float() - 127) / 128).permute(0, 3, 1, 2)
        want = reference.forward_features(x).mean(dim=(2, 3))
        torch.testing.assert_close(trained.features(squares)[:, -TOP:], want, atol=1e-4, rtol=1e-4)


def test_published_weights_are_taken_in_their_order(trained):
    own = {k: v for k, v in trained.state_dict().items() if not k.startswith("head.")}
    published = {f"_t{i}": v for i, v in enumerate(own.values())} | {"_fc.weight": torch.zeros(1000, 1280)}
    taken = from_published(published)
    assert all(torch.equal(taken[k], v) for k, v in own.items())
    with pytest.raises(ValueError, match="takes 294 tensors"):
        from_published(dict(list(published.items())[:-3]))
    with pytest.raises(ValueError, match=r"_t0 takes shape \(32, 3, 3, 3\)"):
        from_published(published | {"_t0": torch.zeros(3)})


def test_it_ships_in_less_than_twelve_megabytes():
    assert 2 * sum(p.numel() for p in Student().parameters()) < 12e6
