"""The project's addresses."""
from django.urls import path

from guestbook import views

urlpatterns = [
    path("", views.entries, name="entries"),
    path("health", views.health, name="health"),
]
