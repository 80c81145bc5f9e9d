"""Tables, figures and the static page that a run ends in."""
