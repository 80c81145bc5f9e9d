"""How workers are started elsewhere. Each module needs packages that melmill does not depend on."""
