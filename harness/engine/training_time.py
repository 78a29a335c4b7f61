"""The estimate of a training's time, and how to shorten it, as a message."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cards.schema import Recipe
from harness.runtime.progress import duration

_LONG = 3600.0


@dataclass(frozen=True)
class TrainingTime:
    """The data of an estimate; `str` gives the message. Times are in seconds."""

    recipe: Recipe
    where: str
    """The device, and the number of threads where it is small."""
    step: float
    """Seconds of one step."""
    steps: tuple[int, int]
    """Those that are left, and all of one training."""
    validation: float
    """Seconds of one validation."""
    validations: tuple[int, int]
    """Those that are left, and all of one training."""
    trainings: int
    """How many such trainings are left, this one included."""
    size: int
    """Bytes of the weights."""

    def __str__(self) -> str:
        recipe, (left, steps), (validations, every) = self.recipe, self.steps, self.validations
        seconds = max(1.0, self.step * left + self.validation * validations)
        parts = [f"{left:,} steps of {self.step:.2g} s"]
        parts += [f"{validations} validations of {duration(max(1.0, self.validation))}"] if validations else []
        size = f"{self.size / 1e9:.1f} GB" if self.size >= 1e9 else f"{max(self.size / 1e6, 0.1):.1f} MB"
        text = f"training will take about {duration(seconds)} on {self.where} ({', '.join(parts)}); its weights take {size}"
        if self.trainings > 1:
            further = (self.trainings - 1) * (self.step * steps + self.validation * every)
            text += f"; {self.trainings} such trainings, one for each split, will take about {duration(seconds + further)}"
        if seconds * self.trainings > _LONG or self.trainings > 1:
            ways = ["test released weights (--weights released)", "fewer epochs (--set recipe.epochs=N)"]
            ways += ["fewer splits (--splits 3; marked as partial)"] if self.trainings > 1 else []
            often = self.validation * validations > seconds / 4
            ways += ["fewer validations (--set recipe.validate_every=5)"] if often else []
            ways += ["early stopping (--set recipe.patience=10)"] if not recipe.patience and validations else []
            ways += ["--set recipe.precision=bf16, where the processor or GPU has it"] if recipe.precision == "fp32" else []
            ways += ["a variant with larger patches", "a GPU (--device cuda)"]
            text += f"; shorter: {', '.join(ways)}. It can be stopped and resumed at any time"
        return text
