"""The critic: a second opinion, trained apart from the judge. It scores how true a caption is of a picture, one number a pair.

What optimises a score must not be rated by it: best-of-N and learning from a reward use the critic, so that the judge may rate what
they made. The two share drawings, their augmentation and the frozen text encoder, but no weight, no loss, no scene and no design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.config import from_dict, to_dict
from ..core.files import sha256
from ..core.kept import fetch, keep
from .critic_net import CriticConfig, CriticNet
from .pictures import checked, paired
from .sentences import Phrases


class Critic:
    """A `Scorer`: the log-odds that each prompt is true of its picture; 0 = as likely as not. `card`: what it was trained on, and its own
    accuracy on held-out pairs. `name` tells it from other scorers.
    """

    def __init__(self, net: CriticNet, config: CriticConfig, card: Mapping[str, Any], name: str = "critic") -> None:
        self.net, self.config, self.card, self.name = net.eval(), config, dict(card), name

    def __call__(self, images: Tensor, prompts: Sequence[str], batch: int = 64) -> Tensor:
        """(B,) fp32 on the CPU from images (B, 3, size, size) in [-1, 1] and B prompts, a text of more than 256 tokens cut there.

        Raises `UsageError` on another shape or number, `NonFiniteError` on NaN or infinity, `WeightsError` without a text encoder.
        """
        paired(images, prompts)
        return self.ask(images, prompts, torch.arange(len(images)), batch)

    @torch.no_grad()
    def ask(self, images: Tensor, captions: Sequence[str], place: Tensor, batch: int = 64) -> Tensor:
        """(C,) fp32: as a call, of C captions about the pictures `place` (C,), each seen once. Raises as a call does."""
        checked(images, self.config.size, "the critic")
        device = self.net.positions.device
        seen = torch.cat([self._see(chunk.to(device)) for chunk in images.split(batch)]) if len(images) else torch.zeros(0)
        # In fp16 a last bit that another batch turned over would show.
        phrases = Phrases(captions, torch.float32)
        numbers = torch.tensor([phrases.number[caption] for caption in captions], dtype=torch.long)
        scores = torch.zeros(len(captions))
        # Numbers rise with the length of the text: captions of a chunk are alike.
        for rows in numbers.argsort(stable=True).split(batch) if len(captions) else ():
            states, kept = phrases.states(numbers[rows])
            scores[rows] = self.net.ask(seen, place[rows].to(device), states.to(device), kept.to(device)).cpu()
        return scores

    def _see(self, images: Tensor) -> Tensor:
        return self.net.see(images.float().clamp(-1, 1))

    def _nets(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def save(self, folder: Path) -> None:
        """Write `critic.safetensors` (fp16) and `critic.json` (config, card, checksum) into `folder`."""
        keep(folder, "critic", self._nets(), {"config": to_dict(self.config), "card": self.card})

    @classmethod
    def load(cls, folder: Path | None = None, device: torch.device | str = "cpu") -> Critic:
        """The critic in `folder`, or the one that ships. Raises `WeightsError` when a file is missing, damaged or misshapen."""
        home = Path(str(package_files("sfumato") / "assets" / "critic")) if folder is None else folder

        def build(content: Mapping[str, Any]) -> Critic:
            config = from_dict(CriticConfig, content["config"])
            return cls(CriticNet(config), config, content["card"])

        critic = fetch(home, "critic", build, Critic._nets)
        critic.name = f"{home.name} ({sha256(home / 'critic.safetensors')[:12]})"
        critic.net.to(device)
        return critic
