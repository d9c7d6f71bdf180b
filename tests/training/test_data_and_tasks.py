"""Streams are pure and complete; the diffusion and codec Tasks do what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import Toy, codec, conditions, mmdit
from tests.training.tasks import config, diffusion, latents, table

from sfumato.backbones.dit import tiny
from sfumato.core.conditions import Conditions, Slot, concatenate
from sfumato.core.config import from_dict, to_dict
from sfumato.core.denoiser import Meaning
from sfumato.core.errors import ConfigError, DataError
from sfumato.core.rng import Draws
from sfumato.core.task import Phase
from sfumato.objectives.denoising import Denoising
from sfumato.training.batches import Columns, Staged
from sfumato.training.codec import CodecTask, CodecTaskConfig
from sfumato.training.diffusion import DiffusionTask, LatentStream
from sfumato.training.loop import train

PHASE = Phase("denoise", ("net",))


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 3))
def test_each_epoch_visits_every_row_once(rows: int, size: int, seed: int):
    stream = Columns({"x": torch.arange(rows) * 10}, size, seed)
    epochs = 3
    count = -(-rows * epochs // size)
    visited = torch.cat([stream.batch(i)["index"] for i in range(count)])[: rows * epochs].view(epochs, rows)
    for epoch in visited:
        assert sorted(epoch.tolist()) == list(range(rows))
    assert torch.equal(stream.batch(1)["x"], stream.batch(1)["index"] * 10)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_a_batch_depends_on_its_number_alone(visits: list[int]):
    used = Columns({"x": torch.arange(7)}, 3, seed=1)
    for index in visits:
        assert torch.equal(used.batch(index)["x"], Columns({"x": torch.arange(7)}, 3, seed=1).batch(index)["x"])


def test_epochs_and_seeds_are_shuffled_apart():
    stream = Columns({"x": torch.arange(20)}, 20, seed=0)
    assert not torch.equal(stream.batch(0)["x"], stream.batch(1)["x"])
    assert not torch.equal(stream.batch(0)["x"], Columns({"x": torch.arange(20)}, 20, seed=1).batch(0)["x"])


def test_columns_of_unequal_or_no_length_are_refused():
    for columns in ({"x": torch.zeros(2), "y": torch.zeros(3)}, {"x": torch.zeros(0)}):
        with pytest.raises(DataError):
            Columns(columns, 1, 0)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_a_text_table_pads_exactly(lengths: list[int], data):
    made = table(lengths)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=5)))
    cond = made.conditions(chosen)
    states, keep = cond.tokens["text"].states, cond.tokens["text"].keep
    assert states.shape[1] == max(lengths[i] for i in chosen) and states.dtype == torch.float32
    for row, caption in enumerate(chosen.tolist()):
        start, end = int(made.offsets[caption]), int(made.offsets[caption + 1])
        assert torch.equal(states[row, : end - start], made.states[start:end].float()) and not states[row, end - start :].any()
        assert keep[row].tolist() == [i < end - start for i in range(states.shape[1])]
        assert torch.equal(cond.vectors["pooled"][row], made.pooled[caption].float())


def test_latents_keep_their_own_captions_and_batches_share_a_form():
    stream, forms = latents(), set()
    for index in range(12):
        batch = stream.batch(index)
        rows = stream.rows.batch(index)["index"]
        matches = [
            torch.equal(batch["cond"].vectors["pooled"], stream.table.pooled[stream.rows.columns["captions"][rows, f]].float())
            for f in (0, 1)
        ]
        assert sum(matches) == 1 and torch.equal(batch["latents"], stream.rows.columns["latents"][rows].float())
        forms.add(matches.index(True))
        assert torch.equal(batch["latents"], latents().batch(index)["latents"])
    assert forms == {0, 1}


def test_a_curriculum_is_its_stages_one_after_the_other():
    first, then = latents(), LatentStream(torch.ones(4, 4, 8, 8), torch.arange(8).view(4, 2), table([1] * 8), (0.0, 1.0), 2, 0)
    staged = Staged(first, 3, then)
    for index in range(6):
        expected = first.batch(index) if index < 3 else then.batch(index - 3)
        assert torch.equal(staged.batch(index)["latents"], expected["latents"])


def test_a_form_of_weight_zero_is_never_drawn():
    stream = LatentStream(torch.zeros(4, 4, 8, 8), torch.arange(8).view(4, 2), table([1] * 8), (0.0, 1.0), 2, 0)
    drawn = torch.cat([stream.batch(i)["cond"].vectors["pooled"] for i in range(20)])
    assert all(any(torch.equal(row, stream.table.pooled[i].float()) for i in (1, 3, 5, 7)) for row in drawn)
    with pytest.raises(ConfigError, match="captions are"):
        LatentStream(torch.zeros(4, 4, 8, 8), torch.zeros(4, 3), table([1]), (0.5, 0.5), 2, 0)


class Listening:
    """A task over a formula that records the conditions it was asked under."""

    def __init__(self, slots: tuple[Slot, ...]) -> None:
        self.parts: list[Conditions] = []
        self.task = DiffusionTask(Toy(lambda x, t, cond: self.parts.append(cond) or 0 * x), slots=slots)

    @property
    def heard(self) -> Conditions:
        """All rows, in whatever order they came."""
        return concatenate(self.parts)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_dropout_drops_its_share_of_rows_in_both_slots(p: float):
    rows = 3000
    listening = Listening((Slot("text", p), Slot("pooled", p)))
    cond = conditions([2] * rows)
    listening.task.loss(PHASE, {"latents": torch.zeros(rows, 1, 2, 2), "cond": cond}, {}, Draws(0, 0))
    heard = listening.heard
    dropped = ~heard.tokens["text"].keep.any(1)
    assert float(dropped.float().mean()) == pytest.approx(p, abs=0.03)
    assert torch.equal(dropped, ~heard.vectors["pooled"].any(1)), "slots of one group are dropped together"
    given = {tuple(row.flatten().tolist()) for row in cond.tokens["text"].states}
    assert all(tuple(row.flatten().tolist()) in given for row in heard.tokens["text"].states[~dropped])


@pytest.mark.parametrize("rows", [64, 97, 128, 300])
def test_parts_of_like_length_are_the_whole_batch_sooner(rows: int, monkeypatch: pytest.MonkeyPatch):
    """The same loss and gradients as of the batch at once, and less padding."""
    net, lengths = mmdit(depth=2).train(), [1 + i * i % 17 for i in range(rows)]
    batch = {"latents": torch.randn(rows, 4, 8, 8), "cond": table(lengths).conditions(torch.arange(rows))}
    found, seen = {}, dict[str, list[tuple[int, int]]]()
    for name, least in (("whole", rows), ("parts", 32)):
        monkeypatch.setattr("sfumato.training.diffusion.LEAST", least)
        task, widths = DiffusionTask(net), seen.setdefault(name, [])
        watch = net.register_forward_pre_hook(lambda _, args: widths.append(tuple(args[1].tokens["text"].keep.shape)))  # noqa: B023
        net.zero_grad()
        loss = task.loss(PHASE, batch, {}, Draws(0, 0))
        loss.total.backward()
        watch.remove()
        found[name] = [loss.total.detach(), loss.metrics["mse"].detach(), *(p.grad for p in net.parameters())]
    for whole, parts in zip(found["whole"], found["parts"], strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert len(seen["whole"]) == 1 and len(seen["parts"]) == min(4, rows // 32) and sum(n for n, _ in seen["parts"]) == rows
    assert sum(n * width for n, width in seen["parts"]) < 0.8 * rows * max(lengths)


def test_groups_are_dropped_independently():
    rows = 4000
    listening = Listening((Slot("text", 0.5, group="a"), Slot("pooled", 0.5, group="b")))
    listening.task.loss(PHASE, {"latents": torch.zeros(rows, 1, 2, 2), "cond": conditions([1] * rows)}, {}, Draws(0, 0))
    heard = listening.heard
    both = ~heard.tokens["text"].keep.any(1) & ~heard.vectors["pooled"].any(1)
    assert float(both.float().mean()) == pytest.approx(0.25, abs=0.04)


def test_slots_of_one_group_must_agree_on_their_dropout():
    with pytest.raises(ConfigError, match="group 'text'"):
        DiffusionTask(Toy(lambda x, t, cond: x), slots=(Slot("text", 0.1), Slot("pooled", 0.3)))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dit_learns_what_no_class_is(p: float):
    """One step: the table's rows of the classes that were shown, and that of none, get a gradient, and no others."""
    net = tiny(depth=1)
    task = DiffusionTask(net, slots=(net.config.slot(p),))
    labels = torch.tensor([0, 0, 3, 1] * 4)
    batch = {"latents": torch.randn(16, 4, 8, 8), "cond": Conditions(scalars={"class": labels})}
    gone = Draws(7, 0).uniform((16,), "drop class") < p
    task.loss(PHASE, batch, {}, Draws(7, 0)).total.backward()
    taught = net.classes.weight.grad.abs().sum(1) > 0
    shown = torch.where(gone, torch.tensor(net.config.classes), labels)
    assert set(taught.nonzero().flatten().tolist()) == set(shown.tolist())
    assert bool(taught[-1]) == bool(gone.any()) == (p > 0)
    before = net.classes.weight.detach().clone()
    torch.optim.SGD(net.parameters(), 0.1).step()
    assert torch.equal((net.classes.weight != before).any(1), taught)


