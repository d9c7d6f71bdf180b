"""From a prompt to a picture: requests that are refused, batches that imitate each other, notes that tell."""

import pytest
import torch
from tests.builders import mmdit

from sfumato.core.errors import CancelledError, NonFiniteError, UsageError
from sfumato.pipelines import TextToImage

PROMPTS = ["a red heart", "a yellow sunflower in the wide garden of a castle by the sea", "cat", "two ships"]


@pytest.mark.parametrize("prompt", ["", "  \n", [], ["fine", ""], [3]])
def test_an_empty_prompt_is_refused(pipe: TextToImage, prompt):
    with pytest.raises(UsageError, match="prompt"):
        pipe(prompt)


@pytest.mark.parametrize("num", [0, -1])
def test_no_pictures_are_refused(pipe: TextToImage, num: int):
    with pytest.raises(UsageError, match=f"num is {num}"):
        pipe("cat", num=num)


def test_seeds_are_one_per_picture(pipe: TextToImage):
    with pytest.raises(UsageError, match="3 seeds for 2 pictures"):
        pipe("cat", num=2, seeds=(1, 2, 3))
    assert pipe(["cat", "dog"], num=2, seed=5).seeds == (5, 6, 5, 6)
    assert pipe(["cat", "dog"], seeds=(9, 4)).seeds == (9, 4)
    assert pipe(["cat", "dog"], num=2).prompts == ("cat", "cat", "dog", "dog")


@pytest.mark.parametrize(
    ("size", "nearest"),
    [((33, 32), "32x32"), ((30, 63), "64x32"), ((1, 1), "4x4"), ((0, 32), "32x4"), ((32, 5000), "4096x32"), ((-4, 8), "8x4")],
)
def test_a_bad_size_names_the_nearest(pipe: TextToImage, size: tuple[int, int], nearest: str):
    with pytest.raises(UsageError, match=f"the nearest is {nearest}"):
        pipe("cat", size=size)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 10_000}, "steps is 10000"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"shift": 0.0}, "shift is 0"),
        ({"solver": "eular"}, "did you mean 'euler'"),
        ({"frame": (2, 2, 5)}, "frame"),
    ],
)
def test_impossible_settings_are_refused(pipe: TextToImage, options: dict, told: str):
    with pytest.raises(UsageError, match=told):
        pipe("cat", **options)


def test_another_size_draws_and_says_so(pipe: TextToImage):
    assert pipe("cat").notes == ()
    pictures = pipe("cat", size=(16, 40))
    assert pictures.images.shape == (1, 3, 16, 40) and pictures[0].size == (40, 16)
    assert len(pictures.notes) == 1 and "trained at 32x32; 40x16 is beyond" in pictures.notes[0]


@pytest.mark.parametrize("side", range(4, 64, 4))
def test_every_possible_size_has_a_grid_that_starts_at_pure_noise(pipe: TextToImage, side: int):
    """The shift of a size is irrational; the first time is 1 all the same."""
    assert torch.isfinite(pipe("cat", size=(side, 12), steps=1, guidance=1.0).images).all()


def test_a_long_prompt_tells_the_words_it_lost_once(pipe: TextToImage):
    long = "cat " + " ".join(f"word{i}" for i in range(40)) + " zebra"
    notes = pipe(long, num=2).notes
    assert len(notes) == 1 and "not (fully) read" in notes[0] and "more" in notes[0]
    assert len(pipe("cat", negative=long).notes) == 1


@pytest.mark.parametrize("negative", ["", "a rather long text that says what should not be seen in any of the pictures"])
def test_a_frame_imitates_a_batch_bit_for_bit(pipe: TextToImage, negative: str):
    """Each picture of a batch of prompts of all lengths, made again alone."""
    batch = pipe(PROMPTS, num=2, seed=11, negative=negative)
    for row in range(len(batch)):
        again = pipe(batch.prompts[row], seeds=(batch.seeds[row],), frame=batch.frames[row], negative=negative)
        assert torch.equal(again.images[0], batch.images[row])
        assert (again.frames, again.seeds, again.prompts) == ((batch.frames[row],), (batch.seeds[row],), (batch.prompts[row],))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_row_is_itself(pipe: TextToImage, guidance: float):
    batch = pipe(PROMPTS, seeds=(0, 3, 7, 1), guidance=guidance)
    for row, prompt in enumerate(PROMPTS):
        alone = pipe(prompt, seed=batch.seeds[row], guidance=guidance)
        torch.testing.assert_close(alone.images[0], batch.images[row], rtol=1e-5, atol=1e-5)


def test_every_setting_changes_the_picture(pipe: TextToImage):
    base = pipe("cat").images
    for options in ({"seed": 1}, {"steps": 3}, {"guidance": 1.0}, {"solver": "heun"}, {"negative": "dog"}, {"shift": 3.0}):
        assert not torch.equal(base, pipe("cat", **options).images), options
    assert torch.equal(base, pipe("cat").images) and not torch.equal(base, pipe("dog").images)


def test_the_record_can_make_the_picture_again(pipe: TextToImage):
    pictures = pipe("cat", steps=3, guidance=2.0, solver="heun", size=(16, 32))
    s = pictures.settings
    again = pipe(
        "cat", steps=s["steps"], guidance=s["guidance"], solver=s["solver"], size=tuple(s["size"]), shift=s["shift"], negative=s["negative"]
    )
    assert torch.equal(pictures.images, again.images) and s["dtype"] == "float32" and s["device"] == "cpu"


def test_pictures_are_pixels(pipe: TextToImage):
    pictures = pipe("cat", num=2)
    assert pictures.images.min() >= -1 and pictures.images.max() <= 1 and len(list(pictures)) == 2
    top = torch.frombuffer(bytearray(pictures[1].tobytes()), dtype=torch.uint8).view(32, 32, 3)
    expected = ((pictures.images[1] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert torch.equal(top, expected)


def test_a_run_is_stopped_by_its_callback(pipe: TextToImage):
    seen = []
    with pytest.raises(CancelledError):
        pipe("cat", steps=5, on_step=lambda step: seen.append(step.index) or step.index < 2)
    assert seen == [1, 2]


def test_values_that_are_not_finite_are_told_and_not_drawn(pipe: TextToImage):
    from dataclasses import replace

    from tests.builders import codec

    from sfumato.core.denoiser import Denoiser

    net = mmdit(text_width=384, pooled_width=384)
    net.final.bias.data[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"prediction at step 1, t = 1\.000"):
        replace(pipe, denoiser=Denoiser(net))("cat")
    broken = codec()
    broken.autoencoder.decoder.conv_out.bias.data[0] = float("inf")
    with pytest.raises(NonFiniteError, match="decoded picture"):
        replace(pipe, codec=broken)("cat")
