"""oneDNN's operators say what the plain functions say, and make way where they must."""

import pytest
import torch
from torch.nn import functional as F

from tellsign.towers import fused


@pytest.fixture(params=["as it is", "without oneDNN"])
def either(request, monkeypatch):
    if request.param == "without oneDNN":
        monkeypatch.setattr(fused, "_there", lambda: False)
    elif not fused._there():
        pytest.skip("this torch has no oneDNN operators")


@pytest.mark.parametrize("shape", [(40,), (1, 40), (17, 40), (2, 3, 50, 40), (0, 40)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_linear_map(either, shape, biased):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(24, 40), torch.randn(24) if biased else None
    with torch.inference_mode():
        torch.testing.assert_close(fused.linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("act", ["none", "relu", "relu6"])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (3, 1, 8), (5, 2, 8)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_convolution(either, act, kernel, stride, groups, memory):
    torch.manual_seed(1)
    x = (4 * torch.randn(2, 8, 13, 10)).contiguous(memory_format=memory)
    weight, bias = torch.randn(16, 8 // groups, kernel, kernel), torch.randn(16)
    pad, steps = (kernel // 2, kernel // 2), (stride, stride)
    with torch.inference_mode():
        want = F.conv2d(x, weight, bias, stride, pad, 1, groups)
        want = {"none": want, "relu": F.relu(want), "relu6": F.relu6(want)}[act]
        got = fused.conv2d(x, weight, bias, stride=steps, padding=pad, groups=groups, act=act)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


def test_a_dilated_convolution_without_a_bias(either):
    torch.manual_seed(2)
    x, weight = torch.randn(1, 4, 12, 12), torch.randn(4, 4, 3, 3)
    with torch.inference_mode():
        got = fused.conv2d(x, weight, padding=(2, 2), dilation=(2, 2))
        torch.testing.assert_close(got, F.conv2d(x, weight, padding=2, dilation=2), atol=1e-5, rtol=1e-5)


def test_gradients_and_other_types_take_the_plain_way():
    x = torch.randn(40, 8, requires_grad=True)
    fused.linear(x, torch.randn(4, 8, requires_grad=True)).sum().backward()
    assert x.grad is not None
    plane = torch.randn(1, 2, 6, 6, requires_grad=True)
    fused.conv2d(plane, torch.randn(3, 2, 3, 3), act="relu6").sum().backward()
    assert plane.grad is not None
    with torch.inference_mode():
        double = fused.linear(torch.randn(40, 8).double(), torch.randn(4, 8).double())
        half = fused.conv2d(torch.randn(1, 2, 6, 6).bfloat16(), torch.randn(3, 2, 3, 3).bfloat16(), act="relu")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = fused.linear(torch.randn(40, 8), torch.randn(4, 8))
    assert (double.dtype, half.dtype, cast.dtype) == (torch.float64, torch.bfloat16, torch.bfloat16)