def test_the_slot_of_classes_is_saved_with_the_model():
    slot = tiny(classes=7).config.slot(0.2)
    assert (slot.dropout, slot.value) == (0.2, 7.0)
    assert from_dict(Slot, json.loads(json.dumps(to_dict(slot)))) == slot


def test_the_objective_must_train_what_is_saved():
    with pytest.raises(ConfigError, match="trains eps"):
        DiffusionTask(Toy(lambda x, t, cond: x), Denoising(prediction="eps"))
    DiffusionTask(Toy(lambda x, t, cond: x), Denoising(prediction="eps"), Meaning("eps"))


def test_the_loss_falls_when_few_pictures_are_learnt_by_heart(tmp_path: Path):
    task, stream = diffusion(), latents(rows=2, size=8)

    def measured() -> float:
        with torch.no_grad():
            return sum(float(task.loss(PHASE, stream.batch(i), {}, Draws(9, i)).total) for i in range(6)) / 6

    before = measured()
    train(task, {"train": stream}, config(60), tmp_path, quiet=True)
    assert measured() < 0.8 * before


def pictures() -> dict[str, Any]:
    return {"images": (torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 255).byte()}


def test_polishing_the_decoder_leaves_the_encoder_bit_equal(tmp_path: Path):
    made = codec()
    before = {n: t.clone() for n, t in made.state_dict().items()}
    task = CodecTask(made, CodecTaskConfig(), decoder_only=True)
    train(task, {"train": Columns(pictures(), 2, 0)}, config(2), tmp_path, quiet=True)
    changed = {n.split(".")[1] for n, t in made.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"decoder"}


@torch.no_grad()
def test_polishing_sees_the_means_that_pictures_are_drawn_from():
    for decoder_only in (True, False):
        task = CodecTask(codec(), CodecTaskConfig(), decoder_only)
        one, two = (float(task.loss(task.phases(0)[0], pictures(), {}, Draws(seed, 0)).total) for seed in (0, 1))
        assert (one == two) == decoder_only


def test_the_codec_learns_and_reports_psnr(tmp_path: Path):
    task = CodecTask(codec(), CodecTaskConfig(kl=1e-6))

    def measured() -> float:
        with torch.no_grad():
            return float(task.loss(Phase("codec", ("encoder", "decoder")), pictures(), {}, Draws(0, 0)).metrics["psnr"])

    before = measured()
    train(task, {"train": Columns(pictures(), 4, 0)}, config(30), tmp_path, quiet=True)
    assert measured() > before + 0.5


def test_the_config_stands_beside_the_weights(tmp_path: Path):
    train(diffusion(), {"train": latents()}, config(1), tmp_path, quiet=True)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["task"] == "DiffusionTask" and record["optimizer"]["lr"] == 1e-2
