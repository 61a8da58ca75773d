"""Reference models: trained with and without each record, to tell what the target would say of it either way."""
