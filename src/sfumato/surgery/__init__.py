"""Surgery: what makes one model of another. LoRA at call time, and folded in; weights packed for a CPU."""

from .lora import Delta, Lora, adapters, fresh, merge, text_changes
from .lora_files import examine, load_lora
from .lora_report import Match, Report
from .lora_saving import save_lora
from .pack import is_packed, pack, refuse_packed

__all__ = [
    "Delta",
    "Lora",
    "Match",
    "Report",
    "adapters",
    "examine",
    "fresh",
    "is_packed",
    "load_lora",
    "merge",
    "pack",
    "refuse_packed",
    "save_lora",
    "text_changes",
]
