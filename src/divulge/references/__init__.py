"""Reference models: trained with and without each record, to tell what the target would say of it either way."""

from divulge.attacks.choosing import Choice, choose
from divulge.references.designs import design
from divulge.references.store import load_references
from divulge.references.training import fit_references

__all__ = ["Choice", "choose", "design", "fit_references", "load_references"]
