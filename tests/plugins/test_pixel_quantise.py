"""Four-bit weights: what comes back, how near it is, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tellsign.plugins.pixel.quantise import GROUP, dequantise, pack, quantise, unpack


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_gaussian_matrix_comes_back_within_15_percent():
    weight = gaussian(96, 768) * 0.02
    back = dequantise(*quantise(weight))
    assert ((back - weight).norm() / weight.norm()).item() < 0.15
    # Plain rounding to the maximum is what the search for a scale has to beat.
    groups = weight.reshape(96, -1, GROUP)
    scale = groups.abs().amax(dim=2, keepdim=True) / 7
    plain = ((groups / scale).round() * scale).reshape(weight.shape)
    assert (back - weight).norm() < 0.97 * (plain - weight).norm()


def test_what_the_levels_can_say_comes_back_exactly():
    levels = torch.randint(-7, 8, (6, 2 * GROUP), generator=torch.Generator().manual_seed(0)).float()
    levels[:, ::GROUP] = 7  # each group uses its range, so that its scale is the one below
    scales = torch.tensor([0.5, 0.25]).repeat_interleave(GROUP)
    assert torch.equal(dequantise(*quantise(levels * scales)), levels * scales)


def test_two_levels_share_a_byte_with_the_even_input_below():
    weight = torch.zeros(1, GROUP)
    weight[0, :4] = torch.tensor([7.0, -7.0, 3.0, -1.0])
    packed, scales = quantise(weight)
    assert packed.dtype == torch.uint8
    assert packed.shape == (1, GROUP // 2)
    assert scales.dtype == torch.float16
    assert scales.tolist() == [[1.0]]
    assert packed[0, :3].tolist() == [15 | 1 << 4, 11 | 7 << 4, 8 | 8 << 4]
    assert dequantise(packed, scales)[0, :4].tolist() == [7.0, -7.0, 3.0, -1.0]


def test_zeros_stay_zeros():
    assert torch.equal(dequantise(*quantise(torch.zeros(3, GROUP))), torch.zeros(3, GROUP))


def test_groups_do_not_disturb_each_other():
    small, large = gaussian(4, GROUP), 1000 * gaussian(4, GROUP, seed=1)
    back = dequantise(*quantise(torch.cat([small, large], dim=1)))
    assert torch.equal(back[:, :GROUP], dequantise(*quantise(small)))
    assert torch.equal(back[:, GROUP:], dequantise(*quantise(large)))


def test_an_outlier_is_met_and_the_rest_survives():
    weight = gaussian(1, GROUP)
    weight[0, 5] = 6.0
    back = dequantise(*quantise(weight))
    assert abs(back[0, 5].item() - 6) < 2.5
    assert (back - weight).norm() / weight.norm() < 0.3


@pytest.mark.parametrize("shape", [(GROUP,), (2, GROUP - 1), (2, GROUP + 32), (2, 2, GROUP)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"multiple of {GROUP} inputs, got shape \({shape[0]}"):
        quantise(torch.zeros(shape))


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 50.0]), st.booleans())
def test_every_shape_comes_back_within_half_a_level(outputs, groups, seed, size, half):
    weight = gaussian(outputs, groups * GROUP, seed=seed) * size
    weight = weight.half() if half else weight
    packed, scales = quantise(weight)
    assert packed.shape == (outputs, groups * GROUP // 2)
    assert scales.shape == (outputs, groups)
    back = dequantise(packed, scales)
    assert back.dtype == torch.float32
    assert back.shape == weight.shape
    per_input = scales.float().repeat_interleave(GROUP, dim=1)
    error = (back - weight.float()).abs()
    clipped = back.abs() >= 6.99 * per_input
    assert (error[~clipped] <= 0.5 * per_input[~clipped] * 1.001 + 1e-7).all()
    assert (error.norm() / weight.float().norm()) < 0.2
    # What came back is representable, so a second time changes nothing but the scale's own rounding.
    again = dequantise(*quantise(back))
    assert (again - back).norm() <= 1.001 * error.norm() + 1e-6


def test_a_state_is_packed_block_matrices_in_four_bits_and_the_rest_in_half():
    state = {
        "conv1.weight": gaussian(64, 3, 4, 4),
        "proj": gaussian(64, 64),
        "transformer.resblocks.0.mlp.c_fc.weight": gaussian(8, 128),
        "transformer.resblocks.0.mlp.c_fc.bias": gaussian(64),
        "transformer.resblocks.0.odd.weight": gaussian(8, 65),
    }
    packed = pack(state)
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    assert set(packed) == (set(state) - {name}) | {f"{name}:int4", f"{name}:scale"}
    assert packed[f"{name}:int4"].dtype == torch.uint8
    assert {v.dtype for k, v in packed.items() if ":int4" not in k} == {torch.float16}
    back = unpack(packed)
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == torch.float32
        assert back[key].shape == value.shape
        if key != name:
            assert torch.equal(back[key], value.half().float())
    assert (back[name] - state[name]).norm() / state[name].norm() < 0.15
    assert packed[f"{name}:int4"].nbytes + packed[f"{name}:scale"].nbytes == 8 * 128 // 2 + 2 * 8 * 128 // GROUP


def test_levels_without_their_scales_are_not_unpacked():
    packed = pack({"resblocks.w": gaussian(2, GROUP)})
    del packed["resblocks.w:scale"]
    with pytest.raises(KeyError, match=r"resblocks\.w:scale"):
        unpack(packed)
