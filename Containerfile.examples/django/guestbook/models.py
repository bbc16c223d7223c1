"""What the guest book keeps."""
from django.db import models


class Entry(models.Model):
    """One guest's words."""

    name = models.CharField(max_length=80)
    text = models.TextField(max_length=2000)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-written"]
