"""DiT's sizes and its classes; parity with diffusers stands in test_checkpoints.py."""

import pytest
import torch
from tests.backbones.peers import DIT, peer
from tests.builders import image

from sfumato.backbones.checkpoints import formats, of_family
from sfumato.backbones.checkpoints.folder import load_network
from sfumato.backbones.dit import DiT, DiTConfig, tiny
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, UsageError, WeightsError
from sfumato.core.state import Stream
from sfumato.nn.embeddings import sinusoid


def classes(*labels: int) -> Conditions:
    return Conditions(scalars={"class": torch.tensor(labels)})


def test_parameter_counts_of_the_paper():
    with torch.device("meta"):
        net = DiT(DiTConfig())
    # As published, less the table of positions, which is no parameter here.
    assert sum(p.numel() for p in net.parameters()) == 675_129_632 - 256 * 1152
    # The grafting sheet: 5.313 M and 10.62 M.
    assert sum(p.numel() for p in net.blocks[0].attention.core.parameters()) == 5_313_024
    assert sum(p.numel() for p in net.blocks[0].mlp.core.parameters()) == 10_622_592


def test_a_new_network_answers_zero_and_every_block_is_the_identity():
    torch.manual_seed(0)
    net, streams = DiT(DiTConfig(depth=2, width=24, heads=2, classes=5, span=4.0)), image()
    assert not any(p.any() for p in net(streams, classes(1, 2)).pred.values())
    state = net.start(streams, classes(1, 2))
    assert torch.equal(net.run(state, 0, 2)["image"], state["image"]) and state["image"].any()


def test_each_class_is_heard_and_none_is_a_class_of_its_own():
    net, streams = tiny(), image(1)
    seen = [net(streams, classes(label)).pred["image"] for label in range(6)]
    assert all(not torch.equal(a, b) for n, a in enumerate(seen) for b in seen[:n])


@pytest.mark.parametrize("wrong", [torch.tensor([6]), torch.tensor([-1]), torch.tensor([1.0])])
def test_what_is_no_class_is_told(wrong: torch.Tensor):
    with pytest.raises(UsageError, match="whole numbers from 0 to 5, the last for none"):
        tiny()(image(1), Conditions(scalars={"class": wrong}))


def test_closed_rates_end_at_the_longest_period():
    t = torch.tensor([250.0])
    rates = torch.acos(sinusoid(torch.tensor([1e-2]), 8, closed=True)[0, :4]) / 1e-2
    torch.testing.assert_close(rates[0], torch.tensor(1.0), atol=1e-3, rtol=0)
    features = sinusoid(t, 8, closed=True)[0]
    torch.testing.assert_close(features[7], torch.sin(t[0] / 1e4), atol=1e-6, rtol=0)
    torch.testing.assert_close(sinusoid(t, 8)[0, 7], torch.sin(t[0] / 1e3), atol=1e-5, rtol=0)


def test_what_the_format_has_no_place_for_and_copies_that_differ_are_refused():
    form = of_family("DiT")
    for changes in ({"mlp_ratio": 2}, {"closed": False}, {"span": 4.5}):
        with pytest.raises(ConfigError, match="save in sfumato's own format"):
            form.published(DiTConfig(**{"closed": True, **changes}))
    theirs = peer("DiTTransformer2DModel", DIT)
    with pytest.raises(ConfigError, match="out_channels 5"):
        form.config({**theirs.config, "out_channels": 5})
    with pytest.raises(ConfigError, match="activation_fn is 'geglu'"):
        form.config({**theirs.config, "activation_fn": "geglu"})
    config, name = (
        DiTConfig(**formats.get("DiTTransformer2DModel").config(dict(theirs.config))),
        "norm1.emb.timestep_embedder.linear_1.bias",
    )
    with pytest.raises(WeightsError, match=f"transformer_blocks.1.{name} differs from transformer_blocks.0.{name}"):
        dict(form.to_ours(config, {**theirs.state_dict(), f"transformer_blocks.1.{name}": torch.zeros(24)}))


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"width": 25}, {"heads": 5}, {"span": 0.0}, {"classes": 0}, {"eps": 0.0}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        DiTConfig(**{"depth": 2, "width": 24, "heads": 2, **wrong})


def test_strangers_and_a_missing_time_are_told():
    net = tiny()
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, classes(2))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, classes(2))


def test_a_config_of_the_former_class(tmp_path):
    """Published DiTs name the class that several networks once shared; its other uses' fields stand there unused."""
    import diffusers

    theirs = peer("DiTTransformer2DModel", DIT)
    former = diffusers.Transformer2DModel(**dict(theirs.config)).eval()
    former.load_state_dict(theirs.state_dict())
    former.save_pretrained(tmp_path)
    streams, cond = image(1), classes(2)
    ours = load_network(tmp_path)
    theirs.save_pretrained(tmp_path / "today")
    assert torch.equal(ours(streams, cond).pred["image"], load_network(tmp_path / "today")(streams, cond).pred["image"])
    form = formats.get("DiTTransformer2DModel")
    assert not form.former.keys() & form.published(ours.config).keys()
    with pytest.raises(ConfigError, match="num_vector_embeds = 3"):
        form.config({**former.config, "num_vector_embeds": 3})
