"""The parts of the documentation that are made from the code: tables, a gallery, a picture."""
