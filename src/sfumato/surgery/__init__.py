"""Surgery: what makes one model of another. Adapters first: LoRA at call time, and folded in."""

from .lora import Delta, Lora, adapters, fresh, merge, text_changes
from .lora_files import examine, load_lora
from .lora_report import Match, Report
from .lora_saving import save_lora

__all__ = ["Delta", "Lora", "Match", "Report", "adapters", "examine", "fresh", "load_lora", "merge", "save_lora", "text_changes"]
