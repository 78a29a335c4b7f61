"""AHIQ (Lao et al., "Attentions Help CNNs See Better", CVPRW 2022): the network and its parts."""

from harness.models.ahiq.model import AHIQ

__all__ = ["AHIQ"]
