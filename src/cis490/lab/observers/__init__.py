"""The four observers of a guest, and its process events: what each sees, as rows of the format."""
