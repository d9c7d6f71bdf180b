"""What is free is read from the system's own files, and what does not fit is refused with what would."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfumato.backbones.checkpoints.folder import load_network, save_network
from sfumato.backbones.flux import tiny
from sfumato.core import memory
from sfumato.core.memory import TooLargeError, free_memory, require_memory
from sfumato.core.weights import WEIGHTS, Place, Shards, pipeline_bytes

GB = 10**9


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB available and 1 GiB of swap, whose process is in no group."""
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapFree: 1048576 kB\nHugePages_Total: 0\n")
    (tmp_path / "cgroup").write_text("")
    (tmp_path / "groups").mkdir()
    for name, file in (("_MEMINFO", "meminfo"), ("_OWN_GROUPS", "cgroup"), ("_GROUPS", "groups")):
        monkeypatch.setattr(memory, name, tmp_path / file)
    return tmp_path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_what_can_be_given_is_free(system: Path):
    assert free_memory() == 9 * 2**30
    assert free_memory("meta") is None
    (system / "meminfo").unlink()
    assert free_memory() is None, "not Linux"


def test_a_container_of_either_generation_allows_less(system: Path):
    (system / "cgroup").write_text("0::/pod/app\n")
    group(system / "groups/pod/app", memory__max="max", memory__current=1, memory__stat="anon 1\nfile 0")
    group(system / "groups/pod", memory__max=4 * GB, memory__current=3 * GB, memory__stat=f"anon {GB}\nfile {2 * GB}")
    assert free_memory() == 3 * GB, "the limit is the outer group's; caches are given back"
    (system / "cgroup").write_text("4:cpu,memory:/job\n3:pids:/job\n")
    former = {"memory__limit_in_bytes": 2 * GB, "memory__usage_in_bytes": GB, "memory__stat": "total_cache 0"}
    group(system / "groups/memory", **former)
    assert free_memory() == GB, "seen from inside, its own group is the root"


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 5 * GB)
    need = {None: 6 * GB, torch.float32: 8 * GB, torch.bfloat16: 4 * GB}.__getitem__
    require_memory("it", need, torch.bfloat16)
    with pytest.raises(TooLargeError, match=r"it needs 8.0 GB of memory in float32, and 5.0 GB is free on cpu\n.*bfloat16 needs 4.0 GB"):
        require_memory("it", need, torch.float32)
    with pytest.raises(TooLargeError, match=r"it needs 6.0 GB of memory, and"):
        require_memory("it", need, None)
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * GB)
    with pytest.raises(TooLargeError, match=r"even bfloat16 needs 4.0 GB: free memory"):
        require_memory("it", need, torch.float32)
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    require_memory("it", need, torch.float32)


def test_a_network_is_refused_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    net = tiny()
    folder = save_network(net, tmp_path / "transformer")
    count = sum(p.numel() for p in net.parameters())
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * count)
    monkeypatch.setattr(Place, "read", lambda place: pytest.fail("read"))
    with pytest.raises(TooLargeError, match=r"(?s)the network in .*transformer needs .* bfloat16 needs .*, which fits"):
        load_network(folder)
    monkeypatch.undo()
    monkeypatch.setattr(memory, "free_memory", lambda device: 3 * count)
    assert load_network(folder, torch.bfloat16).patch.weight.dtype == torch.bfloat16


def test_a_pipeline_is_what_its_loaded_components_hold(tmp_path: Path):
    for component, file in (("transformer", WEIGHTS), ("text_encoder_2", "model.safetensors"), ("safety_checker", "model.safetensors")):
        (tmp_path / component).mkdir()
        save_file({"x": torch.zeros(10, 3), "ids": torch.zeros(7, dtype=torch.int64)}, tmp_path / component / file)
    assert pipeline_bytes(tmp_path) == 2 * (4 * 30 + 8 * 7)
    assert pipeline_bytes(tmp_path, torch.bfloat16) == 2 * (2 * 30 + 8 * 7), "ids are no numbers to be rounded"


def test_tensors_of_every_type_and_size_are_read_as_they_were_written(tmp_path: Path):
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    shapes = ((), (0, 3), (5, 7), (200, 300))
    written = {f"{dtype} {shape}": (torch.randn(shape) * 50).to(dtype) for dtype in types for shape in shapes}
    written |= {"bool": torch.rand(300, 300) > 0.5, "fp8": torch.randn(300, 300).to(torch.float8_e4m3fn)}
    save_file(written, tmp_path / WEIGHTS, metadata={"format": "pt"})
    stored = Shards(tmp_path)
    assert stored.keys() == written.keys() and stored.bytes() == sum(t.nbytes for t in written.values())
    for name, tensor in written.items():
        found = stored[name]
        assert found.dtype == tensor.dtype and found.shape == tensor.shape
        assert torch.equal(found.view(torch.uint8) if "fp8" in name else found, tensor.view(torch.uint8) if "fp8" in name else tensor)
    stored["torch.float32 (200, 300)"].zero_()
    assert stored["torch.float32 (200, 300)"].any(), "what is written stays in memory"


def test_where_no_mapping_is_to_be_had_a_copy_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    large = torch.randn(300, 300)
    save_file({"large": large}, tmp_path / WEIGHTS)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("unable to mmap")

    monkeypatch.setattr(torch, "from_file", refuse)
    assert torch.equal(Shards(tmp_path)["large"], large)
