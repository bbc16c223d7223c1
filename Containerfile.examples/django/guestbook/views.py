"""The guest book's pages."""
from django.conf import settings
from django.forms import modelform_factory
from django.http import HttpResponse
from django.shortcuts import redirect, render

from .models import Entry

EntryForm = modelform_factory(Entry, fields=["name", "text"])


def entries(request):
    """Shows the entries; takes a new one."""
    form = EntryForm(request.POST or None)
    if form.is_valid():
        form.save()
        return redirect("entries")
    context = {"title": settings.GUESTBOOK_TITLE, "entries": Entry.objects.all()[:100], "form": form}
    return render(request, "guestbook.html", context)


def health(request):
    """Says that the database answers, for probes."""
    return HttpResponse(f"ok, {Entry.objects.count()} entries\n", content_type="text/plain")
