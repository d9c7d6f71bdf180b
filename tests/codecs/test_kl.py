"""The KL codec against diffusers' own AutoencoderKL, its normalisation, and PSNR."""

import math

import pytest
import torch
from tests.builders import codec
from torch import Tensor

from sfumato.codecs.kl import psnr
from sfumato.core.errors import UsageError


def images(height: int = 16, width: int = 24, batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    "statistics",
    [
        {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        {"scaling_factor": 0.18215, "shift_factor": None},
        {"scaling_factor": 2.0, "shift_factor": None, "latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
    ],
)
@torch.no_grad()
def test_encode_and_decode_equal_diffusers_with_scaling(statistics: dict):
    ours, x = codec(), images()
    ours.autoencoder.register_to_config(**statistics)
    z = ours.autoencoder.encode(x).latent_dist.mode()
    if "latents_mean" in statistics:
        mean, std = (torch.tensor(statistics[n]).view(1, 4, 1, 1) for n in ("latents_mean", "latents_std"))
        expected = (z - mean) / std * 2.0
    else:
        expected = (z - (statistics["shift_factor"] or 0.0)) * statistics["scaling_factor"]
    torch.testing.assert_close(ours.encode(x), expected)
    torch.testing.assert_close(ours.decode(expected), ours.autoencoder.decode(z).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_sampling_the_posterior_takes_the_noise_it_is_given():
    ours, x = codec(), images()
    posterior = ours.posterior(x)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(4))
    theirs = posterior.sample(generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(ours.encode(x, noise), theirs)
    torch.testing.assert_close(ours.encode(x, torch.zeros_like(noise)), ours.encode(x))


@torch.no_grad()
def test_normalising_gives_every_channel_mean_zero_and_variance_one():
    ours, x = codec(), images(32, 32, 6)
    before = ours.decode(ours.encode(x))
    ours.normalise(ours.posterior(x).mean)
    z = ours.encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(z), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "factor"), [((8, 8), 2), ((8, 8, 8, 8), 8)])
@torch.no_grad()
def test_any_size_that_the_factor_divides(channels: tuple[int, ...], factor: int):
    ours, x = codec(channels=channels), images(16, 40, 1)
    z = ours.encode(x)
    assert ours.factor == factor and ours.latent_channels == 4
    assert z.shape == (1, 4, 16 // factor, 40 // factor) and ours.decode(z).shape == x.shape


@torch.no_grad()
def test_a_row_is_itself():
    ours, x = codec(), images()
    torch.testing.assert_close(ours.encode(x)[1:2], ours.encode(x[1:2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_shift_and_scale_are_not_rounded_to_the_codecs_type(dtype: torch.dtype):
    ours = codec().to(dtype)
    ours.autoencoder.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    x, wide = images().to(dtype), torch.promote_types(dtype, torch.float32)
    z = ours.autoencoder.encode(x).latent_dist.mode()
    latents = ours.encode(x)
    torch.testing.assert_close(latents, (z.to(wide) - 0.0609) * 1.5305)
    assert torch.equal(ours.decode(latents), ours.autoencoder.decode((latents / 1.5305 + 0.0609).to(dtype)).sample)


def test_one_pass_refuses_steps():
    with pytest.raises(UsageError, match="one pass"):
        codec().decode(torch.zeros(1, 4, 4, 4), steps=3)


def test_psnr_by_its_formula():
    reference = torch.zeros(2, 3, 4, 4)
    off = torch.full((2, 1, 1, 1), 0.1)
    off[1] = 0.5
    assert psnr(reference + off, reference).tolist() == pytest.approx([10 * math.log10(4 / 0.01), 10 * math.log10(4 / 0.25)], abs=1e-3)
    assert float(psnr(torch.full((1, 3, 2, 2), 7.0), torch.ones(1, 3, 2, 2))[0]) == pytest.approx(10 * math.log10(4e10), abs=1e-3)
